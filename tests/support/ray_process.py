"""Scripts that start a Ray cluster, in a network namespace of their own: nothing leaves this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shlex import join
from typing import Any

from support import skip


def in_own_network(module: str, folder: Path, *words: str) -> Any:
    """Run ``python -m MODULE FOLDER WORDS...`` and return what it wrote into result.json in the folder."""
    if find_spec("ray") is None:
        skip("ray is not installed")
    unshare = ["unshare", "-n", "-p", "-f", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], check=False).returncode:
        skip("network namespaces need root")
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "300",  # for a machine that has other work
        "RAY_gcs_server_port_wait_time_s": "300",
        "RAY_NUM_REDIS_GET_RETRIES": "300",
        "RAY_worker_niceness": "0",  # the default of 15 waits for all other tests
    }
    script = f"ip link set lo up; exec {join([sys.executable, '-m', module, str(folder), *words])}"
    done = subprocess.run(
        ["timeout", "-s", "KILL", "1800", *unshare, "bash", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    result = folder / "result.json"
    assert result.is_file(), done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads(result.read_text(encoding="utf-8"))
