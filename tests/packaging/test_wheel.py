"""The wheel holds every package, whether it is built from a Linux, a Windows or an sdist checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "benchmark/forgetbench": "forgetbench",
    "datasets": "forgetbench/datasets",
    "leaderboard": "forgetbench/leaderboard",
    "methods": "forgetbench/methods",
}
IMPORT_ALL = """
import importlib, pathlib, pkgutil, sys
import forgetbench
assert forgetbench.__path__ == [sys.argv[1]], forgetbench.__path__
for module in pkgutil.walk_packages(forgetbench.__path__, "forgetbench."):
    if ".migrations" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def run(*words: str | Path, cwd: Path) -> None:
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"


def build(kind: str, checkout: Path, target: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target, cwd=checkout)
    [built] = target.iterdir()
    return built


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which symbolic links are text files, as on Windows."""
    folder = tmp_path_factory.mktemp("clone") / "forgetbench"
    run("git", "-c", "core.symlinks=false", "clone", "--quiet", "--no-hardlinks", ROOT, folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", checkout, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, int]:
    return {entry.filename: entry.CRC for entry in zipfile.ZipFile(wheel).infolist()}


def test_clone_without_symlinks_has_text_files(checkout: Path) -> None:
    assert (checkout / "benchmark/forgetbench/datasets").is_file()


def test_wheel_holds_every_committed_file(checkout: Path, wheel: Path) -> None:
    committed = subprocess.run(
        ["git", "ls-files", "-z", *FOLDERS], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout
    expected = set()
    for path in filter(None, committed.split("\0")):
        folder = next(name for name in FOLDERS if path.startswith(f"{name}/"))
        expected.add(path.replace(folder, FOLDERS[folder], 1))
    expected -= {f"forgetbench/{name}" for name in ("datasets", "leaderboard", "methods")}  # the links
    packed = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert packed == expected


def test_wheel_imports_every_module(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, str(tmp_path / "forgetbench")]
    done = subprocess.run(words, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sdist_builds_the_same_wheel(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", checkout, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    [folder] = (tmp_path / "source").iterdir()
    assert contents(build("wheel", folder, tmp_path / "wheel")) == contents(wheel)


@pytest.mark.system
def test_core_install_scores_logits_without_torch(tmp_path: Path) -> None:
    """`pip install .` in a clean environment, then the documented script for saved logits."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", ROOT, cwd=tmp_path)
    missing = "import importlib.util as u; assert not u.find_spec('torch'); assert not u.find_spec('fastapi')"
    run(python, "-c", missing, cwd=tmp_path)
    run(python, ROOT / "examples/score_saved_logits.py", cwd=tmp_path)
    run(python.with_name("forgetbench"), "list", "tasks", cwd=tmp_path)
