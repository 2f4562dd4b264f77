"""Fixtures that all tests share. What a machine lacks is skipped with the reason; under CI=true that is a failure."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def skip(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"under CI nothing is skipped: {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the user's store."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FORGETBENCH_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """A network that a test makes without a seed is the same whichever tests ran before."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(2026)  # a seed that no test uses for something else


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and tables."""
    folder = os.environ.get("FORGETBENCH_DATA")
    if not folder or not Path(folder).is_dir():
        skip("FORGETBENCH_DATA names no folder of real data")
    return Path(str(folder)).resolve()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        skip("chromium is not installed")
    return str(path)
