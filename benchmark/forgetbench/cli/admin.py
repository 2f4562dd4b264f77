"""The commands admin ...: operating the leaderboard of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from forgetbench.cli.console import print_note, print_table, print_text
from forgetbench.cli.options import SERVER, ServerOptions

if TYPE_CHECKING:
    from forgetbench.leaderboard.admin import TokenInfo

Scope = Literal["submit", "verify", "run", "moderate"]
State = Literal["listed", "flagged", "quarantined", "withdrawn", "rejected", "scoring"]


def add_commands(app: App) -> None:
    """Add this module's commands."""
    app.command(admin := App(name="admin", help="Operate the leaderboard of this machine.", help_format="plaintext"))
    admin.command(token := App(name="token", help="Tokens of submitters.", help_format="plaintext"))
    token.command(create)
    token.command(renew)
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
    scope: list[Scope] | None = None,
    days: int | None = None,
    daily: int | None = None,
    server: ServerOptions = SERVER,
) -> None:
    """Create a token. It is printed once; only its hash is stored.

    Example: forgetbench admin token create "Ada Lovelace" --scope submit

    Args:
        name: Its owner; boards show this name.
        scope: Permission (default: submit). Can be repeated.
        days: Days until it expires (default: never).
        daily: Submissions in 24 hours; 0 is none (default: the server's quota).
    """
    from forgetbench.leaderboard.admin import create_token

    print_text(create_token(server.settings(), name, scope or ["submit"], days=days, daily_submissions=daily))
    print_note("Shown only once. Use it as FORGETBENCH_TOKEN, or as the private file `token` in ForgetBench's folder.")


def renew(identity: str, *, days: int | None = None, server: ServerOptions = SERVER) -> None:
    """Give a token a new secret, for an owner who lost it. The owner keeps all entries; the old secret stops working.

    Example: forgetbench admin token renew 0123456789abcdef

    Args:
        identity: Its id, as `admin token list` shows it.
        days: Days until it expires (default: never).
    """
    from forgetbench.leaderboard.admin import renew_token

    print_text(renew_token(server.settings(), identity, days=days))
    print_note("Shown only once. The previous secret of this token no longer works.")


def list_tokens(*, server: ServerOptions = SERVER) -> None:
    """List the tokens without their secrets.

    Example: forgetbench admin token list
    """
    from forgetbench.leaderboard.admin import list_tokens as tokens

    settings = server.settings()
    rows = [_token_row(token, settings.daily_submissions) for token in tokens(settings)]
    print_table("", ("id", "name", "scopes", "created", "expires", "last used", "daily quota", ""), rows)


def _token_row(token: TokenInfo, default_quota: int) -> tuple[str, ...]:
    quota = f"{default_quota} (default)" if token.daily_submissions is None else str(token.daily_submissions)
    days = (_day(time) for time in (token.created, token.expires, token.last_used))
    revoked = f"revoked {_day(token.revoked)}" if token.revoked else ""
    return (token.id, token.name, ", ".join(token.scopes), *days, quota, revoked)


def revoke(identity: str, *, server: ServerOptions = SERVER) -> None:
    """Revoke a token.

    Example: forgetbench admin token revoke 0123456789abcdef

    Args:
        identity: Its id, or the token itself.
    """
    from forgetbench.leaderboard.admin import revoke_token

    print_text(f"revoked: {revoke_token(server.settings(), identity)}")


def quota(identity: str, daily: int | None = None, *, server: ServerOptions = SERVER) -> None:
    """Change the daily quota of a token.

    Example: forgetbench admin token quota 0123456789abcdef 200

    Args:
        identity: Its id, or the token itself.
        daily: Submissions in 24 hours; 0 is none (default: the server's quota).
    """
    from forgetbench.leaderboard.admin import set_quota

    settings = server.settings()
    name = set_quota(settings, identity, daily)
    print_text(f"{name}: {settings.daily_submissions if daily is None else daily} in 24 hours")


def queue(*, server: ServerOptions = SERVER) -> None:
    """Show the moderation queue: alarms, flagged and quarantined entries, and failed jobs.

    Example: forgetbench admin queue
    """
    from forgetbench.leaderboard.admin import moderation_queue

    items = moderation_queue(server.settings())
    print_table("", ("entry", "task", "row", "submitter", "state", "reason"), items)
    if not items:
        print_note("The moderation queue is empty.")
    if any(item.id.startswith("job ") for item in items):
        print_note("`forgetbench admin retry NUMBER` (or `all`) runs a failed job again.")
    if any(not item.id.startswith("job ") for item in items):
        print_note('`forgetbench admin acknowledge ID --reason "..."` removes an entry from the queue unchanged.')


def state(entry: str, new: State, *, reason: str, server: ServerOptions = SERVER) -> None:
    """Change the state of an entry. The reason appears in its public history.

    Example: forgetbench admin state ID quarantined --reason "logits are averages of oracles"

    Args:
        entry: Id of the entry.
        new: The new state.
        reason: The reason.
    """
    from forgetbench.leaderboard.admin import change_state

    done = change_state(server.settings(), entry, new, reason)
    print_text(f"{done.label} of {done.submitter} on {done.task}: {done.before} -> {done.after}")


def acknowledge(entry: str, *, reason: str, server: ServerOptions = SERVER) -> None:
    """Remove an entry from the moderation queue unchanged. The reason appears in its public history.

    Example: forgetbench admin acknowledge ID --reason "the authors confirm an ensemble"

    Args:
        entry: Id of the entry.
        reason: What the review found.
    """
    from forgetbench.leaderboard.admin import acknowledge as acknowledge_entry

    done = acknowledge_entry(server.settings(), entry, reason)
    print_text(f"{done.label} of {done.submitter} on {done.task}: acknowledged, stays {done.after}")


def retry(job: str, *, server: ServerOptions = SERVER) -> None:
    """Run a failed job again.

    Example: forgetbench admin retry all

    Args:
        job: Its number in the queue, or `all`.
    """
    from forgetbench.leaderboard.admin import retry_jobs

    keys = retry_jobs(server.settings(), job)
    print_text("\n".join(f"queued again: {key}" for key in keys) or "There are no failed jobs.")


def rescore(task: str | None = None, *, server: ServerOptions = SERVER) -> None:
    """Have the worker score entries again that other scoring code scored.

    Example: forgetbench admin rescore

    Args:
        task: One board (default: all).
    """
    from forgetbench.leaderboard.admin import rescore as rescore_entries

    print_text(f"{rescore_entries(server.settings(), task)} entries will be scored again.")


def backup(target: Path, *, server: ServerOptions = SERVER) -> None:
    """Write the whole server to one tar file, while it runs.

    Example: forgetbench admin backup board.tar

    Args:
        target: The file.
    """
    from forgetbench.leaderboard.admin import backup as write_backup

    print_text(f"written: {write_backup(server.settings(), target)}")


def restore(source: Path, *, server: ServerOptions = SERVER) -> None:
    """Restore a server from its backup, in an empty folder.

    Example: forgetbench admin restore board.tar --data NEW_FOLDER

    Args:
        source: The backup.
    """
    from forgetbench.leaderboard.admin import restore as restore_backup

    settings = server.settings()
    restore_backup(settings, source)
    print_text(f"restored: {settings.server_folder}")


def dump(target: Path, *, server: ServerOptions = SERVER) -> None:
    """Write all listed entries as JSON lines.

    Example: forgetbench admin dump boards.jsonl

    Args:
        target: The file.
    """
    from forgetbench.leaderboard.admin import write_dump

    print_text(f"{write_dump(server.settings(), target)} entries written.")


def export(*, static: Path, base: str, server: ServerOptions = SERVER) -> None:
    """Write the boards as static files that need no server.

    Example: forgetbench admin export --static SITE --base https://board.example.org

    Args:
        static: The folder.
        base: Address of the server, for links in the files.
    """
    from forgetbench.leaderboard.admin import export_static

    print_text(f"{len(export_static(server.settings(), static, base))} files written.")


def _day(time: object) -> str:
    return str(time)[:10] if time else ""
