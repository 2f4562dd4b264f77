"""The Ray engine on a cluster of two nodes, in a network namespace of its own: nothing leaves this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, write_task: Callable[..., Path]) -> tuple[Path, dict[str, Any]]:
    """The folder of runs, and what happened on a cluster of two nodes, one of which was killed in the end."""
    folder = tmp_path_factory.mktemp("ray")
    task = write_task("random", "fraction = 0.2", seeds=2)
    return folder, in_own_network("support.ray_cluster", folder, str(task))


@pytest.mark.system
def test_ray_faults_are_sorted_and_others_go_on(cluster: tuple[Path, dict[str, Any]]) -> None:
    folder, found = cluster
    assert "error" not in found
    assert found["done"] == [0, 1, 2, 3, 4]
    died = f"die-once:{folder / 'died'}"
    assert found["faults"] == ["quick", ["lost", 2, True], died, ["machine", 2, False], "quick"]


@pytest.mark.system
def test_ray_interrupt_cancels_and_cluster_works_on(cluster: tuple[Path, dict[str, Any]]) -> None:
    assert cluster[1]["after interrupt"] == ["quick"]


@pytest.mark.system
def test_ray_worker_with_other_code_refuses(cluster: tuple[Path, dict[str, Any]]) -> None:
    assert "instead of 0.1. Install the same versions on all machines" in cluster[1]["refused"]


@pytest.mark.system
def test_ray_engine_check_reports_each_machine(cluster: tuple[Path, dict[str, Any]]) -> None:
    assert cluster[1]["machines"] == 2
    assert cluster[1]["check"] == [True, 2, ["", ""]]


@pytest.mark.system
def test_ray_killed_node_gives_equal_bits(cluster: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = cluster
    arrays = {
        name: {
            str(path.relative_to(folder / name)): path.read_bytes()
            for part in ("packs", "runs")
            for path in (folder / name / part).rglob("*.npz")
        }
        for name in ("local", "ray")
    }
    assert len(arrays["local"]) >= 10
    assert arrays["ray"] == arrays["local"]


@pytest.mark.system
def test_every_engine_gives_equal_bits(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All 20 artifacts of a board by local, processes, and Ray on two nodes; Slurm is in test_slurm.py.

    The nodes of Ray share a folder, or one of them is killed, or they share nothing and keep their artifacts in S3.
    """
    if find_spec("obstore") is None:
        skip("obstore is not installed")
    found = in_own_network("support.board_cluster", tmp_path, s3_server.install())
    assert "error" not in found
    assert found["no bucket"].startswith("The bucket of s3://absent/forgetbench does not exist, or not in this")
    assert found["check"] == [True, ["", ""]]
    assert found["left"] == []
    assert min(found["nodes"]) > 0  # both nodes have worked, each with a cache of its own
    assert found["killed"]
    run_board(tmp_path / "processes", "--engine", "processes", "--workers", "2")
    for name in ("processes", "shared", "killed", "bucket"):
        assert_equal_bits(tmp_path / name, tmp_path_factory)


@pytest.mark.system
def test_ray_leaves_no_process(tmp_path: Path, write_task: Callable[..., Path]) -> None:
    """The cluster that the engine starts ends with the command, also if the command is interrupted or killed."""
    task = write_task("random", "fraction = 0.2", seeds=2)
    found = in_own_network("support.ray_driver", tmp_path, str(task))
    assert found == {"end": [0, []], "SIGINT": [130, []], "SIGKILL": [-9, []]}
