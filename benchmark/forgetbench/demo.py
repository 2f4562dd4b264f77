"""The demo: two tasks on embedded data, and a local leaderboard that receives the results."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile

from forgetbench.api.board import BoardResult
from forgetbench.api.evaluation import evaluate_tasks
from forgetbench.api.leaderboard import submit
from forgetbench.api.tasks import load_task
from forgetbench.errors import ForgetBenchError
from forgetbench.leaderboard.admin import create_token, install_bundle
from forgetbench.leaderboard.client.http import InYourEntryError
from forgetbench.leaderboard.settings import Settings
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.display import write_display
from forgetbench.store import home, write_atomically

TASKS = ("cmu-faces/cnn/class", "cmu-faces/vit/class")
METHODS = ("finetune", "gs-lora", "iau", "random-label", "scrub", "ssd", "no-op", "collapse", "relabelled")
START_SECONDS = 60.0
"""Time for the server to start; it takes a few seconds on an idle machine."""


def run_demo(config: RunConfig, progress: ProgressCallback, log: Callable[[str], None]) -> list[BoardResult]:
    """Run the demo's tasks, post every run to the local leaderboard, and return the boards.

    Args:
        config: Device (the CPU if it is ``auto``), worker processes and folders.
        progress: Progress callback.
        log: Receives one line for each posted run.

    Raises:
        ForgetBenchError: A job or the server failed, or the server's scores differ from the local ones.
    """
    chosen = replace(config, device="cpu") if config.device == "auto" else config
    tasks = [load_task(name) for name in TASKS]
    boards = evaluate_tasks(METHODS, tasks, config=chosen, progress=progress)
    for task, board in zip(tasks, boards, strict=True):
        write_display(board.reference_folder, task, chosen)
    with local_leaderboard(*boards, folder=chosen.home) as server:
        log(f"posting to a local leaderboard at {server.url}")
        for board in boards:
            for run in board.completed_runs:
                log(f"  {board.task}  {run.name}: {_post(run, server)}")
    return boards


def _post(run: Path, server: LocalServer) -> str:
    """Post a run; returns what became of it. An earlier version may have posted the same answers."""
    try:
        return submit(run, server.url, server.token, progress=False).detail
    except InYourEntryError:
        return "is on the board since an earlier demo"


@dataclass(frozen=True)
class LocalServer:
    """A leaderboard that runs on this machine."""

    url: str
    """Its address."""
    token: str
    """A token that may submit."""


@contextmanager
def local_leaderboard(*boards: BoardResult, folder: Path | None = None) -> Iterator[LocalServer]:
    """Run a leaderboard in a process of its own, on a free port of this machine, until the block ends.

    Args:
        *boards: Boards whose reference models are installed, so that runs of their tasks can be submitted.
        folder: ForgetBench's folder, which holds the server's; ``FORGETBENCH_HOME`` or the user's data folder by
            default. The server's state is kept there.

    Raises:
        ForgetBenchError: The server did not start.

    Example:
        >>> with local_leaderboard(board) as server:  # doctest: +SKIP
        ...     submit(board["ssd"], server.url, server.token, dry_run=True)
    """
    root = folder or home()
    settings = Settings(server_folder=root / "leaderboard")
    for board in boards:
        install_bundle(settings, board.reference_folder)
    token = _token(settings)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [sys.executable, "-m", "forgetbench", "serve", "--port", str(port)]
    with TemporaryFile() as log:
        environment = {**os.environ, "FORGETBENCH_HOME": str(root), "PYTHONSAFEPATH": "1"}
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)  # noqa: S603 - our interpreter
        try:
            _wait_for_server(port, process, START_SECONDS)
            yield LocalServer(f"http://127.0.0.1:{port}", token)
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            process.terminate()
            process.wait(30)


def _token(settings: Settings) -> str:
    """The demo's token, whose runs are the operator's own.

    It is stored in a private file, so that a run that is posted twice counts as one submission.
    """
    path = settings.server_folder / "demo-token"
    if not path.is_file():
        write_atomically(path, create_token(settings, "demo", ("submit", "run")).encode())
        path.chmod(0o600)
    return path.read_text(encoding="utf-8")


def _wait_for_server(port: int, process: subprocess.Popen[bytes], seconds: float) -> None:
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise ForgetBenchError("The local leaderboard did not start; its output is shown above.")
