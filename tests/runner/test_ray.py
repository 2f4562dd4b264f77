"""The Ray engine on a cluster of two nodes, in a network namespace of its own: nothing leaves this machine."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import s3_server, skip
from support.engine_board import assert_equal_bits, run_board
from support.ray_process import in_own_network

from forgetbench.errors import UsageError
from forgetbench.runner.config import RunConfig
from forgetbench.runner.engine_check import check_engine
from forgetbench.runner.engines import make_engine
from forgetbench.runner.engines import ray as ray_module
from forgetbench.runner.engines.code import code_identity, difference
from forgetbench.runner.engines.ray import RayEngine, _local_copy, _method_files, _run_parcel, _with_local_files
from forgetbench.runner.jobs import PrepareJob
from forgetbench.runner.method_spec import parse_methods
from forgetbench.tasks.task import Task

METHOD = "from dataclasses import dataclass\nfrom forgetbench.methods import Method\n" + (
    "@dataclass(frozen=True, kw_only=True)\nclass Mine(Method):\n    'Returns it.'\n"
    "    def unlearn(self, model, request):\n        return model\n"
)


def test_make_engine_ray_by_address() -> None:
    engine = make_engine("ray:head:6379", None, "auto")
    assert isinstance(engine, RayEngine)
    assert engine.address == "head:6379"
    with pytest.raises(UsageError, match="--workers does not apply to --engine ray"):
        make_engine("ray", 4, "auto")


def test_ray_engine_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'forgetbench\[ray\]'"), RayEngine():
        pass


@pytest.mark.parametrize("given", [{}, {"RAY_ADDRESS": "10.0.0.1:6379"}])
def test_ray_engine_without_address_starts_a_cluster(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    """It connects to no cluster that happens to be on the machine: Ray's file may name one that is long dead."""
    if find_spec("ray") is None:
        skip("ray is not installed")
    import ray

    options: dict[str, Any] = {}

    def init(**chosen: Any) -> None:
        options.update(chosen)
        raise ConnectionError("unreachable")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UsageError, match="No Ray cluster answers at"):
        make_engine("ray", None, "cpu", 1).__enter__()
    assert options.get("address") == (None if given else "local")


def test_difference_of_code_names_both_versions() -> None:
    here = code_identity()
    assert here["forgetbench"].startswith(f"{metadata.version('forgetbench')} (code ")
    assert difference(here, dict(here), "node1:7") == ""
    other = {**here, "torch": "1.0"}
    assert difference(here, other, "node1:7").startswith(
        f"The worker on node1:7 has torch 1.0 instead of {here['torch']}. Install the same versions"
    )


def test_method_files_travel_by_content(make_task: Callable[..., Task], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(METHOD)
    task = make_task("random", "fraction = 0.2")
    specs = parse_methods(["ssd"], [f"{file}:Mine"], task.setting)
    job = PrepareJob(task=task, env=RunConfig(device="cpu").env(), methods=tuple(specs))
    files = _method_files(job)
    assert files == {str(file): METHOD}
    assert _with_local_files(job, files) == job  # the machine has the same file
    file.write_text(METHOD + "# another version\n")
    moved = _with_local_files(job, files)
    copy = Path(_local_copy(str(file), METHOD))
    assert copy != file
    assert copy.read_text() == METHOD
    assert [spec.file for spec in moved.methods] == [None, f"{copy}:Mine"]
    assert [spec.label for spec in moved.methods] == [spec.label for spec in specs]


class FakeRay:
    """A cluster of four cores in this process: a task is done when it is submitted."""

    def __init__(self) -> None:
        self.questions = 0
        self.most = 0
        self.exceptions = SimpleNamespace(
            OutOfMemoryError=type("OutOfMemoryError", (Exception,), {}),
            RayTaskError=type("RayTaskError", (Exception,), {}),
            RayError=type("RayError", (Exception,), {}),
        )

    def cluster_resources(self) -> dict[str, float]:
        self.questions += 1
        return {"CPU": 4.0}

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:  # noqa: ARG002
        self.most = max(self.most, len(references))
        return references[:num_returns], references[num_returns:]

    def get(self, reference: Any, timeout: float | None = None) -> Any:  # noqa: ARG002
        return reference()

    def options(self, **_: Any) -> Any:
        return SimpleNamespace(remote=lambda parcel: lambda: _run_parcel(parcel))


def test_ray_engine_asks_the_cluster_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask for the cluster's size takes milliseconds: not for each job."""
    now = [0.0]
    monkeypatch.setattr(ray_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(ray_module, "_use_one_thread", lambda: None)  # of this process
    engine, cluster = RayEngine(device="cpu"), FakeRay()
    engine._ray, engine._run = cluster, cluster
    done: list[int] = []
    assert engine.map(abs, range(-50, 0), lambda number, _: done.append(number)) == [*range(50, 0, -1)]
    assert sorted(done) == [*range(50)]
    assert cluster.questions == 1
    assert cluster.most == 8  # two for each core
    now[0] = 1.0
    engine.map(abs, [-1], lambda *_: None)
    assert cluster.questions == 2


def test_ray_job_without_memory_is_run_alone() -> None:
    """What ran next to others is run again when they are done; only then the job is to blame."""
    tries: list[int] = []

    def work(job: int) -> int:
        tries.append(job)
        if job == 1:
            raise MemoryError
        return job

    engine, cluster = RayEngine(device="cpu"), FakeRay()
    engine._device, engine._ray, engine._run = "cuda", cluster, cluster  # no thread of this process is limited
    cluster.cluster_resources = lambda: {"CPU": 4.0, "GPU": 2.0}  # type: ignore[method-assign]
    zero, failure, two = engine.map(work, [0, 1, 2], lambda *_: None)
    assert (zero, two, sorted(tries[:3]), tries[3:]) == (0, 2, [0, 1, 2], [1])
    assert (failure.kind, failure.attempts, failure.by_job) == ("machine", 2, True)


def test_check_engine_round_trip_in_this_process(tmp_path: Path) -> None:
    report = check_engine(RunConfig(home=tmp_path, engine="local", device="cpu"))
    assert report.ok
    [machine] = report.machines
    assert machine.versions == code_identity()
    assert machine.hardware
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.system
def test_ray_on_two_nodes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All that needs a cluster is tried on one, which takes a minute to start.

    In the end come all 20 artifacts of a board; its nodes share nothing and keep their artifacts in S3, or share a
    folder until one of them is killed. Slurm is in test_slurm.py.
    """
    if find_spec("obstore") is None:
        skip("obstore is not installed")
    found = in_own_network("support.ray_cluster", tmp_path, s3_server.install())
    assert "error" not in found
    # a job's fault is sorted, and the others go on
    assert found["done"] == [0, 1, 2, 3, 4]
    died = f"die-once:{tmp_path / 'died'}"
    assert found["faults"] == ["quick", ["lost", 2, True], died, ["machine", 2, False], "quick"]
    # an interrupt cancels jobs that never end, and the cluster works on
    assert found["after interrupt"] == ["quick"]
    assert "instead of 0.1. Install the same versions on all machines" in found["refused"]
    # the check reports each machine, and leaves nothing
    assert found["machines"] == 2
    assert found["check"] == [True, ["", ""]]
    assert found["left"] == []
    assert found["no bucket"].startswith("The bucket of s3://absent/forgetbench does not exist, or not in this")
    # boards
    assert min(found["nodes"]) > 0  # both nodes have worked, each with a cache of its own
    assert found["killed"]
    for name in ("bucket", "killed"):
        assert_equal_bits(tmp_path / name, tmp_path_factory)


@pytest.mark.system
def test_board_by_processes_has_the_bits_of_local(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run_board(tmp_path, "--engine", "processes", "--workers", "2")
    assert_equal_bits(tmp_path, tmp_path_factory)


ENDS = {"end": 0, "SIGINT": 130, "SIGKILL": -signal.SIGKILL}
"""How a command ends -> its exit status."""


@pytest.mark.system
def test_ray_leaves_no_process(tmp_path: Path) -> None:
    """The cluster that the engine starts ends with the command, also if the command is interrupted or killed."""

    def left(how: str) -> Any:
        (tmp_path / how).mkdir()
        return in_own_network("support.ray_driver", tmp_path / how, how)

    with ThreadPoolExecutor(len(ENDS)) as pool:
        assert dict(zip(ENDS, pool.map(left, ENDS), strict=True)) == {how: [status, []] for how, status in ENDS.items()}
