"""What may be imported without torch, and what the files about the package say."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_python(code: str, folder: Path) -> str:
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import forgetbench", {"torch", "timm", "torchvision", "pandas", "altair", "sklearn", "scipy", "fastapi"}),
        ("from forgetbench.cli import make_app; make_app()", {"torch", "timm", "torchvision", "pandas", "altair"}),
        ("import forgetbench.leaderboard.web.app", {"torch", "timm", "torchvision"}),
    ],
    ids=["package", "cli", "server"],
)
def test_import_loads_no_heavy_library(statement: str, absent: set[str], tmp_path: Path) -> None:
    loaded = run_python(f"import sys\n{statement}\nprint(*sys.modules)", tmp_path).split()
    assert not absent & set(loaded)


def test_scoring_and_serving_work_without_torch(tmp_path: Path) -> None:
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
main(['score', '--unlearned', 'unlearned.npz', '--oracle', 'oracle.npz', '--labels', 'labels.npz'])
"""
    assert "lira.forget" in run_python(code, tmp_path)


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert version in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_hold_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or ("==" in line and "/" not in line and "@" not in line)
