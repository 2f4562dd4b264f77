"""Worker processes on the GPUs of a machine, with GPUs that exist in name only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from support.jobs import work

from forgetbench.errors import UsageError
from forgetbench.evidence.environment import cores
from forgetbench.runner import engines
from forgetbench.runner.config import RunConfig
from forgetbench.runner.engines import LocalEngine, ProcessesEngine, make_engine, processes
from forgetbench.runner.engines.devices import visible_gpus


@pytest.mark.parametrize(
    ("variable", "device", "gpus"),
    [
        (None, "cuda", ("0", "1", "2")),
        (None, "cuda:2", ("2",)),
        (None, "cpu", ()),
        ("3,5", "cuda", ("3", "5")),
        ("3,5", "cuda:1", ("5",)),
        ("GPU-8932f937, MIG-c6d4f1ef-42e4", "cuda", ("GPU-8932f937", "MIG-c6d4f1ef-42e4")),
        ("0,-1,1", "cuda", ("0",)),
        ("", "cuda", ()),
        ("NoDevFiles", "cuda", ()),
    ],
)
def test_visible_gpus_are_those_of_the_process(
    variable: str | None, device: str, gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus(device) == gpus


def test_visible_gpus_position_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UsageError, match="'cuda:2' is not available: there are 2 GPUs"):
        visible_gpus("cuda:2")


def test_cores_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    assert cores() == 3


@pytest.mark.parametrize(
    ("options", "gpus", "expected"),
    [
        (("auto", None, "cuda", 1), ("0",), None),
        (("auto", None, "cuda", 1), ("0", "1"), ("0", "1")),
        (("auto", None, "cuda", 2), ("0",), ("0", "0")),
        (("auto", 2, "cuda", 2), ("0", "1"), ("0", "1")),  # one on each GPU before a second one on any
        (("processes", None, "cuda", 1), ("MIG-a",), ("MIG-a",)),
        (("processes", None, "cpu", 1), (), ()),
        (("local", None, "cuda", 1), ("0", "1"), None),
    ],
)
def test_make_engine_one_process_for_each_place(
    options: tuple[Any, ...], gpus: tuple[str, ...], expected: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "visible_gpus", lambda _: gpus)
    monkeypatch.setattr(engines, "cores", lambda: 5)
    engine = make_engine(*options)
    if expected is None:
        assert isinstance(engine, LocalEngine)
        return
    assert isinstance(engine, ProcessesEngine)
    assert engine._slots == expected
    assert engine.workers == (len(expected) or 5)
    assert engine.exclusive == (0 < len(expected) == len(set(expected)))
    assert engine.find_device("cpu") == ("cuda" if expected else "cpu")


def test_one_worker_process_has_the_cpu_for_itself() -> None:
    assert make_engine("processes", 1, "cpu").exclusive
    assert not make_engine("processes", 2, "cpu").exclusive


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("auto", None, "cpu", 2), "--jobs-per-gpu 2 does not apply: the device is cpu. Omit it."),
        (("local", None, "cuda", 2), "--engine local runs one job at a time. Omit it."),
        (("auto", 4, "cuda", 1), r"--workers 4 is more than the 2 jobs .* give --jobs-per-gpu 2"),
        (("slurm", None, "cpu", 1), "Unknown engine 'slurm'. Available: auto, local, processes"),
    ],
)
def test_make_engine_misfits_are_refused(
    options: tuple[Any, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "visible_gpus", lambda device: () if device == "cpu" else ("0", "1"))
    with pytest.raises(UsageError, match=message):
        make_engine(*options)


def test_run_config_jobs_per_gpu_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match=r"The number of jobs per GPU is 0\. Give --jobs-per-gpu 1 or more"):
        RunConfig(jobs_per_gpu=0)


def test_processes_each_start_with_their_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables are there before the process loads anything, and the parent's are as before."""
    monkeypatch.setattr(processes, "cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,MIG-b")
    before = dict(os.environ)
    meetings = [tmp_path / "first", tmp_path / "second"]
    for meeting in meetings:
        meeting.mkdir()
    with ProcessesEngine(2, slots=("GPU-a", "MIG-b")) as engine:
        first, _, second = (
            engine.map(work, jobs, lambda *_: None)
            for jobs in ([f"meet:{meetings[0]}"] * 2, [f"die-once:{tmp_path / 'died'}"], [f"meet:{meetings[1]}"] * 2)
        )
    assert (tmp_path / "died").exists()  # one process has died, and another one got its GPU
    for found in (first, second):
        assert sorted(map(str, found)) == [
            f"CUDA_VISIBLE_DEVICES={gpu};OMP_NUM_THREADS=4" for gpu in ("GPU-a", "MIG-b")
        ]
    assert dict(os.environ) == before
