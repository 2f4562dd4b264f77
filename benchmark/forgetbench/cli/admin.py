"""The commands admin ...: what an operator does on the leaderboard's machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from forgetbench.cli.console import out, print_table, remark
from forgetbench.cli.serve import settings

Scope = Literal["submit", "verify", "moderate"]
State = Literal["listed", "flagged", "quarantined", "withdrawn", "rejected", "scoring"]
Database = Annotated[str | None, Parameter(help="SQLAlchemy URL; a SQLite file in the server's folder if left out.")]
Data = Annotated[Path | None, Parameter(help="The server's folder.")]


def add_commands(app: App) -> None:
    """Add this file's commands."""
    app.command(admin := App(name="admin", help="Operate a leaderboard, on its machine.", help_format="plaintext"))
    admin.command(token := App(name="token", help="Tokens of submitters.", help_format="plaintext"))
    token.command(create)
    token.command(revoke)
    token.command(quota)
    token.command(list_tokens, name="list")
    admin.command(queue)
    admin.command(state)
    admin.command(acknowledge)
    admin.command(retry)
    admin.command(rescore)
    admin.command(backup)
    admin.command(restore)
    admin.command(dump)
    admin.command(export)


def create(
    name: str,
    *,
    scope: Annotated[list[Scope] | None, Parameter(negative="")] = None,
    days: int | None = None,
    daily: int | None = None,
    database: Database = None,
    data: Data = None,
) -> None:
    """Make a token. It is printed once, and only its hash is kept.

    Example: forgetbench admin token create "Ada Lovelace" --scope submit

    Parameters
    ----------
    name
        Who gets it; boards show this name.
    scope
        What it may do; submit if left out. May stand several times.
    days
        Days until it expires; never if left out.
    daily
        Submissions that it may make in 24 hours, if other than the server's quota; 0: none.
    """
    from forgetbench.leaderboard.admin import create_token

    chosen = settings(database, data)
    token = create_token(chosen, name, scope or ["submit"], days=days, daily_submissions=daily)
    out().print(token, markup=False)
    remark("Shown this once. Give it in FORGETBENCH_TOKEN, or in the private file `token` of ForgetBench's folder.")


def list_tokens(*, database: Database = None, data: Data = None) -> None:
    """List the tokens; secrets are not kept.

    Example: forgetbench admin token list
    """
    from forgetbench.leaderboard.admin import list_tokens as tokens

    chosen = settings(database, data)
    rows = [
        (
            line.id,
            line.name,
            ", ".join(line.scopes),
            _day(line.created),
            _day(line.expires),
            _day(line.last_used),
            _quota(line.daily_submissions, chosen.daily_submissions),
            f"revoked {_day(line.revoked)}" if line.revoked else "",
        )
        for line in tokens(chosen)
    ]
    print_table("", ("id", "name", "scopes", "made", "expires", "last used", "a day", ""), rows)


def revoke(identity: str, *, database: Database = None, data: Data = None) -> None:
    """Revoke a token.

    Example: forgetbench admin token revoke 0123456789abcdef

    Parameters
    ----------
    identity
        Its id, or the whole token.
    """
    from forgetbench.leaderboard.admin import revoke_token

    out().print(f"revoked: {revoke_token(settings(database, data), identity)}", markup=False)


def quota(identity: str, daily: int | None = None, *, database: Database = None, data: Data = None) -> None:
    """Change how much a token may submit.

    Example: forgetbench admin token quota 0123456789abcdef 200

    Parameters
    ----------
    identity
        Its id, or the whole token.
    daily
        Submissions that it may make in 24 hours; 0: none; the server's quota if left out.
    """
    from forgetbench.leaderboard.admin import set_quota

    chosen = settings(database, data)
    name = set_quota(chosen, identity, daily)
    out().print(f"{name}: {chosen.daily_submissions if daily is None else daily} in 24 hours", markup=False)


def queue(*, database: Database = None, data: Data = None) -> None:
    """List what a moderator should look at: alarms, flagged and quarantined entries, failed jobs.

    Example: forgetbench admin queue
    """
    from forgetbench.leaderboard.admin import moderation_queue

    lines = moderation_queue(settings(database, data))
    print_table("", ("entry", "task", "row", "submitter", "state", "why"), lines)
    if not lines:
        remark("Nothing waits for a look.")
    if any(line.id.startswith("job ") for line in lines):
        remark("`forgetbench admin retry NUMBER` (or `all`) asks for a failed job again.")
    if any(not line.id.startswith("job ") for line in lines):
        remark('`forgetbench admin acknowledge ID --reason "..."` takes an entry off this list as it is.')


def state(entry: str, new: State, *, reason: str, database: Database = None, data: Data = None) -> None:
    """Bring an entry into another state, with a reason that stays in its history.

    Example: forgetbench admin state ID quarantined --reason "logits are averages of oracles"

    Parameters
    ----------
    entry
        Its id.
    new
        The state.
    reason
        Why.
    """
    from forgetbench.leaderboard.admin import change_state

    done = change_state(settings(database, data), entry, new, reason)
    out().print(f"{done.label} of {done.submitter} on {done.task}: {done.before} -> {done.after}", markup=False)


def acknowledge(entry: str, *, reason: str, database: Database = None, data: Data = None) -> None:
    """Take an entry off the queue as it is; the reason stays in its history.

    Example: forgetbench admin acknowledge ID --reason "asked the authors: an ensemble"

    Parameters
    ----------
    entry
        Its id.
    reason
        What was found.
    """
    from forgetbench.leaderboard.admin import acknowledge as look

    done = look(settings(database, data), entry, reason)
    out().print(f"{done.label} of {done.submitter} on {done.task}: looked at, stays {done.after}", markup=False)


def retry(job: str, *, database: Database = None, data: Data = None) -> None:
    """Ask again for a job that failed.

    Example: forgetbench admin retry all

    Parameters
    ----------
    job
        Its number in the queue, or `all`.
    """
    from forgetbench.leaderboard.admin import retry_jobs as ask

    asked = ask(settings(database, data), job)
    out().print("\n".join(f"asked again: {key}" for key in asked) or "No job has failed.", markup=False)


def rescore(task: str | None = None, *, database: Database = None, data: Data = None) -> None:
    """Have the worker score again what other scoring code scored.

    Example: forgetbench admin rescore

    Parameters
    ----------
    task
        One board; all, if left out.
    """
    from forgetbench.leaderboard.admin import rescore as ask

    out().print(f"{ask(settings(database, data), task)} entries will be scored again.", markup=False)


def backup(target: Path, *, database: Database = None, data: Data = None) -> None:
    """Write the whole server into one tar file, while it runs.

    Example: forgetbench admin backup board.tar

    Parameters
    ----------
    target
        The file.
    """
    from forgetbench.leaderboard.admin import backup as write

    out().print(f"written: {write(settings(database, data), target)}", markup=False)


def restore(source: Path, *, database: Database = None, data: Data = None) -> None:
    """Make a server from its backup, in an empty folder.

    Example: forgetbench admin restore board.tar --data NEW_FOLDER

    Parameters
    ----------
    source
        The backup.
    """
    from forgetbench.leaderboard.admin import restore as read

    chosen = settings(database, data)
    read(chosen, source)
    out().print(f"restored: {chosen.server_folder}", markup=False)


def dump(target: Path, *, database: Database = None, data: Data = None) -> None:
    """Write everything that is listed as JSON lines.

    Example: forgetbench admin dump boards.jsonl

    Parameters
    ----------
    target
        The file.
    """
    from forgetbench.leaderboard.admin import write_dump as write

    out().print(f"{write(settings(database, data), target)} entries written.", markup=False)


def export(*, static: Path, base: str, database: Database = None, data: Data = None) -> None:
    """Write the boards as plain files that outlive the server.

    Example: forgetbench admin export --static SITE --base https://board.example.org

    Parameters
    ----------
    static
        The folder.
    base
        Address of the server, for the links in the files.
    """
    from forgetbench.leaderboard.admin import export_static

    out().print(f"{len(export_static(settings(database, data), static, base))} files written.", markup=False)


def _quota(own: int | None, usual: int) -> str:
    return f"{usual} (the server's)" if own is None else str(own)


def _day(time: object) -> str:
    return str(time)[:10] if time else ""
