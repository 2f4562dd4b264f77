"""A task of seconds, from the digits and a tiny perceptron, for whichever scenario a file of tests is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from forgetbench.tasks.task import Task, read_task

TOML = """
name = "test/mlp/{scenario}"
title = "A task of seconds"
seeds = {seeds}
draws = {draws}
[image_set]
name = "digits"
options = {{ train = {train}, validation = 50 }}
[network]
name = "mlp"
options = {{ hidden = [16] }}
[recipe]
epochs = {epochs}
batch_size = 20
lr = 0.05
[scenario]
name = "{scenario}"
options = {{ {options} }}
"""


@pytest.fixture(scope="session")
def write_task(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Scenario and its options (TOML) -> the task's file."""

    def write(scenario: str, options: str, *, seeds: int = 2, draws: int = 1, train: int = 60, epochs: int = 6) -> Path:
        path: Path = tmp_path_factory.mktemp("task") / "task.toml"
        numbers = {"seeds": seeds, "draws": draws, "train": train, "epochs": epochs}
        path.write_text(TOML.format(scenario=scenario, options=options, **numbers))
        return path

    return write


@pytest.fixture(scope="session")
def make_task(write_task: Callable[..., Path]) -> Callable[..., Task]:
    """Scenario and its options (TOML) -> the task."""
    return lambda *words, **numbers: read_task(str(write_task(*words, **numbers)))
