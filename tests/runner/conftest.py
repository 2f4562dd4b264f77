"""A task of seconds, from the digits and a tiny perceptron, for whichever scenario a file of tests is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import tasks

from forgetbench.tasks.task import Task, read_task


@pytest.fixture(scope="session")
def write_task(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Scenario and its options (TOML) -> the task's file."""

    def write(scenario: str, options: str, **numbers: Any) -> Path:
        return tasks.write_task(tmp_path_factory.mktemp("task"), scenario, options, **numbers)

    return write


@pytest.fixture(scope="session")
def make_task(write_task: Callable[..., Path]) -> Callable[..., Task]:
    """Scenario and its options (TOML) -> the task."""
    return lambda *words, **numbers: read_task(str(write_task(*words, **numbers)))
