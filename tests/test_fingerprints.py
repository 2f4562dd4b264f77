"""Fingerprints: they change with behavior and never with prose, formatting, names of files or the Python version."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from forgetbench import fingerprints
from forgetbench.errors import UsageError
from forgetbench.fingerprint_record import unrecorded, write_record
from forgetbench.fingerprints import component_paths, fingerprint, method_fingerprint
from forgetbench.methods import load_method_file, methods

METHOD = '''
"""A method."""

from dataclasses import dataclass

from forgetbench.methods import Method, param

RATE = 0.5


def step(value: float) -> float:
    """A step."""
    if value < 0:
        raise ValueError(f"{value} is negative")
    return value * RATE


@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    """Does something."""

    lr: float = param(0.1, gt=0, help="Learning rate.")

    def unlearn(self, model, request):
        total = step(self.lr) + step(1.0)  # twice
        return model if total else None
'''


def test_recorded_components_are_unchanged() -> None:
    changed = unrecorded()
    command, names = "python -m forgetbench.fingerprint_record", " ".join(changed)
    assert not changed, (
        f"The source of {', '.join(changed)} differs from the record. Either restore it; or, if results may differ, "
        f"increase the version: {command} --bump {names}; or, if you have shown equal bits, record it: "
        f"{command} --unchanged {names}"
    )


def of_file(folder: Path, text: str, name: str = "mine") -> str:
    path = folder / f"{name}.py"
    path.write_text(text)
    return method_fingerprint(load_method_file(f"{path}:Mine"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A step."""', '"""Another docstring."""'),
        ("  # twice", "  # a comment"),
        ("step(self.lr) + step(1.0)", "(\n            step(self.lr)\n            + step(1.0)\n        )"),
        ("value: float) -> float", "value)"),
        ('help="Learning rate."', 'help="The learning rate."'),
        ("is negative", "must not be negative"),
        ("from forgetbench.methods import Method, param", "from forgetbench.methods.base import Method, param"),
        ('"""Does something."""', '"""Does something.\n\n    At length.\n    """'),
    ],
)
def test_fingerprint_prose_changed_stays(tmp_path: Path, old: str, new: str) -> None:
    assert old in METHOD
    assert of_file(tmp_path, METHOD) == of_file(tmp_path, METHOD.replace(old, new), "renamed")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("value * RATE", "-value * RATE"),
        ("RATE = 0.5", "RATE = 0.25"),
        ("step(self.lr) + step(1.0)", "step(self.lr) - step(1.0)"),
        ("param(0.1", "param(0.2"),
        ("value < 0", "value <= 0"),
        ("raise ValueError(", "raise TypeError("),
    ],
)
def test_fingerprint_behavior_changed_differs(tmp_path: Path, old: str, new: str) -> None:
    assert old in METHOD
    assert of_file(tmp_path, METHOD) != of_file(tmp_path, METHOD.replace(old, new), "renamed")


def test_fingerprint_of_every_method_is_its_version_or_tree() -> None:
    prints = {name: method_fingerprint(methods.get(name)) for name in methods.names()}
    assert all(re.fullmatch(r"\d+(\+[0-9a-f]{12})?|[0-9a-f]{64}", one) for one in prints.values()), prints


def copy_package(folder: Path) -> Path:
    """A copy of the package's sources, importable from the folder that is returned."""
    package = folder / "forgetbench"
    for path in sorted(fingerprints.PACKAGE.rglob("*")):
        target = package / path.relative_to(fingerprints.PACKAGE)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
    for top in ("", "datasets", "methods", "leaderboard"):
        for path in sorted((fingerprints.PACKAGE / top).rglob("*")):
            if path.is_file() and path.suffix in {".py", ".toml", ".bib"}:
                target = package / top / path.relative_to(fingerprints.PACKAGE / top)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    return folder


def report(folder: Path, *words: str) -> list[str]:
    """The components that differ from the record in a copy of the package."""
    command = [sys.executable, "-m", "forgetbench.fingerprint_record", *words]
    environment = {"PYTHONPATH": str(folder)}
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert not answer.stderr, answer.stderr
    return [line.partition(":")[0] for line in answer.stdout.splitlines()]


def without_prose(text: str) -> str:
    """The same program, formatted anew, with other docstrings and without comments and annotations of variables."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body[0] = ast.Expr(ast.Constant("Rewritten."))
    return ast.unparse(ast.fix_missing_locations(tree))


def test_components_reformatted_package_stays(tmp_path: Path) -> None:
    folder = copy_package(tmp_path)
    assert report(folder, "--unchanged", "all") == []
    for path in folder.rglob("*.py"):
        path.write_text(without_prose(path.read_text()))
    assert report(folder) == []


def test_components_one_sign_in_a_method_names_that_method(tmp_path: Path) -> None:
    folder = copy_package(tmp_path)
    assert report(folder, "--unchanged", "all") == []
    path = folder / "forgetbench" / "methods" / "neggrad_plus.py"
    text = path.read_text()
    changed = text.replace("(1 - self.alpha)", "(1 + self.alpha)")
    assert changed != text
    path.write_text(changed)
    assert report(folder) == ["methods.neggrad-plus"]


def test_record_unknown_component_is_refused() -> None:
    with pytest.raises(UsageError, match="Unknown component 'nothing'"):
        write_record(unchanged=["nothing"])


def test_fingerprint_unrecorded_edit_adds_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"training": fingerprints.RecordedComponent(3, "a" * 64)}
    monkeypatch.setattr(fingerprints, "read_record", lambda: record)
    for tree, expected in (("a" * 64, "3"), ("f" * 64, f"3+{'f' * 12}")):
        monkeypatch.setattr(fingerprints, "tree_hash", lambda _, tree=tree: tree)
        assert fingerprint("training") == expected
    assert fingerprint("prediction") == "f" * 64


def test_components_every_metric_file_is_one() -> None:
    names = component_paths()
    assert {"training", "prediction", "scoring"} <= set(names)
    assert all(path.is_file() for paths in names.values() for path in paths)
    folder = fingerprints.PACKAGE / "metrics"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "_docs"}
    assert {name.removeprefix("metrics.") for name in names if name.startswith("metrics.")} == files


def test_tree_python_versions_agree() -> None:
    """The normalized tree has no field that another version of Python adds or leaves out."""
    generic = "def f[T](x: T) -> T: return x" if sys.version_info >= (3, 12) else "def f(x): return x"
    tree = ast.parse(generic)
    plain = ast.parse("def f(x): return x")
    assert fingerprints._normalized(tree.body[0]) == fingerprints._normalized(plain.body[0])
