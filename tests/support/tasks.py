"""A task of seconds, from the digits and a tiny perceptron, for whichever scenario a file of tests is about."""

from __future__ import annotations

from pathlib import Path

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


def write_task(
    folder: Path, scenario: str, options: str, *, seeds: int = 2, draws: int = 1, train: int = 60, epochs: int = 6
) -> Path:
    """The file of a task for a scenario with options (TOML), in a folder."""
    path = folder / "task.toml"
    numbers = {"seeds": seeds, "draws": draws, "train": train, "epochs": epochs}
    path.write_text(TOML.format(scenario=scenario, options=options, **numbers))
    return path
