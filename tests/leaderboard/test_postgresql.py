"""The leaderboard's tests once more, on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import skip
from support.databases import POSTGRESQL_PROGRAMS


@pytest.mark.system
def test_leaderboard_tests_pass_on_postgresql():
    if os.environ.get("FORGETBENCH_TEST_DATABASE"):
        pytest.skip("runs only in the outer test run")
    if POSTGRESQL_PROGRAMS is None:
        skip("PostgreSQL is not installed")
    folder = Path(__file__).parent
    environment = {**os.environ, "FORGETBENCH_TEST_DATABASE": "postgresql"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not system"]
    done = subprocess.run(
        [*command, str(folder)], env=environment, capture_output=True, text=True, check=False, cwd=folder.parents[1]
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
