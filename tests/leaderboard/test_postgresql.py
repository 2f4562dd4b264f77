"""The same tests once more, on a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILES = (
    "access",
    "client",
    "crash",
    "database",
    "moderation",
    "operator",
    "pages",
    "races",
    "reading",
    "states",
    "submissions",
    "worker",
)


@pytest.mark.slow
def test_the_same_tests_pass_on_postgresql():
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or os.environ.get("FORGETBENCH_TEST_DATABASE"):
        if os.environ.get("CI") == "true" and not os.environ.get("FORGETBENCH_TEST_DATABASE"):
            pytest.fail("under CI nothing is skipped: PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed")
    folder = Path(__file__).parent
    pytest_program = shutil.which("pytest", path=str(Path(sys.executable).parent)) or "pytest"
    environment = {**os.environ, "FORGETBENCH_TEST_DATABASE": "postgresql"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    words = [pytest_program, "-q", "-p", "no:cacheprovider", *(str(folder / f"test_{name}.py") for name in FILES)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, cwd=folder.parents[1])
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
