"""Streams of requests through the pipeline: the chain, its store, what is shown of it, and its oracle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from forgetbench.evidence.arrays import encode
from forgetbench.evidence.reference import ReferenceBundle, check_run
from forgetbench.evidence.run import Run, read_run
from forgetbench.methods.base import ForgetRequest
from forgetbench.reporting.streams import StreamCurves, stream_curves, stream_table
from forgetbench.runner.config import RunConfig
from forgetbench.runner.context import TaskContext
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import TaskRun, run
from forgetbench.runner.unlearn import make_request
from forgetbench.scoring.scorer import Scorer
from forgetbench.tasks.task import Task, read_task
from forgetbench.training import fit

STEPWISE = """
from dataclasses import dataclass
import copy, json, time, torch
from forgetbench.methods import Method

@dataclass(frozen=True, kw_only=True)
class Stepwise(Method):
    "Adds 2 ** step to the first bias of the head, and says what it was given."
    wait: float = 0.0
    def unlearn(self, model, request):
        time.sleep(self.wait)
        edited = copy.deepcopy(model)
        with torch.no_grad():
            edited.head.bias[0] += 2.0 ** request.step
        request.log("step", request.step)
        request.log("seed", str(request.seed))
        request.log("labels", json.dumps(sorted(set(request.forget.labels.tolist()))))
        request.log("kept", json.dumps(sorted(set(request.retain.labels.tolist()))))
        return edited
"""


@dataclass(frozen=True)
class World:
    task: Task
    done: TaskRun
    home: Path

    @property
    def pack(self) -> ReferenceBundle:
        assert self.done.reference is not None
        return self.done.reference

    @property
    def run(self) -> Run:
        return read_run(self.done.runs[0])

    @property
    def bench(self) -> TaskContext:
        return TaskContext(self.task, RunConfig(home=self.home, device="cpu").env())

    def original(self, seed: int) -> torch.nn.Module:
        network = self.bench.data.network_spec.build(0)
        network.load_state_dict(load_file(self.pack.folder / "models" / f"s{seed}.safetensors"))
        return network.eval()

    def curves(self, name: str) -> StreamCurves:
        [found] = [curves for curves in stream_curves(self.pack, [self.run]) if curves.name == name]
        return found


@pytest.fixture(scope="module")
def task_file(write_task: Callable[..., Path]) -> Path:
    return write_task("stream", 'of = "class", steps = 3, count = 1', train=200)


@pytest.fixture(scope="module")
def task(task_file: Path) -> Task:
    return read_task(str(task_file))


def go(task: Task, folder: Path, home: Path, *names: str, parameters: str = "") -> World:
    folder.mkdir(exist_ok=True)
    (folder / "stepwise.py").write_text(STEPWISE)
    files = [] if names else [f"{folder / 'stepwise.py'}:Stepwise{parameters}"]
    options = RunConfig(home=home, device="cpu", engine="local")
    [done] = run([task], lambda one: parse_methods(names, files, one.setting), options)
    return World(task, done, home)


@pytest.fixture(scope="module")
def world(task: Task, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("stream")
    return go(task, folder / "files", folder / "home")


def test_stream_request_starts_from_the_previous_model(world: World) -> None:
    """The known effect adds up: the first bias grows by 1, 3 and 7, and a step's evidence is that of such a network."""
    run = world.run
    assert check_run(run, world.pack) == []
    assert len(run.manifest.steps) == 2 * 2
    for seed in range(2):
        records = {record.step: record for record in run.manifest.steps if record.seed == seed}
        for step, added in enumerate((1.0, 3.0, 7.0)):
            network = world.original(seed)
            with torch.no_grad():
                network.head.bias[0] += added
            answers = run.answers(records[step]) if step < 2 else run.logits(0, seed)
            for subset, rows in world.bench.data.rows(0).items():
                images = getattr(world.bench.data.partition, rows.part).images[rows.index]
                with torch.no_grad():
                    logits = network(torch.from_numpy(np.array(images)).float() / 255).numpy()
                expected = encode(logits, attributes=False).astype(np.float64)
                assert np.allclose(answers[subset], expected, atol=2e-2), (seed, step, subset)
            assert any(name.startswith("features:") for name in answers) is (step == 2)


def test_stream_request_contains_only_its_own_rows(world: World) -> None:
    notes = [record.notes for record in world.run.manifest.steps if record.seed == 0]
    notes += [model.notes for model in world.run.manifest.models if model.seed == 0]
    asked = [set(json.loads(str(note["labels"]))) for note in notes]
    kept = [set(json.loads(str(note["kept"]))) for note in notes]
    assert [note["step"] for note in notes] == [0, 1, 2]
    assert [len(labels) for labels in asked] == [1, 1, 1]
    assert len(set.union(*asked)) == 3
    for step in range(3):
        assert kept[step] == set(range(10)) - set.union(*asked[: step + 1])
    assert len({note["seed"] for note in notes}) == 3  # a fresh adapter for each request is not the same adapter
    request = make_request(world.bench, 0, 0, 1)
    assert isinstance(request, ForgetRequest)
    assert not set(request.validation.labels.tolist()) & set.union(*asked[:2])


def test_stream_oracle_never_saw_requested_rows(world: World) -> None:
    """Trained here, by hand, on the rows of classes that nobody asked away, it gives the pack's answers."""
    bench = world.bench
    gone = np.unique(bench.data.partition.train.labels[bench.data.split(0).forget])
    assert len(gone) == 3
    rows = np.flatnonzero(~np.isin(bench.data.partition.train.labels, gone))
    for role, folder in (("reference", "references"), ("control", "controls")):
        network = bench.data.network_spec.build(world.task.stream(f"{role}-init", 0, 1))
        fit(
            network,
            bench.data.examples("train", 0).take(rows),
            world.task.recipe,
            world.task.stream(f"{role}-order", 0, 1),
        )
        stored = np.load(world.pack.folder / folder / "d0-s1.npz")
        assert np.array_equal(bench.predict(network, 0)["test"], stored["test"])


def test_stream_curves_are_accuracies_per_request(world: World) -> None:
    bench, run = world.bench, world.run
    curves = world.curves(run.manifest.row)
    asked = [int(bench.data.partition.train.labels[rows[0]]) for rows in bench.data.split(0).requests]
    labels = bench.data.partition.test.labels
    for seed in range(2):
        for place, added in enumerate((0.0, 1.0, 3.0, 7.0)):
            network = world.original(seed)
            with torch.no_grad():
                network.head.bias[0] += added
                right = (
                    network(torch.from_numpy(np.array(bench.data.partition.test.images)).float() / 255)
                    .argmax(1)
                    .numpy()
                )
            for request, label in enumerate(asked):
                expected = (right == labels)[labels == label].mean()
                assert curves.requested[place, request, seed] == pytest.approx(expected, abs=0.011)  # float16 ties
            kept = ~np.isin(labels, asked[:place])
            assert curves.retained[place, seed] == pytest.approx((right == labels)[kept].mean(), abs=0.011)
    assert np.isnan(curves.earlier[0]).all()
    assert curves.earlier[2] == pytest.approx(curves.requested[3, :2].mean(axis=0))
    before, after, kept_now = curves.requested[0, 1], curves.requested[2, 1], curves.retained[2]
    drop = np.maximum(before - after, 0)
    expected_h = np.where(kept_now + drop > 0, 2 * kept_now * drop / np.maximum(kept_now + drop, 1e-12), 0)
    assert curves.h_mean[1] == pytest.approx(expected_h)


def test_stream_reemergence_is_the_largest_rise() -> None:
    requested = np.array([[0.9, 0.9, 0.9], [0.1, 0.9, 0.9], [0.3, 0.2, 0.9], [0.25, 0.1, 0.0]])[:, :, None]
    curves = StreamCurves("x", requested, np.full((4, 1), 0.8), True, None)
    assert curves.reemergence == pytest.approx(0.2)  # request 1: 0.1 -> 0.3; what came before it is no rise
    assert curves.current[:, 0].tolist() == [0.1, 0.2, 0.0]


def test_stream_table_has_a_line_per_request(world: World) -> None:
    table = stream_table(world.pack, [world.run])
    assert table is not None
    assert [row[:2] for row in table.rows] == [
        ("Retrain", "3"),
        *(("No unlearning", str(step)) for step in (1, 2, 3)),
        *(("stepwise", str(step)) for step in (1, 2, 3)),
    ]
    oracle = table.records[2]
    assert oracle["requested"] == 0.0  # the oracle has never seen the classes
    assert oracle["earlier"] == 0.0
    assert table.records[5]["re-emergence"] == 0.0
    assert table.records[8]["flops_share"] == world.run.manifest.cost.flops == 0.0  # adding to a bias costs nothing
    card = Scorer(world.pack).score(world.run)
    assert card.cost.requests == 3


def test_stream_table_other_task_has_none(tmp_path: Path, make_task: Callable[..., Task]) -> None:
    task = make_task("class", "classes = [3]", train=200)
    options = RunConfig(home=tmp_path, device="cpu", engine="local")
    [done] = run([task], lambda one: parse_methods(["finetune:epochs=1"], [], one.setting), options)
    assert done.reference is not None
    assert read_run(done.runs[0]).manifest.steps == ()
    assert stream_table(done.reference, [read_run(done.runs[0])]) is None


def test_stream_flops_are_the_mean_per_request(world: World, tmp_path: Path) -> None:
    """A pass over the retain set costs in proportion to its rows, and so does retraining on them."""
    cost = read_run(go(world.task, tmp_path, world.home, "finetune:epochs=1").done.runs[0]).manifest.cost
    assert cost.flops is not None
    assert cost.retrain_flops is not None
    assert cost.flops / cost.retrain_flops == pytest.approx(1 / world.task.recipe.epochs, rel=0.05)


def test_stream_killed_resumes_at_its_request(task_file: Path, task: Task, tmp_path: Path) -> None:
    peace = go(task, tmp_path, tmp_path / "peace", parameters=":wait=0.5")
    home = tmp_path / "home"
    words = [sys.executable, "-m", "forgetbench", "run", str(task_file), "--executor", "local"]
    words += ["--method-file", f"{tmp_path / 'stepwise.py'}:Stepwise:wait=0.5"]
    process = subprocess.Popen(
        words,
        env={**os.environ, "FORGETBENCH_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    until = time.monotonic() + 300

    def links() -> list[Path]:
        kinds = (path for path in home.glob("store/??/[0-9a-f]*/artifact.json"))
        return [path for path in kinds if b'"kind":"unlearned"' in path.read_bytes()]

    while len(links()) < 2 and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in links()}
    assert 2 <= len(finished) < 6
    again = go(task, tmp_path, home, parameters=":wait=0.5")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(links()) == 6
    assert again.run.manifest.steps != ()
    for theirs, ours in zip(peace.run.manifest.steps, again.run.manifest.steps, strict=True):
        assert theirs.arrays == ours.arrays
    for theirs, ours in zip(peace.run.manifest.models, again.run.manifest.models, strict=True):
        assert theirs.arrays == ours.arrays


def test_stream_failing_request_is_named(world: World, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom forgetbench.methods import Method\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Bad(Method):\n    'Fails.'\n"
        "    def unlearn(self, model, request):\n"
        "        if request.step == 1: raise ValueError('no luck')\n        return model\n"
    )
    options = RunConfig(home=world.home, device="cpu", engine="local")
    [done] = run([world.task], lambda one: parse_methods([], [f"{file}:Bad"], one.setting), options)
    manifest = read_run(done.runs[0]).manifest
    assert (manifest.status, manifest.reason) == ("failed", "request 2 of 3: ValueError: no luck")
