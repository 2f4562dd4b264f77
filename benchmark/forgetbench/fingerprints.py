"""Fingerprints: what identifies the behavior of a component, free of file names, formatting and prose.

Every artifact and every score is addressed by the components that shaped it. A component has an explicit version, and
`fingerprints.toml` records the SHA-256 of its normalized syntax tree at that version. While the tree of the source
equals the recorded one, the fingerprint is the version alone, so that docstrings, comments, annotations, formatting,
messages and moved modules change nothing. Where the tree differs, the fingerprint is the version plus the hash of the
tree: an edit that was not recorded never reuses earlier results. A component that is not recorded yet, such as a method
that was just written or a file outside this package, is identified by the hash of its tree.

`forgetbench.fingerprint_record` writes the record.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from forgetbench.errors import UsageError
from forgetbench.store import digest
from forgetbench.user_files import parse_python

PACKAGE = Path(__file__).parent
RECORD = PACKAGE / "fingerprints.toml"
GROUPS = {
    "training": ("tasks/recipe.py", "training/*.py", "networks/base.py"),
    "prediction": ("evidence/arrays.py",),
    "images.decoding": ("datasets/_files.py",),
    "images.cifar10-jpeg": ("datasets/_files.py", "datasets/cifar10_jpeg.py"),
    "images.perceptual-hash": ("datasets/_files.py", "datasets/_perceptual_hash.py"),
    "images.atypicality": ("datasets/scenarios/memorised.py",),
    "scoring": ("scoring/*.py",),
}
"""Component -> files of the package that are one component."""
SEPARATE = ("metrics/*.py", "networks/*.py")
"""Files that are a component each, so that a new one changes no other; those of a group are left out."""
PLUGINS = {"method": "forgetbench.methods", "attack": "forgetbench.attacks"}
"""Kinds of classes that are a component each -> the package that defines them, whose classes use each other."""
CONTRACT = {f"{package}{name}" for package in PLUGINS.values() for name in ("", ".base", "._card", "._references")}
"""Modules that every method or attack imports: they shape how hyper-parameters are checked, and no weights."""
NO_COMPONENTS = ("__init__.py", "_docs.py")
"""Files that only re-export, or only write documentation."""
_SILENT_FIELDS = frozenset(("annotation", "ctx", "kind", "returns", "simple", "type_comment", "type_params"))
PROSE = frozenset(
    {"aliases", "bibtex", "citation", "definition", "description", "example", "formula", "help", "known_limitations"}
    | {"link", "meaning", "misses", "misuse", "note", "paper", "paper_default", "papers", "search", "source", "title"}
)
"""Keyword arguments that only people read, or that only tuning reads."""


def fingerprint(component: str) -> str:
    """The fingerprint of a component of this package.

    Args:
        component: One of `component_paths`, such as ``training`` or ``networks.fast``.

    Returns:
        The recorded version (``"1"``), the version and the hash of the tree (``"1+0123456789ab"``) where the source
        differs from the record, or the hash alone where nothing is recorded.
    """
    return _labeled(component, tree_hash(component))


def module_fingerprint(module: str) -> str:
    """The fingerprint of a module that is one component (``forgetbench.networks.fast``), or of a module elsewhere.

    Raises:
        UsageError: The source of the module cannot be read.
    """
    if module.startswith("forgetbench."):
        return fingerprint(module.removeprefix("forgetbench."))
    tree = _read(_file_of(module)).tree
    return digest(sorted(filter(None, map(_normalized, tree.body))))


def method_fingerprint(kind: type) -> str:
    """The fingerprint of the class of a method or an attack: the class with every definition of `PLUGINS` that it uses.

    For a class of this package, see `fingerprint`. For any other class it is the hash of the file that defines it
    (wherever the file is, and whatever its name), with the definitions of this package that it uses.

    Raises:
        UsageError: The source of the class cannot be read.
    """
    if (package := plugin_package(kind.__module__)) is None:
        return class_hash(kind)
    return _labeled(f"{package}.{kind.card.name}", class_hash(kind))  # type: ignore[attr-defined]


def plugin_package(module: str) -> str | None:
    """The last part of the package of `PLUGINS` that a module is in: "methods" or "attacks"; None for other modules."""
    packages = [package for package in PLUGINS.values() if module.startswith(f"{package}.")]
    return packages[0].rpartition(".")[2] if packages else None


@cache
def scoring_fingerprint() -> str:
    """SHA-256 that changes with the behavior of anything that computes a score: metrics, bands, ranks, rounding."""
    shaping = [name for name in component_paths() if name in ("scoring", "prediction") or name.startswith("metrics.")]
    return digest({name: fingerprint(name) for name in shaping})


def component_paths() -> dict[str, tuple[Path, ...]]:
    """Every component of this package but its methods, with its source files."""
    found = {name: tuple(sorted(file for glob in globs for file in _files(glob))) for name, globs in GROUPS.items()}
    grouped = {file for files in found.values() for file in files}
    for file in (file for glob in SEPARATE for file in _files(glob) if file not in grouped):
        found[f"{file.parent.name}.{file.stem}"] = (file,)
    return found


def _files(glob: str) -> list[Path]:
    return sorted(path for path in PACKAGE.glob(glob) if path.name not in NO_COMPONENTS)


@cache
def tree_hash(component: str) -> str:
    """SHA-256 of the normalized syntax tree of a component, as it is now."""
    modules = [_read(path) for path in component_paths()[component]]
    return digest(sorted(filter(None, (_normalized(one) for module in modules for one in module.tree.body))))


def _labeled(component: str, tree: str) -> str:
    record = read_record().get(component)
    if record is None:
        return tree
    return str(record.version) if record.tree == tree else f"{record.version}+{tree[:12]}"


# The record.


@dataclass(frozen=True)
class RecordedComponent:
    """A component as it was recorded: its version and the hash of its tree."""

    version: int
    tree: str


@cache
def read_record() -> dict[str, RecordedComponent]:
    """The recorded components."""
    table = tomllib.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    return {name: RecordedComponent(entry["version"], entry["tree"]) for name, entry in table.items()}


# Reading and normalizing source.


@dataclass
class _Module:
    """A parsed source file: what it defines at top level, and what it imports."""

    tree: ast.Module
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Local name -> module and name in it; "" for a module itself."""


@cache
def _read(path: Path) -> _Module:
    try:
        tree = parse_python(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"The source {path} cannot be read: {error}") from error
    module = _Module(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module.imports[alias.asname or alias.name] = (node.module or "", alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module.imports[alias.asname or alias.name.partition(".")[0]] = (alias.name, "")
    for statement in tree.body:
        for name in _defined(statement):
            module.definitions.setdefault(name, []).append(statement)
    return module


def _defined(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))


@cache
def class_hash(kind: type) -> str:
    """The hash of every definition that a class uses, in its own module and in this package's methods and attacks."""
    own = plugin_package(kind.__module__) is not None
    return _definitions_hash(_file_of(kind.__module__), kind.__name__ if own else "")


def file_fingerprint(path: Path) -> str:
    """The fingerprint of the methods that a file outside this package defines, without importing it.

    Raises:
        UsageError: The file cannot be read, or is not valid Python.
    """
    return _definitions_hash(path, "")


def recorded_method(name: str) -> str | None:
    """The fingerprint of a method of this package as it was recorded, without importing it; None if there is none."""
    record = read_record().get(f"methods.{name}")
    return None if record is None else str(record.version)


def registered_source(value: str) -> str | None:
    """The method of this package whose file gives a fingerprint when it is used as a file outside, or None.

    Such a copy has no decorator that registers it; names and descriptions in its card do not count.
    """
    return _copied_files().get(value)


@cache
def _copied_files() -> dict[str, str]:
    """Fingerprint of each file of a method as a copy outside this package -> the method."""
    files = (path for path in _files("methods/*.py") if not path.name.startswith("_"))
    return {
        digest(sorted(filter(None, map(_normalized, map(_unregistered, _statements(path, "")))))): name
        for path in files
        for name in [path.stem.replace("_", "-")]
    }


def _unregistered(statement: ast.stmt) -> ast.stmt:
    """A class without the decorator that registers it; any other statement as it is."""
    if not isinstance(statement, ast.ClassDef):
        return statement
    decorators = [
        item for item in statement.decorator_list if ast.unparse(item).partition("(")[0] != "methods.register"
    ]
    return ast.ClassDef(**{**dict(ast.iter_fields(statement)), "decorator_list": decorators})


def _definitions_hash(path: Path, name: str) -> str:
    """The hash of what a definition of a file uses, or the whole file if the name is ""."""
    return digest(sorted(filter(None, map(_normalized, _statements(path, name)))))


def _statements(path: Path, name: str) -> list[ast.stmt]:
    """The statements that a definition of a file uses, or the whole file if the name is ""."""
    root = _read(path)
    names = [name] if name else [name for statement in root.tree.body for name in _defined(statement)]
    todo = [(path, name) for name in names]
    statements = {} if name else {id(statement): statement for statement in root.tree.body}
    for statement in statements.values():
        todo += _uses(path, statement)
    done = set()
    while todo:
        place = todo.pop()
        if place in done:
            continue
        done.add(place)
        for statement in _read(place[0]).definitions.get(place[1], []):
            statements[id(statement)] = statement
            todo += _uses(place[0], statement)
    return list(statements.values())


def _uses(path: Path, statement: ast.stmt) -> Iterator[tuple[Path, str]]:
    """The definitions that a statement uses: file and name."""
    module = _read(path)
    for node in _code(statement):
        if isinstance(node, ast.Name) and node.id in module.definitions:
            yield path, node.id
        elif isinstance(node, ast.Name) and node.id in module.imports:
            source, name = module.imports[node.id]
            if name and source.startswith(tuple(PLUGINS.values())) and source not in CONTRACT:
                yield _path_of(source), name
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in module.imports:
            source, name = module.imports[node.value.id]
            target = f"{source}.{name}" if name else source
            if plugin_package(target) and target not in CONTRACT and _path_of(target).is_file():
                yield _path_of(target), node.attr


def _file_of(module: str) -> Path:
    """The source file of an imported module."""
    return Path(str(getattr(sys.modules[module], "__file__", "")))


def _path_of(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one that shape behavior."""
    yield node
    for _, value in _fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _code(child)


def _normalized(statement: ast.stmt) -> str:
    return "" if _is_inert(statement) else repr(_plain(statement))


def _plain(node: object) -> object:
    """A syntax tree as nested tuples, independent of the Python version and of what `_fields` omits."""
    if isinstance(node, ast.AST):
        return (type(node).__name__, *((name, _plain(value)) for name, value in _fields(node)))
    if isinstance(node, list):
        return tuple(_plain(child) for child in node)
    return node


def _fields(node: ast.AST) -> list[tuple[str, object]]:
    """The fields of a node that shape behavior."""
    result: list[tuple[str, object]] = []
    for name, value in ast.iter_fields(node):
        if name in _SILENT_FIELDS or value is None or value == []:
            continue
        if isinstance(node, ast.Raise) and name == "exc" and isinstance(value, ast.Call):
            value = value.func  # noqa: PLW2901 - which error is behavior, its words are not
        if isinstance(value, list):
            value = [child for child in value if not _is_inert(child)]  # noqa: PLW2901
            if not value:
                continue
        result.append((name, value))
    return result


def _is_inert(node: object) -> bool:
    """Docstrings, imports, `__all__`, blocks for type checkers, method cards, and keywords that only people read."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom() | ast.Pass():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "card")]) | ast.AnnAssign(target=ast.Name(id="card")):
            return True
        case ast.keyword(arg=str(name)):
            return name in PROSE
    return False
