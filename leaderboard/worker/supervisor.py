"""The scoring process that ``serve`` starts beside the web process, and starts again whenever it ends."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time

from forgetbench.leaderboard.settings import Settings

log = logging.getLogger("forgetbench.server")
STOP_SECONDS = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before a process that ended is started again: twice as long each time that it ended soon."""
SETTLED_SECONDS = 60.0
"""A process that ran for so long did not fail at its start."""
_CODE = "from forgetbench.leaderboard.serve import worker_process; worker_process()"


class ScoringProcess:
    """A worker in a process of its own, watched by a thread until ``stop``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._changing = threading.Lock()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name="scoring process", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Let it finish the job at hand, and end."""
        with self._changing:
            self._stopping.set()
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # nothing is lost: its lease runs out, and the job is done after the next start
            self._process.wait()
        self._watcher.join()

    def _watch(self) -> None:
        pause = FIRST_PAUSE
        while True:
            started = time.monotonic()
            status = self._process.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - started > SETTLED_SECONDS:
                pause = FIRST_PAUSE
            log.error("the scoring process ended with status %d; it is started again in %.0f s", status, pause)
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
            with self._changing:
                if self._stopping.is_set():
                    return
                self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", _CODE], stdin=subprocess.PIPE)  # noqa: S603 - our interpreter
        told = {"parent": os.getpid(), "settings": self._settings.model_dump(mode="json")}
        if process.stdin is not None:
            process.stdin.write(json.dumps(told).encode())  # not in its arguments: a database's password may be in it
            process.stdin.close()
        return process
