"""The main job on embedded data: two tasks, the first methods, and a leaderboard of one's own that receives them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.reference import ReferenceManifest
from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.admin import create_token, install_bundle
from forgetbench.leaderboard.client.submit import submit
from forgetbench.leaderboard.settings import Settings
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import run
from forgetbench.scoring.scorer import RankedRuns, rank_runs
from forgetbench.store import write_atomically
from forgetbench.tasks.task import read_task

TASKS = ("faces/cnn/identity", "digits/cnn/mislabelled-20")
METHODS = ("finetune", "gradient-ascent", "neggrad-plus", "random-label", "ssd", "sham", "collapse", "relabelled")
START_SECONDS = 60.0


def run_demo(
    options: RunConfig, watcher: ProgressCallback, say: Callable[[str], None]
) -> list[tuple[RankedRuns, ReferenceManifest]]:
    """Run the demo's tasks, post every run to the local leaderboard, and give the boards back.

    Raises:
        ForgetBenchError: A job or the server failed, or the server's scores are not the local ones.
    """
    tasks = [read_task(name) for name in TASKS]
    done = run(tasks, lambda task: parse_methods(METHODS, (), task.network.name), options, watcher)
    settings = Settings(server_folder=options.home / "leaderboard")
    for task_run in done:
        if task_run.reference is not None:
            install_bundle(settings, task_run.reference.folder)
    token = _token(settings)
    with _server(options.home) as address:
        say(f"posting to a local leaderboard at {address}")
        for task_run in done:
            for folder in task_run.runs:
                if read_run(folder).manifest.status == "ok":
                    verdict = submit(folder, address, token)
                    say(f"  {verdict.task}  {folder.name}: {verdict.detail}")
    standings = []
    for task_run in done:
        runs = [read_run(folder) for folder in task_run.runs]
        judge = options.results.scorer_of(runs[0].manifest)
        standings.append((rank_runs(judge, runs), judge.pack.card))
    return standings


def _token(settings: Settings) -> str:
    """The demo's own token, kept in a private file, so that the same run posted again is one submission."""
    path = settings.server_folder / "demo-token"
    if not path.is_file():
        write_atomically(path, create_token(settings, "demo").encode())
        path.chmod(0o600)
    return path.read_text(encoding="utf-8")


@contextmanager
def _server(home: Path) -> Iterator[str]:
    """A server in a process of its own on a free port of this machine, until the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [sys.executable, "-m", "forgetbench", "serve", "--port", str(port)]
    with TemporaryFile() as log:
        environment = {**os.environ, "FORGETBENCH_HOME": str(home), "PYTHONSAFEPATH": "1"}
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)  # noqa: S603 - our interpreter
        try:
            _wait(port, process, START_SECONDS)
            yield f"http://127.0.0.1:{port}"
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            process.terminate()
            process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes], seconds: float) -> None:
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise ForgetBenchError("The demo's leaderboard did not start; what it said stands above.")
