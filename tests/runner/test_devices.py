"""Where models were made is recorded: the device of the workers, its name, and whether it was theirs alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from forgetbench.evidence.environment import environment
from forgetbench.evidence.run import Manifest, read_run
from forgetbench.runner import context
from forgetbench.runner.artifacts import read_meta
from forgetbench.runner.config import NullProgress, RunConfig
from forgetbench.runner.engines import LocalEngine
from forgetbench.runner.engines.devices import hardware
from forgetbench.runner.jobs import hardware_text
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import run
from forgetbench.store import Store
from forgetbench.tasks.task import Task


class Notes(NullProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    return make_task("random", "fraction = 0.2")


def go(task: Task, home: Path) -> tuple[Manifest, list[str]]:
    notes = Notes()
    config = RunConfig(home=home, device="cpu", engine="local")
    [done] = run([task], lambda one: parse_methods(["finetune:epochs=1"], [], one.setting), config, notes)
    return read_run(done.runs[0]).manifest, notes.notes


def test_run_records_hardware_of_each_artifact(task: Task, tmp_path: Path) -> None:
    manifest, notes = go(task, tmp_path)
    name = hardware("cpu")
    assert manifest.environment["processor"] in name
    assert manifest.environment["hardware"] == name
    assert notes == []
    store = Store(tmp_path / "store")
    metas = [read_meta(folder) for folder, key in store.artifacts() if (folder / "meta.json").is_file()]
    made = [meta for meta in metas if "seconds" in meta]
    assert len(made) == 2 * 3 + 2
    assert all((meta["hardware"], meta["exclusive"]) == (name, True) for meta in made)
    assert manifest.cost.seconds == pytest.approx(sum(model.seconds or 0 for model in manifest.models) / 2)
    assert manifest.cost.retrain_seconds


def test_run_mixed_hardware_is_flagged(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = itertools.cycle(["NVIDIA A100", "NVIDIA H100"])
    monkeypatch.setattr(context, "hardware", lambda _: next(names))
    manifest, [note] = go(task, tmp_path)
    assert manifest.environment["hardware"] == "NVIDIA A100: 1 models; NVIDIA H100: 1 models"
    assert manifest.cost.retrain_seconds is None
    assert "were made on different hardware (NVIDIA A100: 4 models; NVIDIA H100: 4 models)" in note


def test_run_shared_device_has_no_wall_times(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalEngine, "exclusive", False)
    manifest, _ = go(task, tmp_path)
    assert (manifest.cost.seconds, manifest.cost.retrain_seconds) == (None, None)
    assert [model.seconds for model in manifest.models] == [None, None]
    assert manifest.cost.flops


def test_environment_of_a_driver_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fail(_: object) -> str:
        raise RuntimeError("Found no NVIDIA driver on your system")

    monkeypatch.setattr(torch.cuda, "get_device_name", fail)
    assert environment("cuda")["device"] == "cuda"
    assert "gpu" not in environment("cuda")


def test_hardware_text_counts_only_several() -> None:
    assert hardware_text({"A": 3}) == "A"
    assert hardware_text({"B": 1, "A": 3}) == "A: 3 models; B: 1 models"
