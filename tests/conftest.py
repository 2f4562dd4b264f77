"""Fixtures that all tests share, and the tiers of tests.

What a machine lacks is skipped with the reason; with CI=true in the environment it is a failure.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from support import skip

from forgetbench import store

settings.register_profile("any-speed", deadline=None)
settings.load_profile("any-speed")

UNIT = {"cli", "datasets", "evidence", "metrics", "scoring", "tasks"}
"""Folders whose tests are the unit tier."""
NOT_UNIT = {"test_calibration.py", "test_probe.py", "test_score.py", "test_score_arrays.py"} | {
    "test_calls.py",
    "test_streams.py",
    "test_board_rules.py",
    "test_gates.py",
}
"""Files in these folders that score whole boards, run tasks or start processes, which takes seconds a test."""
SYSTEM_FIXTURES = {"bubblewrap", "chromium", "postgres_server"}
"""A test that uses one of these needs an apt package: it is a system test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use a browser, a database or a sandbox `system`, and the quick ones of some folders `unit`."""
    for item in items:
        if SYSTEM_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("system")
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        is_long = item.path.name in NOT_UNIT or item.get_closest_marker("slow") or item.get_closest_marker("system")
        if folder in UNIT and not is_long:
            item.add_marker("unit")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store for each test."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FORGETBENCH_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store looks again at what seems damaged, but without waiting."""
    monkeypatch.setattr(store, "LOOK_AGAIN", (0.0, 0.0, 0.0))
    monkeypatch.setattr(store, "WAIT_FOR_NAME", (0.0, 0.0, 0.0))


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Seed torch, so that a network made without a seed does not depend on the tests that ran before."""
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
def bubblewrap() -> None:
    """A sandbox that works: bubblewrap is installed, and the machine allows user namespaces."""
    from forgetbench.errors import UsageError
    from forgetbench.verification.sandbox import find_sandbox

    try:
        find_sandbox()
    except UsageError as error:
        skip(str(error))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of an installed Chromium or Chrome."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        skip("chromium is not installed")
    return str(path)
