"""Prepare a submission: a finished run, a method's file that is run first, or logits that other code computed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.reference import read_pack
from forgetbench.evidence.run import read_run
from forgetbench.importers.logits import import_logits, is_logits_folder, read_info
from forgetbench.leaderboard.client.http import LeaderboardClient
from forgetbench.leaderboard.client.submit import pull_bundle
from forgetbench.method_label import MethodFile, is_method_file
from forgetbench.remote.pull import pull_board
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.method_spec import MethodSpec, parse_methods
from forgetbench.runner.results import Results, folder_name
from forgetbench.runner.run import run
from forgetbench.store import JsonObject
from forgetbench.tasks.task import Task, read_task


def prepare_submission(
    source: str, server: str, task: str | None, config: RunConfig, progress: ProgressCallback
) -> Path:
    """The folder of the run to submit: a run as it is, a method's file after running it, or imported logits.

    Args:
        source: A folder, or ``FILE.py:CLASS[:parameter=value,...]``.
        server: The leaderboard's address.
        task: The board, if ``source`` is not a run, which names its task itself.
        config: Where and how a method is run.
        progress: Progress callback.

    Raises:
        UsageError: The call, the file or the token is wrong; raised before anything is trained.
        ForgetBenchError: The method failed, or the server cannot be reached.
    """
    folder = Path(source)
    if is_method_file(source) and not folder.is_dir():
        return _run_method(source, server, require_task(task, source), config, progress)
    if is_logits_folder(folder):
        return _import_logits(folder, server, require_task(task, source), config)
    return folder


def prepare_method(source: str, task: str | None) -> JsonObject:
    """A method alone, for a server that runs it itself.

    Args:
        source: ``FILE.py:CLASS[:parameter=value,...]``, or a method of this package with hyper-parameters.
        task: The board.

    Returns:
        What `leaderboard.client.submit.submit_method` sends: text and hyper-parameters, and no path.

    Raises:
        UsageError: The task, the file or a hyper-parameter is wrong.
    """
    loaded = read_task(require_task(task, source))
    spec = parse_single(source, loaded)
    given = {name: spec.parameters[name] for name in spec.named}
    if spec.file is None:
        return {"task": loaded.name, "name": spec.name, "parameters": given}
    class_name = MethodFile.parse(str(spec.file)).class_name
    return {"task": loaded.name, "source": spec.source, "class_name": class_name, "parameters": given}


def parse_single(source: str, task: Task) -> MethodSpec:
    """The method that a submission names: a class of a file, or a method of this package.

    Raises:
        UsageError: It names none or several, or a file or hyper-parameter is wrong.
    """
    is_file = is_method_file(source)
    specs = parse_methods([] if is_file else [source], [source] if is_file else [], task.setting)
    if len(specs) != 1:
        raise UsageError(f"{source} is not one method: reference rows are part of every board. Name one method.")
    return specs[0]


def require_task(task: str | None, source: str) -> str:
    """The board that a submission names, where its source names none.

    Raises:
        UsageError: None is named.
    """
    if task is None:
        raise UsageError(f"{source} is not a run and names no task. Name the board with --task.")
    return task


def _run_method(source: str, server: str, name: str, config: RunConfig, progress: ProgressCallback) -> Path:
    task = read_task(name)
    parse_methods([], [source], task.setting)  # check the file and its parameters before anything is sent
    with LeaderboardClient(server) as client:
        client.whoami()
        task, config = pull_board(name, server, config)
        [done] = run([task], lambda one: parse_methods([], [source], one.setting), config, progress)
    manifest = read_run(done.runs[0]).manifest
    if manifest.status != "ok":
        raise ForgetBenchError(f"{manifest.row} did not complete ({manifest.status}): {manifest.reason}")
    return done.runs[0]


def _import_logits(folder: Path, server: str, name: str, config: RunConfig) -> Path:
    target = Results(config.home).runs / name / folder_name(f"elsewhere-{read_info(folder).name}")
    with TemporaryDirectory(prefix="forgetbench-") as place:
        pack = read_pack(pull_bundle(name, server, Path(place) / "pack"), verify=False)
        return import_logits(folder, pack, target)
