"""A board's processes: web server, scoring worker, and a runner with made-up methods in place of the sandbox.

They are forked from one process that has imported everything, so that tests can kill and start them in no time.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn

from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.db.session import open_database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import seals
from forgetbench.leaderboard.submissions.seals import BoardDraws
from forgetbench.leaderboard.web.app import create_app
from forgetbench.leaderboard.worker.worker import Worker
from forgetbench.runner.config import RunConfig
from forgetbench.verification import runner as runner_module
from forgetbench.verification.limits import Limits
from forgetbench.verification.rerun import MeasuredCost, Rerun
from forgetbench.verification.sandbox import PACKAGE, TrustedProcess
from support.concurrency import LIMIT
from support.leaderboard import TASK, World


def worlds() -> dict[str, World]:
    """The made-up task on public and on sealed draws."""
    return {"public": World(TASK), "sealed": World(f"{TASK}/sealed-0123456789ab", seed=11)}


def make_up(folder: Path, seconds: float):
    """A replacement of `run_method`: writes a run whose logits follow from the hyper-parameter ``number``."""

    def run(task, code, label, sandbox, limits, config, progress):
        progress("model 1 of 6")
        time.sleep(seconds)
        number = code.parameters["number"]
        target = folder / f"{number}-{task.draws}-{time.monotonic_ns()}"
        method = {"source": code.source, "needs": ("forget",)}
        made = task.world.write_run(target, f"mine-{number}", start=300 + 20 * number, method=method)
        measured = MeasuredCost(
            sandbox="fake",
            read=("forget",),
            requested_network=False,
            flops=0.04,
            time=0.02,
            seconds=1.5,
            cpu_seconds=1.0,
            memory=2**20,
        )
        return Rerun(read_run(made), measured)

    return run


def main() -> None:
    """Start a process for each line of standard input, which names its role, and write its process id.

    The first line has the settings. All web servers share one listening socket, whose port is written first.
    """
    message = json.loads(sys.stdin.readline())
    settings = Settings.model_validate(message["settings"])
    draws = {
        kind: BoardDraws(SimpleNamespace(draws=kind, world=world), SimpleNamespace(folder=None))
        for kind, world in worlds().items()
    }
    seals.board_draws = lambda *_: draws
    runner_module.import_originals = lambda *_: None
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # killed processes leave no zombies
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        _answer(listener.getsockname()[1])
        for role in sys.stdin:
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _ROLES[role.strip()](settings, message, listener)
                os._exit(0)
            _answer(pid)


def _answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _serve(settings: Settings, _message: dict[str, Any], listener: socket.socket) -> None:
    config = uvicorn.Config(create_app(settings), log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def _score(settings: Settings, _message: dict[str, Any], _listener: socket.socket) -> None:
    with open_database(settings) as database:
        Worker(settings, database).run()


def _run_methods(settings: Settings, message: dict[str, Any], _listener: socket.socket) -> None:
    run = make_up(Path(message["folder"]), message["seconds"])
    with open_database(settings) as database:
        config = RunConfig(device="cpu", home=settings.runner)
        runner_module.Runner(settings, database, TrustedProcess(), Limits(), config, run=run).run()


_ROLES = {"server": _serve, "worker": _score, "runner": _run_methods}


class BoardProcesses:
    """Starts and kills the processes of a board.

    Args:
        settings: Configuration of the server.
        folder: Where made-up runs are written.
        seconds: How long a made-up method takes.
    """

    def __init__(self, settings: Settings, folder: Path, seconds: float) -> None:
        folder.mkdir()
        path = os.pathsep.join([str(PACKAGE.parent), str(Path(__file__).parents[1])])
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "support.board_processes"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        message = {"settings": settings.model_dump(mode="json"), "folder": str(folder), "seconds": seconds}
        self._running: dict[str, int] = {}
        self.address = f"http://127.0.0.1:{self._ask(json.dumps(message))}"

    def _ask(self, line: str) -> int:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(f"{line}\n")
        self._nursery.stdin.flush()
        return int(self._nursery.stdout.readline())

    def start(self, role: str) -> None:
        """Start the process of a role: server, worker or runner."""
        self._running[role] = self._ask(role)

    def kill(self, role: str) -> None:
        """Kill the process of a role (SIGKILL)."""
        os.kill(self._running.pop(role), signal.SIGKILL)

    def check_running(self) -> None:
        """Raise ``ProcessLookupError`` if a process ended by itself."""
        for pid in self._running.values():
            os.kill(pid, 0)

    def close(self) -> None:
        """Kill everything."""
        for role in list(self._running):
            self.kill(role)
        self._nursery.kill()
        self._nursery.wait(LIMIT)
        for stream in (self._nursery.stdin, self._nursery.stdout):
            assert stream is not None
            stream.close()


if __name__ == "__main__":
    main()
