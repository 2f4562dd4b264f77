"""Finds imports that would fail where a user's file is run again, from its source and without running it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from forgetbench.errors import UsageError, describe_error, printable
from forgetbench.user_files import parse_python


def check_imports(path: Path) -> None:
    """Refuse a user's file that imports a file or package from its own folder.

    Raises:
        UsageError: It does, or its source is not valid Python.
    """
    try:
        tree = parse_python(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError, OSError) as error:
        raise UsageError(f"{path} cannot be imported: {describe_error(error)}.") from error
    for node in ast.walk(tree):
        for name, written in _imported(node):
            if not name or _is_neighbor(name, path):
                line = getattr(node, "lineno", 0)
                raise UsageError(
                    f"{path}, line {line}: `{printable(written)}` imports a neighbor of the file, which is "
                    "recorded, submitted and run again as one file: move the code into it, or install it as a package "
                    "of its own."
                )


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Top-level package and source text of each import; the package of a relative import is ""."""
    if isinstance(node, ast.ImportFrom):
        yield "" if node.level else (node.module or "").partition(".")[0], ast.unparse(node)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name.partition(".")[0], ast.unparse(node)


def _is_neighbor(name: str, path: Path) -> bool:
    folder = path.resolve().parent
    if name in sys.stdlib_module_names or not ((folder / f"{name}.py").is_file() or (folder / name).is_dir()):
        return False
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return (folder / f"{name}.py").is_file() or any((folder / name).glob("*.py"))
    places = [Path(place) for place in (spec.origin, *(spec.submodule_search_locations or ())) if place]
    is_here = any(folder in place.parents for place in places)
    return is_here and name not in packages_distributions()
