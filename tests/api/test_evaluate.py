"""`evaluate` and the board it returns, on a task of seconds."""

from __future__ import annotations

import linecache
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import forgetbench as fb
from forgetbench.api._source import collect_source
from forgetbench.api.methods import method_text
from forgetbench.evidence.run import read_run

TASK = """
name = "test/mlp/random"
title = "Seconds"
seeds = 2
image_set = { name = "digits", options = { train = 60, validation = 50 } }
network = { name = "mlp", options = { hidden = [8] } }
recipe = { epochs = 2 }
scenario = { name = "random", options = { fraction = 0.2 } }
"""
CELL = '''
import copy
from dataclasses import dataclass

import torch.nn.functional as F
import forgetbench as fb

SCALE = 0.5
network = object()  # a global with the name of a local variable of the method


def shrink(weight):
    return weight * SCALE


@dataclass(frozen=True, kw_only=True)
class Shrink(fb.Method):
    """Shrinks every weight."""

    power: int = fb.param(1, ge=1)

    def unlearn(self, model, request):
        network = copy.deepcopy(model)
        for parameter in network.parameters():
            for _ in range(self.power):
                parameter.data = shrink(F.dropout(parameter.data, 0.0))
        return network.eval()
'''


@pytest.fixture(scope="module")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("task") / "task.toml"
    path.write_text(TASK)
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> fb.RunConfig:
    return fb.RunConfig(device="cpu", engine="local", home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def board(task_file: Path, config: fb.RunConfig) -> fb.BoardResult:
    """A board with ranks."""
    methods = ["finetune:epochs=1", fb.get_method("gradient-ascent", epochs=1)]
    return fb.evaluate(methods, task_file, seeds=6, config=config, progress=False)


def run_cell(source: str, name: str = "<cell>") -> dict[str, object]:
    """Execute source as a notebook does: in ``__main__``, with its lines known to linecache."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), namespace)  # noqa: S102 - the tests' own source
    return namespace


@pytest.fixture
def shrink() -> Iterator[type[fb.Method]]:
    yield run_cell(CELL)["Shrink"]  # type: ignore[misc]
    linecache.cache.pop("<cell>")


def test_evaluate_accepts_names_and_instances(board: fb.BoardResult) -> None:
    assert set(board.labels) == {"Retrain", "No unlearning", "finetune:epochs=1", "gradient-ascent:epochs=1"}
    row = board["finetune:epochs=1"]
    assert (row.task, row.method, row.parameters["epochs"]) == ("test/mlp/random", "finetune", 1)
    assert row.folder is not None
    assert row.folder in board.runs
    assert board["Retrain"].folder is None
    assert board["Retrain"].method == "retrain"


def test_board_rows_carry_rank_distance_and_metrics(board: fb.BoardResult) -> None:
    row = board["finetune:epochs=1"]
    assert row.distance is not None
    assert row.rank is not None or row.unranked_reason
    assert board.ranks == {each.label: each.rank for each in board if each.rank}
    assert row["lira.forget"] is row.scorecard.metrics["lira.forget"]
    assert board.bands["gap.forget"].low <= board.bands["gap.forget"].high
    assert set(board.ranking_metrics) <= set(board.bands)
    with pytest.raises(fb.UsageError, match=r"Did you mean .lira\.forget."):
        row["lira.forgt"]
    with pytest.raises(fb.UsageError, match="Did you mean 'finetune:epochs=1'"):
        board["finetune:epochs=2"]


def test_to_frame_has_value_interval_and_z_of_every_row(board: fb.BoardResult) -> None:
    frame = board.to_frame()
    assert list(frame.columns) == ["value", "low", "high", "z"]
    assert frame.index.names == ["method", "metric"]
    for row in board:
        lines = frame.loc[row.label]
        assert lines.loc["distance", "value"] == pytest.approx(row.distance.value)  # type: ignore[union-attr]
        for name, value in row.metrics.items():
            line = lines.loc[name]
            expected = [value.value, value.low, value.high, value.z]
            assert [None if np.isnan(number) else number for number in line] == expected


def test_board_displays_as_html_text_and_latex(board: fb.BoardResult) -> None:
    html = board._repr_html_()
    assert html.count("<table>") == 1
    assert "finetune:epochs=1" in html
    assert "Retrain" in str(board)
    assert repr(board) == "BoardResult(test/mlp/random, 2 runs, 6 seeds, 1 draws)"
    assert r"\toprule" in board.to_latex()
    assert "<table" in board["Retrain"].scorecard._repr_html_()
    assert repr(board["Retrain"]).startswith("RunResult('Retrain' on test/mlp/random, not ranked")


@pytest.mark.parametrize("kind", ["ranks", "pareto", "utility", "seeds", "confidence"])
def test_plot_gives_an_altair_chart(board: fb.BoardResult, kind: str) -> None:
    assert "$schema" in board.plot(kind).to_dict()


def test_plot_wrong_kind_is_refused(board: fb.BoardResult) -> None:
    with pytest.raises(fb.UsageError, match="Did you mean 'ranks'"):
        board.plot("rank")
    with pytest.raises(fb.UsageError, match="no values for the figure 'steps'"):
        board.plot("steps")


def test_added_boards_are_ranked_as_one(board: fb.BoardResult, task_file: Path, config: fb.RunConfig) -> None:
    first, second = (
        fb.evaluate(methods, task_file, seeds=6, config=config, progress=False)
        for methods in ("finetune:epochs=1", ["gradient-ascent:epochs=1"])
    )
    both = first + second
    assert both.labels == board.labels
    assert both.ranks == board.ranks
    assert both.to_frame().equals(board.to_frame())
    assert (both + first).labels == board.labels


def test_boards_of_other_seeds_cannot_be_added(board: fb.BoardResult, task_file: Path, config: fb.RunConfig) -> None:
    other = fb.evaluate("finetune", task_file, seeds=2, config=config, progress=False)
    with pytest.raises(fb.UsageError, match="same reference models"):
        board + other


def test_load_results_finds_earlier_runs(board: fb.BoardResult, config: fb.RunConfig) -> None:
    found = fb.load_results("test/*", methods=["finetune:epochs=1", "gradient*"], home=config.home)
    [loaded] = [each for each in found if "6 seeds" in repr(each)]
    assert loaded.ranks == board.ranks
    assert fb.load_results("faces/*", home=config.home) == []


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("sdd", "Did you mean 'ssd'"),
        (["ssd", "ssd"], "ssd"),
        (["finetune", "finetune:epochs=99", "finetune"], "finetune"),
        (int, "int is not a method"),
    ],
)
def test_evaluate_wrong_method_is_refused_before_training(
    methods: object, message: str, task_file: Path, tmp_path: Path
) -> None:
    config = fb.RunConfig(device="cpu", engine="local", home=tmp_path / "home")
    with pytest.raises(fb.UsageError, match=message):
        fb.evaluate(methods, task_file, config=config, progress=False)  # type: ignore[arg-type]
    assert not (tmp_path / "home").exists()


def test_get_method_wrong_parameter_is_refused() -> None:
    with pytest.raises(fb.UsageError, match="Did you mean 'epochs'"):
        fb.get_method("finetune", epoch=3)


def test_skip_oracles_gives_runs_without_scores(task_file: Path, config: fb.RunConfig, board: fb.BoardResult) -> None:
    evidence = fb.RunConfig(device="cpu", engine="local", home=config.home, skip_oracles=True)
    found = fb.evaluate("finetune:epochs=1", task_file, seeds=6, config=evidence, progress=False)
    assert not found.is_scored
    assert found.runs == [board["finetune:epochs=1"].folder]
    assert "not scored" in found._repr_html_()
    with pytest.raises(fb.UsageError, match="without oracles"):
        found.to_frame()


class Interrupt:
    """Progress callback that presses Ctrl-C after some jobs, and counts those that were computed."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.computed = after, 0

    def begin(self, task: str, jobs: int) -> None:
        pass

    def done(self, title: str, *, from_cache: bool) -> None:  # noqa: ARG002
        self.computed += not from_cache
        if self.computed == self.after:
            raise KeyboardInterrupt

    def end(self, task: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def test_interrupted_evaluate_resumes(task_file: Path, tmp_path: Path) -> None:
    config = fb.RunConfig(device="cpu", engine="local", home=tmp_path / "interrupted")
    with pytest.raises(KeyboardInterrupt):
        fb.evaluate("finetune", task_file, config=config, progress=Interrupt(after=3))
    rest, whole = Interrupt(), Interrupt()
    resumed = fb.evaluate("finetune", task_file, config=config, progress=rest)
    other = fb.RunConfig(device="cpu", engine="local", home=tmp_path / "whole")
    expected = fb.evaluate("finetune", task_file, config=other, progress=whole)
    assert rest.computed == whole.computed - 3
    assert resumed.to_frame().equals(expected.to_frame())


def test_notebook_class_is_run_from_its_collected_source(
    shrink: type[fb.Method], task_file: Path, config: fb.RunConfig
) -> None:
    [run] = fb.evaluate(shrink(power=2), task_file, config=config, progress=False).runs  # type: ignore[call-arg]
    manifest = read_run(run).manifest
    assert manifest.row == "shrink:power=2"
    source = str(manifest.method.source)
    assert "class Shrink" in source
    assert "SCALE = 0.5" in source
    assert "def shrink(weight)" in source
    assert "import torch.nn.functional as F" in source
    assert "network = object()" not in source
    assert len(list((config.home / "methods").glob("*.py"))) == 1
    assert "shrink" in fb.evaluate([shrink], task_file, config=config, progress=False).labels


def test_notebook_class_equal_source_gives_equal_file(shrink: type[fb.Method], tmp_path: Path) -> None:
    first, second = (method_text(each, tmp_path) for each in (shrink, run_cell(CELL, "<other>")["Shrink"]))  # type: ignore[arg-type]
    linecache.cache.pop("<other>")
    assert first == second


def test_class_using_an_object_of_the_notebook_is_refused() -> None:
    cls = run_cell(CELL.replace("SCALE = 0.5", "SCALE = object()"))["Shrink"]
    with pytest.raises(fb.UsageError, match=r"Shrink uses 'SCALE' \(object\).*my_method\.py:Shrink"):
        collect_source(cls)  # type: ignore[arg-type]


def test_class_without_source_is_refused() -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(compile(CELL, "<nowhere>", "exec"), namespace)  # noqa: S102 - the tests' own source
    linecache.cache.pop("<cell>", None)
    with pytest.raises(fb.UsageError, match="source of Shrink was not found"):
        collect_source(namespace["Shrink"])  # type: ignore[arg-type]


def test_check_method_reports_every_check(shrink: type[fb.Method]) -> None:
    report = fb.check_method(shrink, networks=["mlp"])
    assert report.ok, str(report)
    assert {check.network for check in report.checks} == {"mlp"}
    assert "all checks passed" in str(report)
    assert "<table>" in report._repr_html_()


def test_script_without_main_guard_runs_in_processes(task_file: Path, tmp_path: Path) -> None:
    """Worker processes do not import the script, only the collected source of its class."""
    call = f"""
        print("started")
        config = fb.RunConfig(device="cpu", engine="processes", workers=1)
        board = fb.evaluate(Shrink, {str(task_file)!r}, config=config)
        print(board["shrink"].method)
    """
    script = tmp_path / "script.py"
    script.write_text(CELL + textwrap.dedent(call))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["started", "shrink"]
    assert "test/mlp/random: done" in done.stderr


def test_submit_board_of_several_runs_asks_for_one_row(board: fb.BoardResult) -> None:
    with pytest.raises(fb.UsageError, match=r"has 2 runs; submit one row, board\[LABEL\]"):
        fb.submit(board, "http://127.0.0.1:9")
    with pytest.raises(fb.UsageError, match="'Retrain' is a reference row"):
        fb.submit(board["Retrain"], "http://127.0.0.1:9")
