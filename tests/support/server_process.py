"""The leaderboard in processes of its own, observed through its log."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from typing import Any

import httpx2
import psutil

from forgetbench.leaderboard.settings import Settings
from support.concurrency import LIMIT

_SERVE = (
    "import sys; from forgetbench.leaderboard.serve import serve;"
    "from forgetbench.leaderboard.settings import Settings;"
    "serve(Settings(), port=int(sys.argv[1]), with_worker=sys.argv[2] == 'worker')"
)


def serve_command(port: int, *, worker: bool) -> list[str]:
    """Command line of a server; port 0 lets it choose a free one."""
    return [sys.executable, "-c", _SERVE, str(port), "worker" if worker else "none"]


class ServerProcess:
    """A server and its scoring worker; tests wait for records of its log, not for a time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = ""
        self.http = httpx2.Client(timeout=LIMIT)
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self, *, worker: bool, **settings: object) -> None:
        """Start the server, and wait until it accepts requests."""
        environment = {
            **os.environ,
            "FORGETBENCH_SERVER_FOLDER": str(self.settings.server_folder),
            "FORGETBENCH_DATABASE_URL": self.settings.database_url,
            "FORGETBENCH_LEASE_SECONDS": "1",
            "FORGETBENCH_POLL_SECONDS": "0.05",
            "OMP_NUM_THREADS": "1",
            **{f"FORGETBENCH_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.log = []
        command = serve_command(0, worker=worker)
        self._process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, args=[self._process, self.log], daemon=True)
        self._reader.start()
        message = self.wait_for_log("Uvicorn running on")["message"]
        found = re.search(r"http://[\d.:]+", message)
        assert found is not None, message
        self.address = found[0]

    def _read(self, process: subprocess.Popen[str], log: list[str]) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for line in stream:
                with self._changed:
                    log.append(line)
                    self._changed.notify_all()
        with self._changed:
            log.append("")  # end of the log: all processes that write to it have ended
            self._changed.notify_all()

    def wait_for_log(self, text: str) -> dict[str, Any]:
        """Wait for a record of the current log whose message contains a text."""

        def find() -> str | None:
            return next((line for line in self.log if text in line), None)

        with self._changed:
            self._changed.wait_for(lambda: find() is not None or "" in self.log, LIMIT)
            line = find()
        assert line is not None, f"{text!r} is not in the log:\n" + "".join(self.log)
        record: dict[str, Any] = json.loads(line)
        return record

    @property
    def pid(self) -> int:
        """Process id of the web server."""
        assert self._process is not None
        return self._process.pid

    def worker_process(self) -> psutil.Process:
        """The current scoring worker."""
        [worker] = psutil.Process(self.pid).children()
        return worker

    def get(self, path: str, **options: Any) -> httpx2.Response:
        """GET a path of the server."""
        return self.http.get(f"{self.address}{path}", **options)

    def terminate(self) -> None:
        """Ask the server to stop (SIGTERM)."""
        assert self._process is not None
        self._process.terminate()

    def kill(self) -> None:
        """Kill the server (SIGKILL); its worker ends by itself."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(LIMIT)

    def wait(self) -> int:
        """Wait for the end of the server and of its log; returns the exit status."""
        assert self._process is not None
        assert self._reader is not None
        status = self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        assert not self._reader.is_alive(), "a process of the server did not end"
        return status

    def stop(self) -> int:
        """Stop the server (SIGTERM); returns the exit status."""
        self.terminate()
        return self.wait()

    def close(self) -> None:
        """End everything, whatever the test left running."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        if self._reader is not None:
            self._reader.join(LIMIT)
        self.http.close()
