"""A Ray cluster of two nodes on this machine, and what the engine does on it, printed as JSON.

Run in a network namespace of its own, so that nothing leaves this machine and no port clashes:
``python -m support.ray_cluster FOLDER TASK``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from forgetbench.errors import ForgetBenchError
from forgetbench.runner.config import NullProgress, RunConfig
from forgetbench.runner.engine_check import check_engine
from forgetbench.runner.engines import Failure
from forgetbench.runner.engines import ray as module
from forgetbench.runner.engines.ray import RayEngine
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import run
from forgetbench.tasks.task import read_task
from support.jobs import work

MEMORY = 80 << 20
METHOD = """
import copy
from dataclasses import dataclass
from forgetbench.methods import Method

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    "Returns a copy."

    def unlearn(self, model, request):
        return copy.deepcopy(model)
"""


class KillNode(NullProgress):
    """Kills a node of a cluster when the first model has been trained."""

    def __init__(self, cluster: Cluster, node: object) -> None:
        self.cluster, self.node, self.killed = cluster, node, False

    def done(self, title: str, *, from_cache: bool) -> None:
        """Kill it with the first original."""
        if title.startswith("original") and not from_cache and not self.killed:
            self.killed = True
            self.cluster.remove_node(self.node, allow_graceful=False)


def main(folder: Path, task_file: str) -> dict[str, Any]:
    """What happened, by name."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": MEMORY},
    )
    second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    address, found = cluster.address, dict[str, Any]()
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
    report = check_engine(RunConfig(home=folder / "ray", engine=f"ray:{address}", device="cpu"))
    found["check"] = [report.ok, len(report.machines), [machine.problem for machine in report.machines]]
    method = folder / "mine.py"
    method.write_text(METHOD)
    task = read_task(task_file)
    for name, progress in (("local", NullProgress()), ("ray", KillNode(cluster, second))):
        config = RunConfig(home=folder / name, engine="local" if name == "local" else f"ray:{address}", device="cpu")
        run([task], lambda one: parse_methods(["finetune:epochs=1"], [f"{method}:Mine"], one.setting), config, progress)
    cluster.shutdown()
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = main(Path(sys.argv[1]), sys.argv[2])
    except ForgetBenchError as error:
        result = {"error": str(error)}
    Path(sys.argv[1], "result.json").write_text(json.dumps(result))
