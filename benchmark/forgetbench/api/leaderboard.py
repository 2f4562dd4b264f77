"""Submitting to a leaderboard server, and verifying its entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from forgetbench.api.board import BoardResult, RunResult
from forgetbench.api.progress import UploadBar, open_progress
from forgetbench.errors import UsageError
from forgetbench.runner.config import ProgressCallback, RunConfig

if TYPE_CHECKING:
    from forgetbench.leaderboard.client.submit import Outcome
    from forgetbench.remote.pull import ImportedOriginals
    from forgetbench.reproduction.reference_board import Difference


def submit(  # noqa: PLR0913 - one function for all that can be submitted
    result: RunResult | BoardResult | str | Path,
    server: str,
    token: str | None = None,
    *,
    task: str | None = None,
    dry_run: bool = False,
    remote: bool = False,
    source: bool = True,
    confirm: Callable[[str], None] | None = None,
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> Outcome:
    """Check a run, upload it to a leaderboard, and wait for its score.

    A listed submission is public: evidence, hyper-parameters, environment and, for a method of yours, its source, under
    the server's license. No path of this machine is sent.

    Args:
        result: A row of a board, or a board with one run; the folder of a run; ``"my_method.py:MyMethod"``, which is
            first run from the board's originals; or a folder of logits that other code computed, with a
            ``method.toml``.
        server: Address of the leaderboard.
        token: The token; ``FORGETBENCH_TOKEN`` or the private file ``token`` in ForgetBench's folder by default.
        task: The board, for a method file or logits.
        dry_run: Validate without submitting.
        remote: Send the method alone, once it passes the checks of the contract; the board's own runner runs it.
        source: Whether to send the source of a method of yours. Without it, the row is never verified.
        confirm: Called once, before anything is trained or sent, with a text that says what the submission makes
            public; an exception that it raises stops the submission.
        config: Device, worker processes and folders, where a method is run.
        progress: Show progress bars, or a progress callback.

    Returns:
        What became of the submission: ``state``, ``detail`` (one sentence), ``url`` of its page.

    Raises:
        UsageError: The run, the address or the token is wrong.
        ForgetBenchError: The server cannot be reached or refuses the run; the message lists every reason.

    Example:
        >>> submit(board["my-method"], "https://board.example.org", dry_run=True).detail  # doctest: +SKIP
    """
    from forgetbench.leaderboard.client.submit import submit as submit_folder
    from forgetbench.remote.publication import describe_publication
    from forgetbench.remote.submit import prepare_submission

    given = _source(result)
    chosen = replace(config or RunConfig(), skip_oracles=True)
    if remote and dry_run:
        raise UsageError("--remote has no --dry-run: `forgetbench check-method FILE.py:CLASS` makes the same checks.")
    if remote and not source:
        raise UsageError("--remote sends the method's source, which the board's runner runs; omit --no-source.")
    if confirm is not None and not dry_run:
        confirm(describe_publication(given, server, token, task, chosen, remote=remote, with_source=source))
    if remote:
        return _submit_method(given, server, token, task)
    with open_progress(progress) as callback:
        folder = prepare_submission(given, server, task, chosen, callback)
    if progress is not True:
        return submit_folder(folder, server, token, dry_run=dry_run, source=source)
    with UploadBar() as bar:
        return submit_folder(folder, server, token, dry_run=dry_run, source=source, progress=bar)


def _submit_method(source: str, server: str, token: str | None, task: str | None) -> Outcome:
    """Check a method on this machine, and send it alone."""
    from forgetbench.api.methods import check_method
    from forgetbench.leaderboard.client.submit import submit_method
    from forgetbench.method_label import MethodFile, is_method_file
    from forgetbench.remote.submit import prepare_method

    code = prepare_method(source, task)
    if is_method_file(source):
        report = check_method(MethodFile.parse(source).address, isolated=True)
        failed = [f"  {check.name}: {check.message}" for check in report.checks if not check.ok]
        if failed:
            raise UsageError("\n".join([f"{source} does not pass the checks of the contract:", *failed]))
    return submit_method(code, server, token)


@dataclass(frozen=True)
class MetricComparison:
    """The server's comparison of a ranking metric of two records."""

    metric: str
    """Name of the metric."""
    value: float | None
    """Second record minus first; None where it cannot be computed."""
    low: float | None
    """Lower end of the 95 % interval."""
    high: float | None
    """Upper end."""
    agrees: bool | None
    """Whether the interval contains 0; None where it cannot be decided."""


@dataclass(frozen=True)
class Verification:
    """An entry of a leaderboard that was run again."""

    entry: str
    """The entry's id."""
    server: str
    """Address of the leaderboard."""
    reproduced: bool
    """Whether the second run agrees with the entry."""
    same_bits: bool | None
    """Whether its evidence is equal bit by bit; None where the server compared."""
    differences: tuple[Difference, ...]
    """Every metric, listed and measured again; empty where the server compared."""
    comparison: tuple[MetricComparison, ...]
    """The server's comparison of the ranking metrics; empty where nothing was posted."""


def verify(
    entry: str,
    server: str,
    *,
    post: bool = False,
    allow_source: bool = False,
    root: str | Path | None = None,
    show: Callable[[str], None] = print,
    progress: bool | ProgressCallback = True,
) -> Verification:
    """Run an entry of a leaderboard again, from the board's originals, and compare.

    Where the evidence is equal bit by bit, so is every score. Otherwise oracles are trained on this machine, and each
    metric is compared within its scatter.

    Args:
        entry: The entry's id, as its page's address has it.
        server: Address of the leaderboard.
        post: Post the second run as evidence, and let the server compare; needs a token with the scope ``verify``.
        allow_source: Run the source code that was submitted. Read it first.
        root: Folder of the image sets on disk.
        show: Shows submitted source code that may not run yet.
        progress: Show a progress bar, or a progress callback.

    Returns:
        The comparison.

    Raises:
        UsageError: The submitted source may not run yet, or the token lacks the scope.
        ForgetBenchError: The entry cannot be run here, or the server cannot be reached or refuses.

    Example:
        >>> verify("0123456789abcdef", "https://board.example.org").reproduced  # doctest: +SKIP
        True
    """
    from forgetbench.remote.verify import compare_rerun, post_rerun

    folder = Path(root) if root is not None else None
    with open_progress(progress) as callback:
        if not post:
            same, differences = compare_rerun(entry, server, folder, callback, show, allow_source=allow_source)
            reproduced = not any(difference.exceeds_tolerance for difference in differences)
            return Verification(entry, server, reproduced, same, tuple(differences), ())
        record = post_rerun(entry, server, folder, callback, show, allow_source=allow_source)
    compared = tuple(
        MetricComparison(metric, found.value, found.low, found.high, found.agrees)
        for metric, found in (record.comparison or {}).items()
    )
    return Verification(entry, server, record.outcome == "reproduced", None, (), compared)


def pull_originals(
    task: str, server: str, *, pack: str = "", folder: str | Path | None = None, config: RunConfig | None = None
) -> ImportedOriginals:
    """Download the originals of a board into the store, so that runs on this machine start from them.

    Args:
        task: Name of the task.
        server: Address of the leaderboard.
        pack: First characters of the hash of an earlier reference bundle; the current one by default.
        folder: Also keep the public files of the bundle in this folder.
        config: Device and folders.

    Returns:
        The number of originals, and the seeds where they replaced others.

    Raises:
        UsageError: The task is unknown, or defined differently on this machine.
        ForgetBenchError: The server has no such board, or cannot be reached.
    """
    from forgetbench.api.tasks import load_task
    from forgetbench.leaderboard.client.submit import pull_bundle
    from forgetbench.remote.pull import import_originals

    loaded = load_task(task)
    with TemporaryDirectory(prefix="forgetbench-") as temporary:
        files = pull_bundle(task, server, Path(folder) if folder is not None else Path(temporary) / "pack", pack=pack)
        return import_originals(loaded, files, config or RunConfig())


@dataclass(frozen=True)
class DevelopmentBundle:
    """The development bundle of a board, on this machine: what to score with while a method is developed."""

    task: str
    """Name of the task to run; its scores are not the board's."""
    folder: Path
    """Folder of the bundle."""
    seeds: int
    """Number of originals."""
    draws: int
    """Number of forget sets."""


def pull_development(task: str, server: str, *, pack: str = "", config: RunConfig | None = None) -> DevelopmentBundle:
    """Download the development bundle of a sealed board: other seeds, with labels and the logits of oracles.

    Runs of ``TASK/development`` with the same counts are then scored with bands, and train nothing but methods.

    Args:
        task: Name of the task.
        server: Address of the leaderboard.
        pack: First characters of the hash of an earlier reference bundle; the current one by default.
        config: Folders.

    Raises:
        UsageError: The task is unknown, or defined differently on this machine.
        ForgetBenchError: The server has no such board, or cannot be reached.
    """
    from forgetbench.api.tasks import load_task
    from forgetbench.remote.pull import pull_development_bundle

    bundle = pull_development_bundle(load_task(task), server, config or RunConfig(), pack=pack)
    return DevelopmentBundle(bundle.card.task, bundle.folder, bundle.card.seeds, bundle.card.draws)


def _source(result: RunResult | BoardResult | str | Path) -> str:
    """What `prepare_submission` takes: a folder, or a method's file."""
    if isinstance(result, BoardResult):
        if len(result.runs) != 1:
            labels = ", ".join(repr(run.label) for run in result if run.folder)
            raise UsageError(f"The board has {len(result.runs)} runs; submit one row, board[LABEL]: {labels}.")
        return str(result.runs[0])
    if isinstance(result, RunResult):
        if result.folder is None:
            raise UsageError(f"{result.label!r} is a reference row of every board and cannot be submitted.")
        return str(result.folder)
    return str(result)
