"""The house itself: floors, packaging, and an answer to --help that does not wait for torch."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"benchmark": "forgetbench", "datasets": "forgetbench.datasets", "methods": "forgetbench.methods"}
FOLDERS["leaderboard"] = "forgetbench.leaderboard"
FLOORS = [
    {"errors", "latex", "registry", "store", "answers", "metrics", "statistics", "significance"}
    | {"evidence", "packs", "environment", "elsewhere"},
    {"datasets"},
    {"checkpoints", "compute", "examples", "networks", "networks_fast", "networks_timm", "recipe", "training"},
    {"methods"},
    {"tasks", "bench", "contestants", "artifacts", "pipeline", "unlearning", "measuring", "executors", "gathering"},
    {"scoring", "judging", "results", "references", "published", "reports", "figures", "streams"},
    {"leaderboard"},
    {
        "options",
        "crew",
        "suite",
        "afar",
        "observing",
        "studies",
        "tuning",
        "reproducing",
        "demo",
        "verifying",
        "submitting",
        "auditing",
        "cli",
        "__init__",
        "__main__",
    },
]
TORCHLESS = {"answers", "metrics", "statistics", "evidence", "packs", "store", "leaderboard"} | FLOORS[5]


def modules() -> list[tuple[str, Path]]:
    return [
        (f"{package}.{'.'.join(path.relative_to(ROOT / folder).with_suffix('').parts)}", path)
        for folder, package in FOLDERS.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> set[str]:
    """Every module that a file imports when it runs, within functions too, but not for type checking alone."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module} | {f"{node.module}.{alias.name}" for alias in node.names})
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value) if "." in str(value) else "")
def test_file_imports_from_its_floor_or_below(module: str, path: Path) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    own = room(module)
    assert own in floor, f"{own} stands on no floor: name it in FLOORS"
    for target in imports(path):
        if target.startswith("forgetbench.") and room(target) in floor:
            assert floor[room(target)] <= floor[own], f"{module} imports {target} from a higher floor"
        if own in TORCHLESS:
            assert target.split(".")[0] not in {"torch", "timm", "torchvision"}, f"{module} imports {target}"


def test_help_imports_neither_torch_nor_timm() -> None:
    code = (
        "import sys\nfrom forgetbench.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules), 'imported'"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert answer.returncode == 0, answer.stderr
    assert "run" in answer.stdout


def test_scoring_and_serving_work_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'torch', 'timm', 'torchvision'}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import numpy as np
from forgetbench.cli import main
random = np.random.default_rng(0)
rows = {'forget': 20, 'retain': 30, 'test': 40}
for name, models in (('unlearned', 3), ('oracle', 6)):
    np.savez(name + '.npz', **{subset: random.normal(size=(models, n, 4)) for subset, n in rows.items()})
np.savez('labels.npz', **{subset: np.arange(n) % 4 for subset, n in rows.items()})
from forgetbench.leaderboard.web.app import create_app
create_app()
main(['score', '--logits', 'unlearned.npz', '--oracle', 'oracle.npz', '--labels', 'labels.npz'])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "lira.forget" in answer.stdout


@pytest.mark.slow
def test_wheel_holds_every_file(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in {".py", ".toml", ".json", ".html", ".css", ".js", ".mako", ".typed"}:
                assert f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder)}" in names


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert version in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_hold_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or ("==" in line and "/" not in line and "@" not in line)
