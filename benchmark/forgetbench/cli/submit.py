"""The commands submit, withdraw and verify: a leaderboard from afar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from forgetbench.cli.console import ProgressBar, UploadBar, out, print_json, remark

Flag = Annotated[bool, Parameter(negative="")]


def add_commands(app: App) -> None:
    """Add this file's commands."""
    app.command(submit)
    app.command(withdraw)
    app.command(verify)


def submit(
    what: str,
    *,
    server: str,
    task: str | None = None,
    root: Path | None = None,
    device: str = "auto",
    dry_run: Flag = False,
    json: Flag = False,
) -> int:
    """Check a run, upload it, and wait for the server's verdict. The token comes from FORGETBENCH_TOKEN or a file.

    Example: forgetbench submit my_method.py:MyMethod --task digits/cnn/class --server https://board.example.org

    Parameters
    ----------
    what
        The folder of a run, as `forgetbench run` prints it; or FILE.py:CLASS[:parameter=value,...], which is run first,
        from the board's originals; or a folder of logits that were made elsewhere, with a method.toml.
    server
        Address of the leaderboard.
    task
        The board, where a method's file or logits are submitted.
    root
        Folder of the image sets on disk, where a method is run.
    device
        torch device, where a method is run; auto takes the GPU where there is one.
    dry_run
        Only find out what the server would say.
    json
        Print the server's answer as JSON.
    """
    from forgetbench.leaderboard.client.submit import REFUSED_STATES
    from forgetbench.leaderboard.client.submit import submit as submit_run
    from forgetbench.remote.submit import prepare_submission
    from forgetbench.runner.config import RunConfig

    with ProgressBar() as watcher:
        folder = prepare_submission(what, server, task, RunConfig(root=root, device=device, skip_oracles=True), watcher)
    with UploadBar() as bar:
        verdict = submit_run(folder, server, dry_run=dry_run, progress=bar)
    if json:
        print_json(verdict.document.model_dump(mode="json"))
    else:
        out().print(f"{verdict.task}: {verdict.detail}", markup=False)
        if verdict.url:
            out().print(verdict.url, markup=False)
    return 1 if verdict.state in REFUSED_STATES else 0


def withdraw(submission: str, *, server: str, reason: str) -> None:
    """Withdraw one's own submission. A tombstone stays, and the attempt counts.

    Example: forgetbench withdraw ID --server https://board.example.org --reason "wrong learning rate"

    Parameters
    ----------
    submission
        Its id, as its page's address has it.
    server
        Address of the leaderboard.
    reason
        Why, for the state history.
    """
    from forgetbench.leaderboard.client.submit import withdraw as withdraw_submission

    out().print(f"{submission}: {withdraw_submission(submission, reason, server)}", markup=False)


def verify(submission: str, *, server: str, root: Path | None = None, allow_source: Flag = False) -> int:
    """Run a listed submission's recipe again from the board's originals, and post that evidence beside it.

    Example: forgetbench verify ID --server https://board.example.org

    Parameters
    ----------
    submission
        Its id, as its page's address has it.
    server
        Address of the leaderboard.
    root
        Folder of the image sets on disk.
    allow_source
        Run the source that was submitted. It is a stranger's program: read it first.
    """
    from forgetbench.cli.console import print_table
    from forgetbench.remote.verify import post_rerun

    with ProgressBar() as watcher:
        record = post_rerun(submission, server, root, watcher, remark, allow_source=allow_source)
    words = {True: "yes", False: "no", None: "cannot be told"}
    rows = []
    for name, item in (record.comparison or {}).items():
        value, interval = "–", ""
        if item.value is not None:
            value, interval = f"{item.value:+.4f}", f"{item.low:+.4f} … {item.high:+.4f}"
        rows.append((name, value, interval, words[item.agrees]))
    print_table(
        f"{submission}: {record.verdict}",
        ("ranking metric", "second record minus first", "95 % interval", "agrees"),
        rows,
        right=(1,),
    )
    return 0 if record.verdict == "reproduced" else 1
