"""The Ray engine on a cluster of two nodes, in a network namespace of its own: nothing leaves this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support import skip

from forgetbench.errors import UsageError
from forgetbench.runner.config import RunConfig
from forgetbench.runner.engine_check import check_engine
from forgetbench.runner.engines import make_engine
from forgetbench.runner.engines.code import code_identity, difference
from forgetbench.runner.engines.ray import RayEngine, _local_copy, _method_files, _with_local_files
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
    if find_spec("ray") is None:
        skip("ray is not installed")
    unshare = ["unshare", "-n", "-p", "-f", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], check=False).returncode:
        skip("network namespaces need root")
    folder = tmp_path_factory.mktemp("ray")
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "300",
    }
    task = write_task("random", "fraction = 0.2", seeds=2)
    script = f"ip link set lo up; exec {sys.executable} -m support.ray_cluster {folder} {task}"
    words = ["timeout", "-s", "KILL", "600", *unshare, "bash", "-c", script]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (folder / "result.json").is_file(), done.stdout[-3000:] + done.stderr[-6000:]
    return folder, json.loads((folder / "result.json").read_text())


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
