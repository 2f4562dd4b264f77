"""The board of `support.engine_board` on Ray clusters of two nodes, and what happened, printed as JSON.

It is run with one folder for all machines, with a node that is killed after the first model, and with a bucket as the
store of machines that share no folder. Run in a network namespace of its own:
``python -m support.board_cluster FOLDER PYTHON``; that Python has moto.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from forgetbench import load_task
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.object_store import check_bucket, open_store
from forgetbench.runner.config import NullProgress, ProgressCallback, RunConfig
from forgetbench.runner.engine_check import check_engine
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import run
from forgetbench.store import Store
from support.artifacts import keys_of
from support.engine_board import METHODS, SEEDS, TASK
from support.ray_cluster import MEMORY, KillNode
from support.s3_server import BUCKET, serve

URL = f"s3://{BUCKET}/forgetbench"
PORT = 5599


def main(folder: Path, moto: str) -> dict[str, Any]:
    """What happened, by name; the stores are in the folders `shared`, `killed` and `bucket`."""
    found, task = dict[str, Any](), load_task(TASK, seeds=SEEDS)

    def run_by(name: str, progress: ProgressCallback | None = None, **options: Any) -> None:
        config = RunConfig(home=folder / name, device="cpu", engine=engine, **options)
        run([task], lambda one: parse_methods(METHODS, [], one.setting), config, progress or NullProgress())

    with serve(moto, PORT) as environment:
        os.environ.update(environment)
        try:
            check_bucket("s3://absent/forgetbench")
        except UsageError as error:
            found["no bucket"] = str(error)
        cluster, nodes = Cluster(), list[Any]()
        for number in range(2):
            home = {"FORGETBENCH_HOME": str(folder / f"node{number}")}
            options = {"include_dashboard": False} if number == 0 else {}
            nodes.append(cluster.add_node(num_cpus=1, object_store_memory=MEMORY, env_vars=home, **options))
        engine = f"ray:{cluster.address}"
        report = check_engine(RunConfig(home=folder / "driver", engine=engine, device="cpu", store_url=URL))
        found["check"] = [report.ok, [machine.problem for machine in report.machines]]
        found["left"] = [path.name for path in folder.rglob("artifact.json")]
        run_by("driver", store_url=URL)
        found["nodes"] = [len(keys_of(Store(folder / f"node{number}" / "store"))) for number in range(2)]
        run_by("shared")
        kill = KillNode(cluster, nodes[1])
        run_by("killed", kill)
        found["killed"] = kill.killed
        cluster.shutdown()
        bucket = open_store(folder / "bucket" / "store", URL)  # a machine that has taken no part
        for key in keys_of(Store(folder / "shared" / "store")):
            bucket.read(key)
    return found


if __name__ == "__main__":
    try:
        result = main(Path(sys.argv[1]), sys.argv[2])
    except ForgetBenchError as error:
        result = {"error": str(error)}
    Path(sys.argv[1], "result.json").write_text(json.dumps(result))
