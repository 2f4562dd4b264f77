"""A run on the corrective track: what methods receive, what is recorded, and the two kinds of retraining."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.reference import check_run
from forgetbench.evidence.run import read_run
from forgetbench.reporting.tables import board_table
from forgetbench.runner.config import RunConfig
from forgetbench.runner.context import TaskContext
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.plan import plan_task
from forgetbench.runner.run import TaskRun, run
from forgetbench.scoring.scorer import RankedRuns, Scorer, rank_runs
from forgetbench.scoring.vocabulary import ALL_REFERENCES, PARTIAL
from forgetbench.tasks.task import Task, read_task

POISON = 'trigger = "patch", size = 2, target = "0", rate = 0.1, found = 0.2'
COUNTING = """
import copy
from forgetbench.methods import Method


class Counting(Method):
    \"\"\"Report how many retained rows have the label of the target, and change nothing.\"\"\"

    def unlearn(self, model, request):
        request.log("retained", len(request.retain))
        request.log("zeros", int((request.retain.labels == 0).sum()))
        return copy.deepcopy(model)
"""


@pytest.fixture(scope="module")
def task(make_task: Callable[..., Task]) -> Task:
    return make_task("poisoned", POISON, train=300, epochs=20)


@pytest.fixture(scope="module")
def done(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskRun, RunConfig]:
    folder = tmp_path_factory.mktemp("corrective")
    (folder / "counting.py").write_text(COUNTING)
    config = RunConfig(home=folder / "home", device="cpu", engine="local")
    files = (f"{folder / 'counting.py'}:Counting",)
    [result] = run([task], lambda one: parse_methods(["finetune:epochs=1"], files, one.setting), config)
    return result, config


@pytest.fixture(scope="module")
def ranked(done: tuple[TaskRun, RunConfig]) -> RankedRuns:
    result, _ = done
    assert result.reference is not None
    return rank_runs(Scorer(result.reference), [read_run(folder) for folder in result.runs])


def test_evidence_has_triggered_images_and_both_oracles(done: tuple[TaskRun, RunConfig]) -> None:
    result, _ = done
    bundle = result.reference
    assert bundle is not None
    counts = bundle.card.counts["0"]
    assert (counts["forget"], counts["withheld"], counts["retain"]) == (6, 24, 270)
    assert (bundle.card.schema_version, bundle.card.track) == (3, "corrective")
    labels = bundle.labels[0]
    assert set(labels["targets:test-triggered"]) == {0}
    assert 0 not in labels["test-triggered"]
    assert len(labels["test-triggered"]) == counts["test-triggered"] == int((labels["test"] != 0).sum())
    for folder in result.runs:
        found = read_run(folder)
        assert check_run(found, bundle) == []
        assert found.manifest.schema_version == 3
        assert found.logits(0, 0)["test-triggered"].shape == (counts["test-triggered"], 10)
    digests = {
        role: [read_arrays(bundle.folder / role / f"d0-s{seed}.npz")["test"].tobytes() for seed in range(2)]
        for role in ("originals", "references", "controls", "partials")
    }
    assert len({one for models in digests.values() for one in models}) == 8


def test_methods_receive_missed_rows_as_retained(done: tuple[TaskRun, RunConfig], task: Task) -> None:
    result, config = done
    [notes] = {tuple(sorted(model.notes.items())) for model in read_run(result.runs[1]).manifest.models}
    split = TaskContext(task, config.env()).data.split(0)
    zeros = int((split.train_labels[split.retain] == 0).sum())
    assert dict(notes) == {"retained": 270.0 + 24, "zeros": zeros + 24.0}


def test_retraining_without_found_part_keeps_the_backdoor(ranked: RankedRuns) -> None:
    cards = {card.name: card for card in ranked.scorecards}
    success = {name: card.metrics["attack-success"].value or 0.0 for name, card in cards.items()}
    corrected = {name: card.metrics["accuracy.test-triggered"].value or 0.0 for name, card in cards.items()}
    assert success["Retrain"] < 0.2
    assert min(success[PARTIAL], success["No unlearning"]) > 0.6
    assert corrected[PARTIAL] < 0.4
    assert corrected["Retrain"] > 0.6
    assert [card.name for card in ranked.scorecards[: ranked.references]] == list(ALL_REFERENCES)


def test_board_table_and_plan_have_the_third_reference(
    ranked: RankedRuns, done: tuple[TaskRun, RunConfig], task: Task
) -> None:
    result, config = done
    assert result.reference is not None
    text = str(board_table(ranked, result.reference.card))
    assert PARTIAL in text
    plan = plan_task(task, parse_methods(["finetune:epochs=1"], [], task.setting), config)
    [oracles] = [group for group in plan.groups if group.name == "oracles"]
    assert (oracles.jobs, oracles.stored) == (6, 6)


def test_catalog_shares_differ_in_found_rows_only() -> None:
    tasks = [read_task(f"digits/cnn/poisoned-found-{share}") for share in (1, 10, 50, 100)]
    assert [task.scenario.options["found"] for task in tasks] == [0.01, 0.1, 0.5, 1.0]
    rest = [{**task.scenario.options, "found": 0} for task in tasks]
    assert all(options == rest[0] for options in rest)


def test_track_of_a_task_file_is_refused(task: Task, tmp_path: Path) -> None:
    other = Task.model_validate({**task.model_dump(), "track": "erase"})
    config = RunConfig(home=tmp_path, device="cpu", engine="local")
    with pytest.raises(UsageError, match=r"ranked on a track of its own. Remove track"):
        assert TaskContext(other, config.env()).data.track
