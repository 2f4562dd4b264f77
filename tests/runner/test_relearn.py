"""Relearn time through the pipeline: the count of steps by hand, beside the oracle's, and where it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from forgetbench.errors import UsageError
from forgetbench.evidence.reference import check_run
from forgetbench.evidence.run import read_run
from forgetbench.reporting.tables import board_table
from forgetbench.runner import relearn as measuring
from forgetbench.runner.artifacts import WEIGHTS
from forgetbench.runner.config import RunConfig
from forgetbench.runner.context import TaskContext
from forgetbench.runner.jobs import RelearnJob
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import TaskRun, run
from forgetbench.scoring.scorer import Scorer, rank_runs
from forgetbench.tasks.task import Task


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    """A learning rate at which so small a network comes back within the limit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measuring.RULE, "lr", 0.01)
        yield


@pytest.fixture(scope="module")
def task(make_task: Callable[..., Task]) -> Task:
    return make_task("class", "classes = [3]", train=200, epochs=12)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return RunConfig(home=tmp_path_factory.mktemp("home"), device="cpu", engine="local", measure_relearning=True)


@pytest.fixture(scope="module")
def done(task: Task, options: RunConfig) -> TaskRun:
    [found] = run([task], lambda one: parse_methods(["finetune:epochs=1", "random-label"], [], one.setting), options)
    return found


def steps_by_hand(bench: TaskContext, weights: Path, original: Path, seed: int) -> int | None:
    """Adam's formula written out, on the same batches; the accuracy is read before every step."""
    rule = measuring.RULE
    network, before = bench.data.network_spec.build(0), bench.data.network_spec.build(0)
    network.load_state_dict(load_file(weights))
    before.load_state_dict(load_file(original))
    rows = bench.data.partition.train.take(bench.data.split(0).forget)
    images, labels = torch.from_numpy(np.array(rows.images)).float() / 255, torch.from_numpy(np.array(rows.labels))
    goal = 0.95 * float((before(images).argmax(1) == labels).float().mean())
    first = [torch.zeros_like(parameter) for parameter in network.parameters()]
    second = [torch.zeros_like(parameter) for parameter in network.parameters()]
    for step in range(rule["limit"] + 1):
        if float((network(images).argmax(1) == labels).float().mean()) >= goal - 1e-9:
            return step
        loss = torch.nn.functional.cross_entropy(network(images), labels)  # fewer rows than one batch: all of them
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for place, (parameter, gradient) in enumerate(zip(network.parameters(), gradients, strict=True)):
                first[place] = 0.9 * first[place] + 0.1 * gradient
                second[place] = 0.999 * second[place] + 0.001 * gradient**2
                mean, square = first[place] / (1 - 0.9 ** (step + 1)), second[place] / (1 - 0.999 ** (step + 1))
                parameter -= rule["lr"] * mean / (square.sqrt() + 1e-8)  # noqa: PLW2901 - in place
    return None


def test_relearn_steps_match_adam_by_hand(task: Task, options: RunConfig, done: TaskRun) -> None:
    bench = TaskContext(task, options.env())
    store = options.store
    assert len(bench.data.split(0).forget) <= measuring.RULE["batch_size"]
    original = store.key(bench.keys.model("original", 0, 1))
    oracle = store.key(bench.keys.model("reference", 0, 1))
    job = RelearnJob(task=task, env=bench.env, model="", original="", draw=0, seed=1)
    found = measuring.relearn(replace(job, model=oracle, original=original))
    expected = steps_by_hand(bench, store.path(oracle) / WEIGHTS, store.path(original) / WEIGHTS, 1)
    assert expected is not None
    assert 1 < expected < measuring.RULE["limit"]
    assert abs(found.steps - expected) <= 1  # the fused step rounds otherwise
    assert found.back is True
    at_once = measuring.relearn(replace(job, model=original, original=original))
    assert (at_once.steps, at_once.back) == (0, True)  # it was never gone


def test_relearn_is_recorded_and_reported(done: TaskRun) -> None:
    assert done.reference is not None
    found = [read_run(folder) for folder in done.runs]
    assert all(check_run(one, done.reference) == [] for one in found)
    standing = rank_runs(Scorer(done.reference), found)
    oracles = [[model.measured["relearn.oracle"] for model in one.manifest.models] for one in found]
    assert oracles[0] == oracles[1]  # the same oracles beside every method
    for card, one in zip(standing.scorecards[2:], found, strict=True):
        steps = [model.measured["relearn"] for model in one.manifest.models]
        assert card.metrics["relearn"].value == pytest.approx(np.mean(steps))
        assert card.metrics["ain"].value == pytest.approx((np.mean(steps) + 1) / (np.mean(oracles[0]) + 1))
        assert "relearn" not in card.ranking
    table = board_table(standing, done.reference.card)
    assert sum("measured by the submitter" in note for note in table.notes) == 2


def test_relearn_never_back_counts_as_the_limit(
    task: Task, options: RunConfig, done: TaskRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(measuring.RULE, "limit", 1)
    bench = TaskContext(task, options.env())
    keys = {role: options.store.key(bench.keys.model(role, 0, 0)) for role in ("reference", "original")}
    job = RelearnJob(task=task, env=bench.env, model="", original="", draw=0, seed=0)
    found = measuring.relearn(replace(job, model=keys["reference"], original=keys["original"]))
    assert (found.steps, found.back) == (1, False)


@pytest.mark.parametrize(
    ("mine", "oracle", "relearn", "ain"),
    [
        ([(10, 1), (30, 1)], [(40, 1), (42, 1)], 20.0, 0.5),
        (
            [(200, 0), (200, 0)],
            [(200, 0), (200, 0)],
            "at least 200 steps, 2 of 2 unlearned models never came back",
            "censored: 2 of 2 unlearned models never came back, 2 of 2 oracles never came back",
        ),
        (
            [(100, 1), (200, 0)],
            [(49, 1), (49, 1)],
            "at least 150 steps, 1 of 2 unlearned models never came back",
            "censored: at least 3.02, 1 of 2 unlearned models never came back",
        ),
        ([(19, 1), (19, 1)], [(200, 0), (118, 1)], 19.0, "censored: at most 0.12, 1 of 2 oracles never came back"),
    ],
)
def test_relearn_censored_rows_have_no_value(
    done: TaskRun, mine: list[tuple[int, int]], oracle: list[tuple[int, int]], relearn: object, ain: object
) -> None:
    assert done.reference is not None
    run_ = read_run(done.runs[0])
    models = tuple(
        model.model_copy(
            update={
                "measured": {
                    "relearn": u[0],
                    "relearn.back": u[1],
                    "relearn.oracle": r[0],
                    "relearn.oracle.back": r[1],
                }
            }
        )
        for model, u, r in zip(run_.manifest.models, mine, oracle, strict=True)
    )
    run_ = replace(run_, manifest=run_.manifest.model_copy(update={"models": models}))
    standing = rank_runs(Scorer(done.reference), [run_])
    card = standing.scorecards[-1]
    for name, expected in (("relearn", relearn), ("ain", ain)):
        value = card.metrics[name]
        if isinstance(expected, float):
            assert value.value == pytest.approx(expected)
        else:
            assert value.value is value.low is value.high is None
            assert str(expected) in value.reason
    [note] = [note for note in board_table(standing, done.reference.card).notes if "measured by the submitter" in note]
    assert ("at least" in note or "at most" in note) == any(not back for _, back in (*mine, *oracle))


def test_relearn_not_measured_has_a_reason(task: Task, options: RunConfig) -> None:
    plain = RunConfig(home=options.home, device="cpu", engine="local")
    [done] = run([task], lambda one: parse_methods(["finetune:epochs=1"], [], one.setting), plain)
    assert done.reference is not None
    card = Scorer(done.reference).score(read_run(done.runs[0]))
    for name, reason in (("relearn", "--measure-relearning"), ("ulira", "random halves"), ("zrf", "random network")):
        assert card.metrics[name].value is None
        assert reason in card.metrics[name].reason
    refused = RunConfig(home=options.home, device="cpu", engine="local", measure_relearning=True, skip_oracles=True)
    with pytest.raises(UsageError, match="which --skip-oracles does not train"):
        run([task], lambda _: [], refused)
