"""Measures the time from `submit` to a verified rank on a sealed board, by the command line alone.

    python benchmarks/time_to_rank.py digits/cnn/class [--seeds 6] [--home FOLDER] [--method FILE.py:CLASS]

The sealed board is built first, if the folder does not have it; then a server with worker and runner is started, and a
method is submitted with `--remote`. For each submission it prints wall time, and processor time of server, worker and
runner, in minutes. What sandboxes use is not in it: the cost of a row has that of one call. The first submission also
measures retraining, as the runner does once for a task.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

EXAMPLE = Path(__file__).parents[1] / "examples" / "my_method.py"
POLL_SECONDS = 2.0


def command(home: Path, *words: str, token: str = "") -> str:
    """Standard output of a command of the suite.

    Raises:
        SystemExit: It failed; its message is printed.
    """
    environment = {**os.environ, "FORGETBENCH_HOME": str(home), "FORGETBENCH_TOKEN": token}
    done = subprocess.run(
        [sys.executable, "-m", "forgetbench", *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"forgetbench {' '.join(words)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def processor_seconds(root: psutil.Process) -> float:
    """Processor time of a process, its descendants, and those that they have waited for."""
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def serve(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server with worker and runner; returns its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [sys.executable, "-m", "forgetbench", "serve", "--port", str(port)]
    with (home / "serve.log").open("wb") as log:
        server = subprocess.Popen(words, env={**os.environ, "FORGETBENCH_HOME": str(home)}, stdout=log, stderr=log)
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"http://127.0.0.1:{port}"
        time.sleep(0.2)
    sys.exit(f"The server did not start; see {home / 'serve.log'}.")


def wait_for_rank(home: Path, entry: str, address: str, token: str) -> str:
    """Poll until an entry is verified and ranked; returns what the command says of it."""
    while True:
        found = json.loads(command(home, "submission", entry, "--server", address, "--json", token=token))
        if found["tier"] == "verified" and (found["rank"] is not None or found["reasons"]):
            return command(home, "submission", entry, "--server", address, token=token).splitlines()[0]
        if found["state"] == "rejected":
            sys.exit(f"rejected: {found['note']}")
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Build the board, submit, and print the times."""
    parser = argparse.ArgumentParser(description="Time from submit to a verified rank.")
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--home", type=Path, help="folder that is kept (default: a temporary one)")
    parser.add_argument("--method", action="append", help="FILE.py:CLASS or NAME; can be repeated")
    given = parser.parse_args()
    methods = given.method or [f"{EXAMPLE}:NoisyFineTune", "ssd"]
    with TemporaryDirectory(prefix="forgetbench-") as temporary:
        home = (given.home or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        if not any((home / "leaderboard" / "packs").glob("*/seal.json")):
            started = time.perf_counter()
            command(home, "pack", "build", given.task, "--seeds", str(given.seeds), "--install")
            print(f"{given.task}: sealed board built in {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
        token = command(home, "admin", "token", "create", f"Tester {os.getpid()}").split()[0]
        server, address = serve(home)
        try:
            root = psutil.Process(server.pid)
            for method in methods:
                started, before = time.perf_counter(), processor_seconds(root)
                words = ["submit", method, "--task", given.task, "--remote", "--yes", "--server", address]
                [entry] = re.findall(rf"{address}/entries/(\w+)", command(home, *words, token=token))
                said = wait_for_rank(home, entry, address, token)
                wall, used = time.perf_counter() - started, processor_seconds(root) - before
                load = os.getloadavg()[0]
                print(f"{method}: {wall / 60:.1f} minutes, {used / 60:.1f} of processor time (load {load:.0f}); {said}")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
