"""What goes to a leaderboard: a run, a method's file that is run first, or logits that were made elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.reference import read_pack
from forgetbench.evidence.run import read_run
from forgetbench.importers.logits import is_elsewhere, make_run
from forgetbench.leaderboard.client.http import LeaderboardClient
from forgetbench.leaderboard.client.submit import pull_bundle
from forgetbench.remote.pull import bring
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.method_spec import choose
from forgetbench.runner.results import Results
from forgetbench.runner.run import run
from forgetbench.tasks.task import read_task

_METHOD_FILE = re.compile(r".+\.py(:.*)?", re.DOTALL)


def find_run(what: str, server: str, task: str | None, options: RunConfig, watcher: ProgressCallback) -> Path:
    """The run that is to be submitted: a folder as it is, a method's file run first, or logits made a run.

    Args:
        what: A folder, or ``FILE.py:CLASS[:parameter=value,...]``.
        server: The leaderboard's address.
        task: The board, where ``what`` is no run, which names it itself.
        options: Where and how a method is run.
        watcher: Is told how far the run is.

    Raises:
        UsageError: The call, the file or the token is wrong; found before anything is trained.
        ForgetBenchError: The method failed, or the server cannot be reached.
    """
    folder = Path(what)
    if _METHOD_FILE.fullmatch(what) and not folder.is_dir():
        return _run_first(what, server, _named(task, what), options, watcher)
    if is_elsewhere(folder):
        return _gather_first(folder, server, _named(task, what), options)
    return folder


def _named(task: str | None, what: str) -> str:
    if task is None:
        raise UsageError(f"{what} is no run, which would name its task: say which board it is for, with --task.")
    return task


def _run_first(what: str, server: str, name: str, options: RunConfig, watcher: ProgressCallback) -> Path:
    task = read_task(name)
    choose([], [what], task.network.name)  # the file and its parameters are found to be good before anything is sent
    with LeaderboardClient(server) as client:
        client.whoami()
        task, options = bring(name, server, options)
        [done] = run([task], lambda one: choose([], [what], one.network.name), options, watcher)
    manifest = read_run(done.runs[0]).manifest
    if manifest.status != "ok":
        raise ForgetBenchError(f"{manifest.row} did not complete ({manifest.status}): {manifest.reason}")
    return done.runs[0]


def _gather_first(folder: Path, server: str, name: str, options: RunConfig) -> Path:
    with TemporaryDirectory(prefix="forgetbench-") as place:
        pack = read_pack(pull_bundle(name, server, Path(place) / "pack"), verify=False)
        return make_run(folder, pack, Results(options.home).runs / name / f"elsewhere-{folder.resolve().name}")
