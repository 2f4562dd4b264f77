"""Start the processes of a leaderboard for measurements."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import httpx2
import psutil

from forgetbench.leaderboard.settings import Settings

_SERVE = (
    "import sys; from forgetbench.leaderboard.serve import serve;"
    "from forgetbench.leaderboard.settings import Settings;"
    "serve(Settings(), port=int(sys.argv[1]), with_worker=sys.argv[2] == 'worker')"
)
_WORK = (
    "from forgetbench.leaderboard.serve import run_worker;"
    "from forgetbench.leaderboard.settings import Settings; run_worker(Settings())"
)


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_server(
    settings: Settings, port: int, *, worker: bool = False, quiet: bool = False
) -> subprocess.Popen[bytes]:
    """Start `serve` in a separate process; return when it is ready, and print how long that took."""
    words = [sys.executable, "-c", _SERVE, str(port), "worker" if worker else "none"]
    started = time.monotonic()
    process = subprocess.Popen(words, env=_environment(settings), stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                break
        except httpx2.TransportError:
            time.sleep(0.02)
    used = sum(psutil.Process(process.pid).cpu_times()[:2])
    if not quiet:
        print(f"started in {time.monotonic() - started:.2f} s, {used:.2f} s of work")
    return process


def start_worker(settings: Settings) -> subprocess.Popen[bytes]:
    """Start a scoring worker only."""
    return subprocess.Popen([sys.executable, "-c", _WORK], env=_environment(settings), stderr=subprocess.DEVNULL)


def _environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "FORGETBENCH_SERVER_FOLDER": str(settings.server_folder),
        "FORGETBENCH_DATABASE_URL": settings.database_url,
        "FORGETBENCH_READS_PER_MINUTE": "1000000",
        "FORGETBENCH_WRITES_PER_MINUTE": "1000000",
        "FORGETBENCH_DAILY_SUBMISSIONS": "100000",
        "FORGETBENCH_LEASE_SECONDS": "3",
    }
