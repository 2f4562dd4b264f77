"""Several runs of a method on each original: other seeds, the same originals, kept apart from the board's run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from forgetbench.api.board import load_results
from forgetbench.api.evaluation import evaluate
from forgetbench.errors import UsageError
from forgetbench.evidence.run import read_run
from forgetbench.runner.config import RunConfig
from forgetbench.tasks.task import Task


def test_repeats_split_the_variance(make_task: Callable[..., Task], tmp_path: Path) -> None:
    task = make_task("class", "classes = [3]", train=100, epochs=2)
    config = RunConfig(home=tmp_path, device="cpu", engine="local")
    once = evaluate(["finetune:epochs=1"], task, config=config, progress=False)
    [row] = [one for one in once if one.run]
    assert row.scorecard.variance == {}
    assert any("training only" in note for note in once.tables[0].notes)
    again = evaluate(
        ["finetune:epochs=1"], task, config=RunConfig(home=tmp_path, device="cpu", engine="local", repeats=2),
        progress=False,
    )  # fmt: skip
    [other] = [one for one in again if one.run]
    assert other.scorecard.model_copy(update={"variance": {}}) == row.scorecard  # the board's row is the first run
    split = other.scorecard.variance["accuracy.test"]
    assert split.repeats == 2
    [place] = tmp_path.glob("repeats/1/runs/**/manifest.json")
    first, second = read_run(row.folder), read_run(place.parent)
    assert [one.original for one in first.manifest.models] == [one.original for one in second.manifest.models]
    assert [one.arrays for one in first.manifest.models] != [one.arrays for one in second.manifest.models]
    [loaded] = load_results(home=tmp_path)
    assert next(one for one in loaded if one.run).scorecard.variance == other.scorecard.variance


def test_repeats_below_one_are_refused() -> None:
    with pytest.raises(UsageError, match="runs on each original is 0"):
        RunConfig(repeats=0)
