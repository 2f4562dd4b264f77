"""Reference results of a task of a second: made, made again with the same bits, and missed where something changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel

from forgetbench.cli import main
from forgetbench.errors import UsageError
from forgetbench.methods import methods
from forgetbench.methods.base import param
from forgetbench.reproduction.reference_board import compare, row_of, write_board
from forgetbench.reproduction.reference_file import ReferenceBoard, ReferenceRow, read_board, reference_tasks
from forgetbench.reproduction.reproduce import TASKS, included, record_reference, reproduce
from forgetbench.runner.config import RunConfig
from forgetbench.scoring.scorecards import DistanceDifference, Effect, MetricBand, Recovery, Scorecard, Value
from forgetbench.scoring.vocabulary import Verdict
from forgetbench.tasks.task import Task, read_task

TOML = """
name = "test/mlp/mislabelled"
title = "A task of seconds"
image_set = { name = "digits", options = { train = 60, validation = 100 } }
network = { name = "mlp", options = { hidden = [8] } }
recipe = { epochs = 3, batch_size = 20, lr = 0.05 }
scenario = { name = "mislabelled", options = { rate = 0.3, known = 0.5 } }
"""
SEEDS = 4


@pytest.fixture
def task(tmp_path: Path) -> Task:
    path = tmp_path / "task.toml"
    path.write_text(TOML)
    return read_task(str(path))


@pytest.fixture
def made(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ReferenceBoard, RunConfig]:
    """Reference results, and options of another home."""
    options = RunConfig(home=tmp_path / "home", device="cpu", engine="local")
    names = ["finetune", "random-label", "gs-lora"]
    record_reference(task, options, methods=names, seeds=SEEDS, trials=2, folder=tmp_path / "reference")
    monkeypatch.setattr("forgetbench.reproduction.reproduce.read_task", lambda _: task)
    board = read_board(task.name, tmp_path / "reference")
    return board, RunConfig(home=tmp_path / "elsewhere", device="cpu", engine="local")


def test_record_of_defaults_alone_ranks_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "learned.toml"
    path.write_text(TOML.replace("hidden = [8]", "hidden = [64]").replace("epochs = 3", "epochs = 30"))
    task = read_task(str(path))
    options = RunConfig(home=tmp_path / "home", device="cpu", engine="local")
    names = ["finetune:epochs=2", "random-label", "ssd"]
    record_reference(task, options, methods=names, seeds=6, trials=1, folder=tmp_path)
    board = read_board(task.name, tmp_path)
    options_of_the_record = "--method finetune:epochs=2 --method random-label --method ssd --seeds 6 --trials 1"
    assert board.command == f"forgetbench reproduce {task.name} --record {options_of_the_record}"
    assert not any(row.tried for row in board.rows)
    placed = {row.label for row in board.rows if row.rank is not None}
    assert placed == {row.label for row in board.rows[2:] if row.status == "ok" and row.distance is not None}
    assert placed
    monkeypatch.setattr("forgetbench.reproduction.reproduce.read_task", lambda _: task)
    assert reproduce(board, options).exceeding == ()


def test_reproduce_equal_bits_until_a_rate_changes(
    made: tuple[ReferenceBoard, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    board, elsewhere = made
    labels = [row.label for row in board.rows]
    assert labels[:2] == ["Retrain", "No unlearning"]
    assert {"finetune", "random-label", "gs-lora"} <= set(labels)
    tuned = [row for row in board.rows if row.trials == 2]
    assert all(len(row.tried) == 2 and row.selector == "oracle-free" for row in tuned)
    again = reproduce(board, elsewhere)
    assert again.exceeding == ()
    assert all(difference.z == 0 for difference in again.differences)
    assert set(again.same_bits) == set(labels[2:]) - {"gs-lora"}
    assert again.same_platform

    @dataclass(frozen=True, kw_only=True)
    class Changed(methods.get("finetune")):  # type: ignore[misc]
        card = methods.get("finetune").card
        lr: float = param(2.0, gt=0)

    monkeypatch.setitem(methods._targets, "finetune", Changed)
    changed = reproduce(board, elsewhere, rows=["finetune", "random-label"])
    assert changed.changed == {"finetune": {"lr": ("1x", 2.0)}}
    assert {difference.row for difference in changed.exceeding} == {"finetune"}
    assert "gap.forget" in {difference.metric for difference in changed.exceeding}
    with pytest.raises(UsageError, match=r"no reference row scrub.*finetune"):
        reproduce(board, elsewhere, rows=["scrub"])


def test_reproduce_difference_exits_with_1_and_is_named(
    made: tuple[ReferenceBoard, RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    board, elsewhere = made
    monkeypatch.setenv("FORGETBENCH_HOME", str(elsewhere.home))
    words = ["reproduce", board.task, "--results", str(tmp_path / "reference"), "--method", "finetune"]
    words += ["--executor", "local", "--device", "cpu"]
    assert call(*words) == 0
    assert "reproduced" in capsys.readouterr().out
    row = next(row for row in board.rows if row.label == "finetune")
    wrong = row.model_copy(update={"metrics": {**row.metrics, "gap.test": (0.9, 0.89, 0.91, 99.0)}})
    wrong = wrong.model_copy(update={"pseudo": {**row.pseudo, "gap.test": (0.9, 0.91, 0.89, 0.9)}})
    rows = tuple(wrong if one.label == "finetune" else one for one in board.rows)
    write_board(board.model_copy(update={"rows": rows}), tmp_path / "reference")
    assert call(*words) == 1
    assert "exceeds its tolerance: finetune: gap.test was 0.9" in capsys.readouterr().out
    assert call(*words, "--json") == 1
    [said] = json.loads(capsys.readouterr().out)
    assert said["reproduced"] is False
    other = board.model_copy(update={"task_key": "0" * 64})
    write_board(other, tmp_path / "reference")
    assert call(*words) == 2
    assert "differs from" in capsys.readouterr().err


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return int(left.value.code or 0)


WAVE = np.array([1, -1, 2, -2, 0.5, -0.5, 1, -1, 3, -3]) / 100


def card(value: float, noise: float = 0.0) -> Scorecard:
    """A board of one metric, whose pseudo-values differ from the record's by a known wave."""
    band = MetricBand(mean=0.0, low=-0.04, high=0.04, sd=0.02, floor=0.005)
    pseudo = tuple((value + WAVE[::-1] * 2 + noise * WAVE).tolist())
    metric = Value(value=value, low=value - 0.03, high=value + 0.03, pseudo_values=pseudo, band=band, z=value / 0.02)
    return Scorecard(name="one", track="erase", seeds=10, draws=1, ranking=("gap.test",), metrics={"gap.test": metric})


def record(value: float, *, decides: bool = True) -> ReferenceRow:
    pseudo = {"gap.test": tuple((value + WAVE[::-1] * 2).tolist())} if decides else {}
    return ReferenceRow(label="one", metrics={"gap.test": (value, value - 0.03, value + 0.03, None)}, pseudo=pseudo)


def test_compare_z_is_paired_with_a_floor() -> None:
    error = 3 * WAVE.std(ddof=1) / 10**0.5
    paired = ttest_rel(card(0.12, 3).metrics["gap.test"].pseudo_values, record(0.1).pseudo["gap.test"])
    [found] = compare(record(0.1), card(0.12, 3), comparisons=1, changed=False)
    assert found.z == pytest.approx(0.02 / error, rel=1e-5)
    assert found.z == pytest.approx(paired.statistic, rel=1e-5)
    assert not found.exceeds_tolerance
    # among very many comparisons the same difference is nothing to wonder at
    assert compare(record(0.1), card(0.16, 3), comparisons=1, changed=False)[0].exceeds_tolerance
    assert not compare(record(0.1), card(0.16, 3), comparisons=100, changed=False)[0].exceeds_tolerance
    [small] = compare(record(0.1), card(0.104), comparisons=1, changed=False)
    assert small.z == pytest.approx(0.8)
    assert not small.exceeds_tolerance


def test_compare_informative_metric_decides_nothing() -> None:
    error = 0.03 / student.ppf(0.975, 9)
    [found] = compare(record(0.1, decides=False), card(0.9), comparisons=1, changed=False)
    assert found.z == pytest.approx(0.8 / (error * 2**0.5), rel=1e-5)
    assert not found.exceeds_tolerance


def test_compare_changed_recipe_tolerates_no_difference() -> None:
    assert compare(record(0.1), card(0.1001), comparisons=1, changed=True)[0].exceeds_tolerance
    assert not compare(record(0.1), card(0.1), comparisons=1, changed=True)[0].exceeds_tolerance
    gone = card(0.1).model_copy(update={"metrics": {}})
    assert compare(record(0.1), gone, comparisons=1, changed=False)[0].exceeds_tolerance
    failed = card(0.1).model_copy(update={"status": "failed"})
    assert [one.metric for one in compare(record(0.1), failed, comparisons=1, changed=False)] == ["status"]


def test_record_has_what_protocol_2_added(made: tuple[ReferenceBoard, RunConfig]) -> None:
    board, _ = made
    assert (board.protocol, board.lacks) == (2, "")
    assert board.classes == tuple("0123456789")
    retrain, untouched = board.rows[:2]
    assert [row.forgotten and row.forgotten[0] for row in (retrain, untouched)] in ([1.0, 0.0], [None, None])
    assert retrain.harm is not None
    assert retrain.harm[0] == 0.0
    for row in board.rows:
        if row.status == "ok":
            assert row.verdict is None  # four seeds do not rank
            assert row.recalibration is not None
            assert row.class_accuracy["test"].keys() == set(range(10))
            shares = row.class_accuracy["test"].values()
            assert min(shares) <= (row.metrics["accuracy.test"][0] or 0.0) <= max(shares)


def test_reference_row_keeps_verdict_and_effects() -> None:
    effects = {
        name: Effect(value=value, low=value - 0.1, high=value + 0.1)
        for name, value in (("forgotten", 0.8), ("harm", 0.02))
    }
    card = Scorecard(
        name="x",
        track="match-oracle",
        seeds=6,
        draws=1,
        verdict=Verdict.AT_A_PRICE,
        flags=("harmed",),
        delta_vs_no_unlearning=DistanceDifference(value=-3.0, low=-4.0, high=-2.0, p=1 / 32),
        class_accuracy={"test": {0: 0.9, 7: 1 / 3}},
        recalibration=Recovery(recoverable=True, p=1 / 32, recovered=effects["forgotten"], reason=""),
        **effects,
    )
    row = ReferenceRow.model_validate_json(row_of("x", card, None).model_dump_json(exclude_defaults=True))
    assert row.verdict == "forgets at a price"
    assert (row.forgotten, row.harm) == ((0.8, 0.7, 0.9, None), (0.02, -0.08, 0.12, None))
    assert row.p_vs_no_unlearning == 0.03125
    assert row.class_accuracy == {"test": {0: 0.9, 7: 0.333333}}
    assert row.recalibration is not None
    assert (row.recalibration.recoverable, row.recalibration.recovered) == (True, (0.8, 0.7, 0.9, None))


def test_reference_file_of_protocol_1_says_what_it_lacks(
    made: tuple[ReferenceBoard, RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    board, elsewhere = made
    monkeypatch.setenv("FORGETBENCH_HOME", str(elsewhere.home))
    old = board.model_copy(update={"protocol": 1, "rows": tuple(_as_protocol_1(row) for row in board.rows)})
    write_board(old, tmp_path / "old")
    read = read_board(board.task, tmp_path / "old")
    assert read.rows[2].verdict is None
    assert read.lacks.startswith("recorded by protocol 1: it has no verdicts, forgotten, harm")
    words = ["reproduce", board.task, "--results", str(tmp_path / "old"), "--method", "finetune"]
    assert call(*words, "--executor", "local", "--device", "cpu") == 0
    assert read.lacks.split(",", maxsplit=1)[0] in " ".join(capsys.readouterr().out.split())


def _as_protocol_1(row: ReferenceRow) -> ReferenceRow:
    names = ("p_vs_no_unlearning", "verdict", "forgotten", "forgotten_by", "harm", "gate", "recalibration")
    fields = ReferenceRow.model_fields
    blank = {name: fields[name].default for name in (*names, "class_accuracy")}
    return row.model_copy(update=blank)


def test_reference_boards_that_need_files_are_named_to_run() -> None:
    assert set(TASKS) - set(included(TASKS)) == {
        "celeba/cnn/person",
        "cifar10-jpeg/fast/class-small",
        "cifar10-jpeg/fast/random-10-small",
        "mufac/cnn/clean",
        "mufac/cnn/legacy",
        "mufac/cnn/person",
        "orl/cnn/identity",
    }


def test_reference_shipped_boards_match_the_catalog() -> None:
    contestants = {
        name for name in methods.names() if not (methods.get(name).card.sentinel or methods.get(name).card.reference)
    }
    for name in reference_tasks():
        board = read_board(name)
        assert board.task == name
        assert read_task(name).key == board.task_key, f"forgetbench reproduce {name} --record"
        assert {row.label.partition(":")[0] for row in board.rows[2:]} <= contestants
        assert board.seeds == TASKS[name].seeds
