"""A Ray cluster of two nodes that share no folder, with a bucket as the store, and what it did, printed as JSON.

Run in a network namespace of its own: ``python -m support.s3_cluster FOLDER PYTHON``; that Python has moto.
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
from forgetbench.runner.config import RunConfig
from forgetbench.runner.engine_check import check_engine
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import run
from forgetbench.store import Store
from support.artifacts import contents, keys_of
from support.ray_cluster import MEMORY
from support.s3_server import BUCKET, serve

TASK, SEEDS, METHODS = "digits/cnn/class", 2, ["finetune", "ssd"]
URL = f"s3://{BUCKET}/forgetbench"
PORT = 5599


def main(folder: Path, moto: str) -> dict[str, Any]:
    """What happened, by name."""
    found, task = dict[str, Any](), load_task(TASK, seeds=SEEDS)

    def run_by(name: str, **options: Any) -> None:
        config = RunConfig(home=folder / name, device="cpu", **options)
        run([task], lambda one: parse_methods(METHODS, [], one.setting), config)

    with serve(moto, PORT) as environment:
        os.environ.update(environment)
        try:
            check_bucket("s3://absent/forgetbench")
        except UsageError as error:
            found["no bucket"] = str(error)
        cluster = Cluster()
        for number in range(2):
            home = {"FORGETBENCH_HOME": str(folder / f"node{number}")}
            options = {"include_dashboard": False} if number == 0 else {}
            cluster.add_node(num_cpus=1, object_store_memory=MEMORY, env_vars=home, **options)
        engine = f"ray:{cluster.address}"
        report = check_engine(RunConfig(home=folder / "driver", engine=engine, device="cpu", store_url=URL))
        found["check"] = [report.ok, [machine.problem for machine in report.machines]]
        found["left"] = [path.name for path in folder.rglob("artifact.json")]
        run_by("driver", engine=engine, store_url=URL)
        cluster.shutdown()
        found["nodes"] = [len(keys_of(Store(folder / f"node{number}" / "store"))) for number in range(2)]
        run_by("local", engine="local")
        local = Store(folder / "local" / "store")
        keys = keys_of(local)
        elsewhere = open_store(folder / "elsewhere", URL)  # a machine that has taken no part
        found["artifacts"] = len(keys)
        found["differ"] = [key for key in keys if contents(local, [key]) != contents(elsewhere, [key])]
    return found


if __name__ == "__main__":
    try:
        result = main(Path(sys.argv[1]), sys.argv[2])
    except ForgetBenchError as error:
        result = {"error": str(error)}
    Path(sys.argv[1], "result.json").write_text(json.dumps(result))
