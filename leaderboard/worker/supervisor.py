"""Supervisor of the processes that `serve` starts, the scoring worker and the runner: restarted when they end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from typing import Literal

from forgetbench.leaderboard.settings import Settings

log = logging.getLogger("forgetbench.server")
STOP_SECONDS = 15.0
"""Time to finish the current job before the process is killed."""
MIN_PAUSE, MAX_PAUSE = 1.0, 30.0
"""Seconds before a restart; the pause doubles each time that the process ended soon."""
STABLE_SECONDS = 60.0
"""A process that ran this long did not fail at its start: the pause is reset."""
UNAVAILABLE = 3
"""Exit status of a process that cannot work on this machine; it is not started again."""
_CODE = {
    "scoring worker": "from forgetbench.leaderboard.serve import run_supervised_worker; run_supervised_worker()",
    "runner": "from forgetbench.verification.runner import run_supervised_runner; run_supervised_runner()",
}
"""Kind of process -> what it runs."""


class ProcessSupervisor:
    """Starts a process and restarts it, in a thread, until `stop`.

    Args:
        settings: Configuration of the server.
        kind: What to start.
    """

    def __init__(self, settings: Settings, kind: Literal["scoring worker", "runner"]) -> None:
        self._settings, self._kind = settings, kind
        self._stopping = threading.Event()
        self._process_lock = threading.Lock()
        self._process = self._start()
        self._thread = threading.Thread(target=self._supervise, name=f"{kind} supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the process finish its current job, and end it."""
        with self._process_lock:
            self._stopping.set()
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # no loss: the lease expires, and the job runs after the next start
            self._process.wait()
        self._thread.join()

    def _supervise(self) -> None:
        pause = MIN_PAUSE
        while True:
            started = time.monotonic()
            status = self._process.wait()
            if self._stopping.is_set() or status == UNAVAILABLE:
                return
            if time.monotonic() - started > STABLE_SECONDS:
                pause = MIN_PAUSE
            log.error("the %s ended with status %d; restarting it in %.0f s", self._kind, status, pause)
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, MAX_PAUSE)
            with self._process_lock:
                if self._stopping.is_set():
                    return
                self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", _CODE[self._kind]], stdin=subprocess.PIPE)  # noqa: S603 - our interpreter
        message = {"parent": os.getpid(), "settings": self._settings.model_dump(mode="json")}
        if process.stdin is not None:  # through a pipe, since arguments are public and the URL may hold a password
            process.stdin.write(json.dumps(message).encode())
            process.stdin.close()
        return process
