"""A Ray cluster of two nodes on this machine, and what the engine does on it, printed as JSON.

Each node has a folder of its own for artifacts. Faults of jobs come first, then the board of `support.engine_board`:
with a bucket as the store of machines that share no folder, and with one folder for all and a node that is killed.
All of it is one job of Ray, whose workers import torch once.
Run in a network namespace of its own, so that nothing leaves this machine and no port clashes:
``python -m support.ray_cluster FOLDER PYTHON``; that Python has moto.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from forgetbench import load_task
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.object_store import check_bucket, open_store
from forgetbench.runner.config import NullProgress, ProgressCallback, RunConfig
from forgetbench.runner.engine_check import check_engine
from forgetbench.runner.engines import Failure
from forgetbench.runner.engines import ray as module
from forgetbench.runner.engines.ray import RayEngine
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import run
from forgetbench.store import Store
from support.artifacts import keys_of
from support.engine_board import METHOD, METHOD_FILE, SEEDS, TASK
from support.jobs import work
from support.s3_server import BUCKET, serve

MEMORY = 80 << 20
URL = f"s3://{BUCKET}/forgetbench"
PORT = 5599


class KillNode(NullProgress):
    """Kills a node of a cluster when the first model has been trained."""

    def __init__(self, cluster: Cluster, node: object) -> None:
        self.cluster, self.node, self.killed = cluster, node, False

    def done(self, title: str, *, from_cache: bool) -> None:
        """Kill it with the first original."""
        if title.startswith("original") and not from_cache and not self.killed:
            self.killed = True
            self.cluster.remove_node(self.node, allow_graceful=False)


def faults(address: str, folder: Path) -> dict[str, Any]:
    """Jobs that crash, lose their worker, find no space, are interrupted, or meet other code."""
    found = dict[str, Any]()
    with RayEngine(address, device="cpu", retries=1) as engine:
        jobs = ["quick", "crash", f"die-once:{folder / 'died'}", f"no-space:{folder}", "quick"]
        done: list[int] = []
        outcomes = engine.map(work, jobs, lambda number, _: done.append(number))
        found["done"] = sorted(done)
        found["faults"] = [
            [one.kind, one.attempts, one.by_job] if isinstance(one, Failure) else one for one in outcomes
        ]
        found["machines"] = len(engine.on_each_worker(work, "quick"))
        threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            engine.map(work, ["endless", "endless"], lambda *_: None)
        except KeyboardInterrupt:
            found["after interrupt"] = engine.map(work, ["quick"], lambda *_: None)
        own = module.code_identity
        module.code_identity = lambda: {**own(), "torch": "0.1"}
        [refused] = engine.map(work, ["quick"], lambda *_: None)
        module.code_identity = own
        found["refused"] = str(refused.error) if isinstance(refused, Failure) else ""
    return found


def boards(cluster: Cluster, second: object, folder: Path) -> dict[str, Any]:
    """The board of the engines; its stores are in the folders `bucket` and `killed`."""
    found, task, engine = dict[str, Any](), load_task(TASK, seeds=SEEDS), f"ray:{cluster.address}"

    def run_by(name: str, progress: ProgressCallback, **options: Any) -> None:
        config = RunConfig(home=folder / name, device="cpu", engine=engine, **options)
        run([task], lambda one: parse_methods([METHOD], [METHOD_FILE], one.setting), config, progress)

    try:
        check_bucket("s3://absent/forgetbench")
    except UsageError as error:
        found["no bucket"] = str(error)
    report = check_engine(RunConfig(home=folder / "driver", engine=engine, device="cpu", store_url=URL))
    found["check"] = [report.ok, [machine.problem for machine in report.machines]]
    found["left"] = [path.name for path in folder.rglob("artifact.json")]
    run_by("driver", NullProgress(), store_url=URL)
    found["nodes"] = [len(keys_of(Store(folder / f"node{number}" / "store"))) for number in range(2)]
    kill = KillNode(cluster, second)
    run_by("killed", kill)
    found["killed"] = kill.killed
    bucket = open_store(folder / "bucket" / "store", URL)  # a machine that has taken no part
    for key in keys_of(Store(folder / "killed" / "store")):
        bucket.read(key)
    return found


def main(folder: Path, moto: str) -> dict[str, Any]:
    """What happened, by name."""
    with serve(moto, PORT) as environment:
        os.environ.update(environment)
        cluster, nodes = Cluster(), list[Any]()
        for number in range(2):
            home = {"FORGETBENCH_HOME": str(folder / f"node{number}")}
            options = {"include_dashboard": False} if number == 0 else {}
            nodes.append(cluster.add_node(num_cpus=1, object_store_memory=MEMORY, env_vars=home, **options))
        ray.init(address=cluster.address, log_to_driver=False, logging_level="warning")
        found = faults(cluster.address, folder) | boards(cluster, nodes[1], folder)
        ray.shutdown()
        cluster.shutdown()
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = main(Path(sys.argv[1]), sys.argv[2])
    except ForgetBenchError as error:
        result = {"error": str(error)}
    Path(sys.argv[1], "result.json").write_text(json.dumps(result))
