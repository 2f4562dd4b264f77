"""Answers after recalibration, recorded by a run: of every model, on the retained images of its draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from forgetbench.evidence.arrays import RECALIBRATED, Logits, encode, read_arrays
from forgetbench.evidence.reference import ReferenceBundle, check_run
from forgetbench.evidence.run import read_run
from forgetbench.runner.artifacts import META, WEIGHTS, load_model
from forgetbench.runner.config import RunConfig
from forgetbench.runner.context import TaskContext
from forgetbench.runner.data import TaskData
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import TaskRun, run
from forgetbench.scoring.scorer import RankedRuns, Scorer, rank_runs
from forgetbench.tasks.task import Task

HIDE = '''
import copy
import torch
from forgetbench.methods import Method


class Hide(Method):
    """Dampen the hidden units of the forgotten class by hand; only stale statistics make the class disappear."""

    def unlearn(self, model, request):
        network = copy.deepcopy(model)
        linear = network.body.stages[0][1]
        with torch.no_grad():
            forget, retain = (
                linear(((next(part.batches(10**6))[0] - network.mean) / network.std).flatten(1)).mean(0)
                for part in (request.forget, request.retain)
            )
            units = (forget - retain).topk(len(forget) // 4).indices
            linear.weight[units] *= 0.01
            linear.bias[units] *= 0.01
        return network.eval()
'''


def go(task: Task, home: Path, *names: str, files: tuple[str, ...] = (), keep: bool = False) -> TaskRun:
    config = RunConfig(home=home, device="cpu", engine="local", keep_models=keep)
    [done] = run([task], lambda one: parse_methods(names, files, one.setting), config)
    return done


def with_batch_norm(task: Task, **options: object) -> Task:
    network = {"name": "mlp", "options": {"hidden": [16], "batch_norm": True, **options}}
    return Task.model_validate({**task.model_dump(), "network": network})


@pytest.fixture(scope="module")
def task(make_task: Callable[..., Task]) -> Task:
    return with_batch_norm(make_task("random", "fraction = 0.2", draws=2))


@pytest.fixture(scope="module")
def done(task: Task, tmp_path_factory: pytest.TempPathFactory) -> TaskRun:
    return go(task, tmp_path_factory.mktemp("home"), "random-label:epochs=1", keep=True)


def bundle_of(done: TaskRun) -> ReferenceBundle:
    assert done.reference is not None
    return done.reference


def expected(context: TaskContext, weights: Path, draw: int) -> Logits:
    """By the definition: the mean over batches of means and unbiased variances, layer after layer, in numpy."""
    network, data = load_model(context.data.network_spec, weights, context.data.device), context.data
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    retained = data.examples("train", draw).take(data.split(draw).retain)
    batches = [images.double().numpy() for images, _ in retained.batches(context.task.recipe.batch_size, 0)]

    def normalized(images: np.ndarray) -> np.ndarray:
        return ((images - state["mean"]) / state["std"]).reshape(len(images), -1)

    def hidden(images: np.ndarray) -> np.ndarray:
        return normalized(images) @ state["body.stages.0.1.weight"].T + state["body.stages.0.1.bias"]

    mean = np.mean([hidden(batch).mean(0) for batch in batches], axis=0)
    variance = np.mean([hidden(batch).var(0, ddof=1) for batch in batches], axis=0)
    logits = {}
    for name in ("forget", "test"):
        rows = data.rows(draw)[name]
        images = data.examples(rows.part, draw).take(rows.index).images.double().numpy() / 255
        units = (hidden(images) - mean) / np.sqrt(variance + 1e-5)
        units = np.maximum(units * state["body.stages.0.2.weight"] + state["body.stages.0.2.bias"], 0)
        logits[RECALIBRATED + name] = encode(units @ state["head.weight"].T + state["head.bias"], attributes=False)
    return logits


def recorded(path: Path) -> Logits:
    return {name: array for name, array in read_arrays(path).items() if name.startswith(RECALIBRATED)}


def test_run_records_answers_on_retained_images_of_each_draw(task: Task, done: TaskRun) -> None:
    """Of originals, which serve both draws, of both sets of oracles, and of the contestant."""
    bundle, folder = bundle_of(done), done.runs[0]
    home = bundle.folder.parents[4]
    context = TaskContext(task, RunConfig(home=home, device="cpu", engine="local").env())
    originals = [recorded(bundle.folder / f"originals/d{draw}-s1.npz") for draw in range(2)]
    (weights := home / "model").mkdir()
    for draw in range(2):
        content = (bundle.folder / "models/s1.safetensors").read_bytes()
        (weights / WEIGHTS).write_bytes(content)
        for name, array in expected(context, weights, draw).items():
            assert originals[draw][name].astype(float) == pytest.approx(array.astype(float), abs=0.02), name
    assert not np.array_equal(originals[0][RECALIBRATED + "test"], originals[1][RECALIBRATED + "test"])
    for role in ("references", "controls"):
        assert set(recorded(bundle.folder / role / "d1-s0.npz")) == {RECALIBRATED + "forget", RECALIBRATED + "test"}
    kept = [path.parent for path in home.rglob(WEIGHTS) if b'"share_changed"' in _meta(path.parent)]
    assert len(kept) == 4
    theirs = [expected(context, one, draw)[RECALIBRATED + "test"].astype(float) for one in kept for draw in range(2)]
    mine = recorded(folder / "d1-s1.npz")[RECALIBRATED + "test"].astype(float)
    assert min(np.abs(mine - other).max() for other in theirs) < 0.02
    assert check_run(read_run(folder), bundle) == []
    assert read_run(folder).manifest.schema_version == 2


def _meta(folder: Path) -> bytes:
    return (folder / META).read_bytes() if (folder / META).is_file() else b""


def test_run_again_takes_answers_from_the_store(task: Task, done: TaskRun) -> None:
    again = go(task, bundle_of(done).folder.parents[4], "random-label:epochs=1", keep=True)
    assert again.computed == 0


def test_run_without_batch_norm_records_no_answers(make_task: Callable[..., Task], tmp_path: Path) -> None:
    plain = with_batch_norm(make_task("random", "fraction = 0.2"), batch_norm=False)
    done = go(plain, tmp_path, "random-label:epochs=1")
    assert recorded(done.runs[0] / "d0-s0.npz") == {}
    card = Scorer(bundle_of(done)).score(read_run(done.runs[0]))
    assert card.recalibration.recoverable is None
    assert card.recalibration.reason == "the network has no batch-norm statistics"


def test_run_with_a_store_of_an_earlier_version(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its models stay: predictions are computed again from weights, and only models without weights are made again."""
    with monkeypatch.context() as earlier:
        earlier.setattr(TaskData, "has_batch_norm", False)
        before = go(task, tmp_path, "random-label:epochs=1", "finetune:epochs=1", keep=True)
    weights = {path: path.read_bytes() for path in tmp_path.rglob(WEIGHTS)}
    assert recorded(before.runs[0] / "d0-s0.npz") == {}
    plain = read_arrays(before.runs[0] / "d0-s0.npz")
    calls = []
    for name in ("random_label.RandomLabel", "finetune.FineTune"):
        monkeypatch.setattr(f"forgetbench.methods.{name}.unlearn", lambda *_: calls.append(1))
    monkeypatch.setattr("forgetbench.training.fit", lambda *_, **__: calls.append(1))
    again = go(task, tmp_path, "random-label:epochs=1", "finetune:epochs=1", keep=True)
    assert calls == []
    arrays = read_arrays(again.runs[0] / "d0-s0.npz")
    assert set(arrays) - set(plain) == {RECALIBRATED + "forget", RECALIBRATED + "test"}
    assert all(np.array_equal(arrays[name], plain[name]) for name in plain)
    assert all(path.read_bytes() == content for path, content in weights.items())
    assert check_run(read_run(again.runs[0]), bundle_of(again)) == []


def test_run_answers_not_finite_are_left_out(task: Task, done: TaskRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one model of four: then no file has them, and the row is not tested."""
    real, home = TaskContext.after_recalibration, bundle_of(done).folder.parents[4]
    found = []

    def sometimes(self: TaskContext, network: object, draw: int) -> Logits:
        found.append(draw)
        return {} if len(found) == 2 else real(self, network, draw)  # type: ignore[arg-type]

    monkeypatch.setattr(TaskContext, "after_recalibration", sometimes)
    mixed = go(task, home, "finetune:epochs=1")
    assert len(found) == 4
    run_folder = read_run(mixed.runs[0])
    assert [recorded(path) for path in sorted(run_folder.folder.glob("*.npz"))] == [{}] * 4
    assert check_run(run_folder, bundle_of(mixed)) == []


@pytest.fixture(scope="module")
def erased(make_task: Callable[..., Task], tmp_path_factory: pytest.TempPathFactory) -> RankedRuns:
    """A board of a class to erase, with a method that hides it and one that trains on."""
    folder = tmp_path_factory.mktemp("erase")
    (folder / "hide.py").write_text(HIDE)
    task = with_batch_norm(make_task("class", "classes = [3]", seeds=6, train=300, epochs=10))
    done = go(task, folder / "home", "finetune", files=(f"{folder / 'hide.py'}:Hide",))
    return rank_runs(Scorer(bundle_of(done)), [read_run(one) for one in done.runs])


def test_undone_method_by_hand_is_recoverable(erased: RankedRuns) -> None:
    cards = {card.name: card for card in erased.scorecards}
    hide, retrain, untouched = (cards[name] for name in ("hide", "Retrain", "No unlearning"))
    change = {name: (one.before, one.after) for name, one in hide.recalibration.accuracies.items()}
    assert change["test-forgotten"][0] < 0.5
    assert change["test-forgotten"][1] == pytest.approx(
        untouched.recalibration.accuracies["test-forgotten"].after, abs=0.005
    )
    assert hide.recalibration.after.value == pytest.approx(0.0, abs=0.02)
    assert hide.recalibration.recoverable
    assert "recoverable" in hide.flags
    for card in (retrain, untouched, cards["finetune"]):
        assert card.recalibration.recoverable is False, card.name
    assert retrain.recalibration.accuracies["forget"].after < 0.1
