"""What code a process runs: workers on other machines must run the same, or they make other artifacts."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm")
"""Packages whose versions shape results."""


@cache
def code_identity() -> dict[str, str]:
    """The package's version and a hash of its source files, and the versions of Python, torch, torchvision and timm."""
    import forgetbench

    root = Path(forgetbench.__file__).parent
    source = hashlib.sha256()
    for path in sorted(path for path in _python_files(root) if "leaderboard" not in path.relative_to(root).parts):
        source.update(f"{path.relative_to(root)}\0".encode())
        source.update(path.read_bytes())
    found = {
        "forgetbench": f"{forgetbench.__version__} (code {source.hexdigest()[:12]})",
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def difference(driver: Mapping[str, str], worker: Mapping[str, str], where: str) -> str:
    """What a worker's code has other than the driver's, in one sentence; "" if nothing."""
    names = [name for name in driver if driver[name] != worker.get(name)]
    if not names:
        return ""
    parts = ", ".join(f"{name} {worker.get(name, 'missing')} instead of {driver[name]}" for name in names)
    return f"The worker on {where} has {parts}. Install the same versions on all machines and run the command again."


def _python_files(folder: Path) -> list[Path]:
    """Every Python file below a folder, also behind links to folders, as in a checkout."""
    files: list[Path] = []
    for path in folder.iterdir():
        if path.is_dir():
            files += _python_files(path)
        elif path.suffix == ".py":
            files.append(path)
    return files
