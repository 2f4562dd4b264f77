"""The commands submit, submission, withdraw and verify: a leaderboard server as its users see it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from forgetbench.cli.console import figure, print_json, print_note, print_table, print_text
from forgetbench.cli.options import RUN, Flag, Json, RunOptions
from forgetbench.errors import ForgetBenchError, UsageError

if TYPE_CHECKING:
    from forgetbench.api.leaderboard import Verification


def add_commands(app: App) -> None:
    """Add this module's commands."""
    app.command(submit)
    app.command(submission)
    app.command(withdraw)
    app.command(verify)
    app.command(post_attack, name="post-attack")


def submit(
    run: str,
    *,
    server: str,
    task: str | None = None,
    dry_run: Flag = False,
    remote: Flag = False,
    no_source: Flag = False,
    yes: Flag = False,
    options: RunOptions = RUN,
    json: Json = False,
) -> int:
    """Check a run, upload it, and wait for its score. The token comes from FORGETBENCH_TOKEN or a file.

    First it shows what becomes public (source, hyper-parameters, environment, evidence, license), and asks once.
    Exit status 1 if the server rejects the run.

    Example: forgetbench submit my_method.py:MyMethod --task digits/cnn/class --server https://board.example.org

    Args:
        run: Folder of a run, as `forgetbench run` prints it; FILE.py:CLASS[:parameter=value,...], which is first run
            from the board's originals; or a folder of logits that other code computed, with a method.toml.
        server: Address of the leaderboard.
        task: The board, for a method file or logits.
        dry_run: Validate without submitting.
        remote: Send the method alone, whose source becomes public; the board's own runner runs it in a sandbox.
        no_source: Leave the method's source out. The row stays a claim: without source it is never verified.
        yes: Do not ask before making it public, for scripts.
    """
    from forgetbench import submit as submit_run
    from forgetbench.leaderboard.client.submit import REFUSED_STATES

    send = partial(submit_run, run, server, task=task, config=options.config())
    confirm = print_note if yes else _ask
    outcome = send(dry_run=dry_run, remote=remote, source=not no_source, confirm=confirm)
    if json:
        print_json(outcome.document.model_dump(mode="json"))
    else:
        print_text("\n".join(filter(None, [f"{outcome.task}: {outcome.detail}", outcome.url])))
    return 1 if outcome.state in REFUSED_STATES else 0


def _ask(text: str) -> None:
    """Show what becomes public, and ask for agreement.

    Raises:
        UsageError: There is no terminal to ask in.
        ForgetBenchError: The answer is no.
    """
    print_note(text)
    if not sys.stdin.isatty():
        raise UsageError("No terminal to ask for your agreement; nothing was sent. Add --yes to agree.")
    print_note("Agree? [y/N]")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise ForgetBenchError("Cancelled; nothing was sent.")


def post_attack(entry: str, attack: Path, *, server: str, row: str | None = None) -> None:
    """Post the evidence of an attack on an entry of a leaderboard. It is shown as claimed, with your name.

    It sets no flag until the board's runner has repeated it. The token comes from FORGETBENCH_TOKEN or a file.

    Example: forgetbench post-attack ID ~/.cache/forgetbench/attacks/digits/cnn/class/.../prune-ratio-0.5 --server URL

    Args:
        entry: Id of the entry, as its page's address has it.
        attack: Folder of one attack with one budget, as `forgetbench attack` prints it.
        server: Address of the leaderboard.
        row: Name of the attacked row, where the folder has several.
    """
    from forgetbench.api.attacks import attacked_row
    from forgetbench.leaderboard.client.submit import post_attack as post

    print_text(f"{entry}: attack {post(entry, attack, attacked_row(attack, row), server)} is being scored")


def submission(entry: str, *, server: str, json: Json = False) -> int:
    """Show the state of a submission of yours: score, place in the queue of the board's runner, and reasons.

    Exit status 1 if the server rejected it, or could not verify it.

    Example: forgetbench submission ID --server https://board.example.org

    Args:
        entry: Id of the entry, as its page's address has it.
        server: Address of the leaderboard.
    """
    from forgetbench.leaderboard.client.submit import REFUSED_STATES, fetch_submission

    outcome = fetch_submission(entry, server)
    document = outcome.document
    if json:
        print_json(document.model_dump(mode="json"))
    else:
        print_text(f"{outcome.task}: {outcome.detail}\n{outcome.url}")
    run = getattr(document, "run", None)
    return 1 if outcome.state in REFUSED_STATES or (run is not None and run.state == "failed") else 0


def withdraw(entry: str, *, server: str, reason: str) -> None:
    """Withdraw an entry of yours. A tombstone stays, and the attempt counts.

    Example: forgetbench withdraw ID --server https://board.example.org --reason "wrong learning rate"

    Args:
        entry: Id of the entry, as its page's address has it.
        server: Address of the leaderboard.
        reason: The reason, for the entry's history.
    """
    from forgetbench.leaderboard.client.submit import withdraw as withdraw_entry

    print_text(f"{entry}: {withdraw_entry(entry, reason, server)}")


def verify(
    entry: str,
    *,
    server: str,
    post: Flag = False,
    allow_source: Flag = False,
    root: Path | None = None,
    json: Json = False,
) -> int:
    """Run an entry of a leaderboard again, from the board's originals, and compare.

    Exit status 1 if the entry is not reproduced.

    Example: forgetbench verify ID --server https://board.example.org

    Args:
        entry: Id of the entry, as its page's address has it.
        server: Address of the leaderboard.
        post: Post the second run as evidence; needs a token with the scope verify.
        allow_source: Run submitted source code. Read it first.
        root: Folder of the image sets on disk.
    """
    from dataclasses import asdict

    from forgetbench import verify as verify_entry

    result = verify_entry(entry, server, post=post, allow_source=allow_source, root=root, show=print_note)
    if json:
        differences = [difference.model_dump(mode="json") for difference in result.differences]
        print_json({**asdict(result), "differences": differences})
    else:
        _print(result)
    return 0 if result.reproduced else 1


def _print(result: Verification) -> None:
    outcome = "reproduced" if result.reproduced else "not reproduced"
    title = f"{result.entry} of {result.server}: {outcome}"
    if result.same_bits is None:
        words = {True: "yes", False: "no", None: "undecided"}
        compared = [
            (
                each.metric,
                figure(each.value, "+.4f"),
                "" if each.low is None or each.high is None else f"{each.low:+.4f} … {each.high:+.4f}",
                words[each.agrees],
            )
            for each in result.comparison
        ]
        print_table(
            title, ("ranking metric", "second run minus first", "95 % interval", "agrees"), compared, right=(1,)
        )
        return
    rows = [
        (
            each.metric,
            "FAIL" if each.exceeds_tolerance else "ok",
            figure(each.recorded),
            figure(each.measured),
            figure(each.z),
        )
        for each in result.differences
    ]
    print_table(title, ("metric", "", "listed", "measured", "z"), rows, right=(2, 3, 4))
    print_text("  the same bits" if result.same_bits else "  different bits")
