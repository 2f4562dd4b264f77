"""The commands admin ...: operating the leaderboard of this machine."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from forgetbench.cli.console import print_note, print_table, print_text
from forgetbench.cli.options import RUN, SERVER, Flag, RunOptions, ServerOptions
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.leaderboard.admin import TokenInfo

Scope = Literal["submit", "verify", "run", "moderate"]
State = Literal["listed", "flagged", "quarantined", "withdrawn", "rejected", "scoring"]


def add_commands(app: App) -> None:
    """Add this module's commands."""
    app.command(admin := App(name="admin", help="Operate the leaderboard of this machine.", help_format="plaintext"))
    admin.command(token := App(name="token", help="Tokens of submitters.", help_format="plaintext"))
    token.command(create)
    token.command(invite)
    token.command(renew)
    token.command(revoke)
    token.command(quota)
    token.command(list_tokens, name="list")
    admin.command(rounds := App(name="round", help="Rounds of a board.", help_format="plaintext"))
    rounds.command(schedule)
    rounds.command(close)
    rounds.command(evaluate)
    rounds.command(reveal)
    admin.command(queue)
    admin.command(state)
    admin.command(acknowledge)
    admin.command(purge)
    admin.command(retry)
    admin.command(rescore)
    admin.command(repeat_attack, name="repeat-attack")
    admin.command(backup)
    admin.command(restore)
    admin.command(dump)
    admin.command(export)


def create(
    name: str = "",
    *,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    team: str | None = None,
    scope: list[Scope] | None = None,
    days: int | None = None,
    daily: int | None = None,
    server: ServerOptions = SERVER,
) -> None:
    """Create a token, or one for each line of a CSV file. Tokens are printed once; only their hashes are stored.

    Example: forgetbench admin token create "Ada Lovelace" --scope submit

    Example: forgetbench admin token create --from teams.csv > tokens.csv

    Args:
        name: Its owner; boards show this name.
        source: CSV file with the column name, and optionally team, scopes, days and daily.
        team: Team of the owner; boards show it as the submitter, and its members share entries and quotas.
        scope: Permission (default: submit). Can be repeated.
        days: Days until it expires (default: never).
        daily: Submissions in 24 hours; 0 is none (default: the server's quota).
    """
    from forgetbench.leaderboard.admin import create_token, create_tokens

    if (source is None) == (not name):
        raise UsageError("Give either the name of an owner, or a file of owners with --from.")
    if source is not None:
        if scope or team or daily is not None:
            raise UsageError("--scope, --team and --daily are columns of the file: scopes, team, daily.")
        created = create_tokens(server.settings(), source, days=days)
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerows([created[0]._fields, *created] if created else [])
        print_note(f"{len(created)} tokens. Shown only once; send each to its owner over a private channel.")
        return
    scopes = scope or ["submit"]
    print_text(create_token(server.settings(), name, scopes, days=days, daily_submissions=daily, team=team))
    print_note("Shown only once. Use it as FORGETBENCH_TOKEN, or as the private file `token` in ForgetBench's folder.")


def invite(
    *,
    team: str | None = None,
    uses: int = 1,
    days: int | None = None,
    token_days: int | None = None,
    server: ServerOptions = SERVER,
) -> None:
    """Create an invitation code, with which people make their own tokens on the site's page /signup.

    Example: forgetbench admin token invite --team "Oracle Seekers" --uses 5 --days 30

    Args:
        team: The team that its tokens belong to (default: everyone names their own).
        uses: Tokens that can be made with it.
        days: Days until it expires (default: never).
        token_days: Days until its tokens expire (default: never).
    """
    from forgetbench.leaderboard.admin import create_invitation

    settings = server.settings()
    print_text(create_invitation(settings, team=team, uses=uses, days=days, token_days=token_days))
    print_note("Shown only once; only its hash is stored.")


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
    print_table("", ("id", "name", "team", "scopes", "created", "expires", "last used", "daily quota", ""), rows)


def _token_row(token: TokenInfo, default_quota: int) -> tuple[str, ...]:
    quota = f"{default_quota} (default)" if token.daily_submissions is None else str(token.daily_submissions)
    days = (_day(time) for time in (token.created, token.expires, token.last_used))
    revoked = f"revoked {_day(token.revoked)}" if token.revoked else ""
    return (token.id, token.name, token.team or "", ", ".join(token.scopes), *days, quota, revoked)


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
        print_note(
            '`forgetbench admin acknowledge ID --reason "..."` removes an entry; a suspended row gets its place back.'
        )


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
    """Remove an entry from the moderation queue; a suspended row gets its place back. The reason becomes public.

    Example: forgetbench admin acknowledge ID --reason "the authors confirm an ensemble"

    Args:
        entry: Id of the entry.
        reason: What the review found.
    """
    from forgetbench.leaderboard.admin import acknowledge as acknowledge_entry

    done = acknowledge_entry(server.settings(), entry, reason)
    print_text(f"{done.label} of {done.submitter} on {done.task}: acknowledged, stays {done.after}")


def purge(entry: str, *, reason: str, server: ServerOptions = SERVER) -> None:
    """Erase the texts and the evidence of an entry for good. A tombstone with the reason stays.

    Example: forgetbench admin purge ID --reason "at the request of a person"

    Args:
        entry: Id of the entry.
        reason: The reason, which everyone can read.
    """
    from forgetbench.leaderboard.admin import purge as purge_entry

    done = purge_entry(server.settings(), entry, reason)
    print_text(f"{done.label} of {done.submitter} on {done.task}: erased")
    print_note("Earlier backups, dumps and static exports still have it: delete or replace them.")


def schedule(
    task: str,
    *,
    opens: str = "",
    closes: str = "",
    reveals: str = "",
    show: Literal["public", "own", "accepted"] = "public",
    per_team: int | None = None,
    final_only: Flag = False,
    server: ServerOptions = SERVER,
) -> None:
    """Start a round of a board, or change the present one. Submissions from its opening on belong to it.

    Dates are in ISO 8601, in UTC unless they have an offset: 2027-03-01 or 2027-03-01T12:00+01:00.

    Example: forgetbench admin round schedule TASK --opens 2027-03-01 --closes 2027-04-01 --show own --per-team 5

    Args:
        task: Task of the board.
        opens: From then on submissions are accepted (default: now).
        closes: From then on they are refused (default: never).
        reveals: When hidden results are revealed (default: by `admin round reveal`).
        show: What submitters see until then: everything, their own numbers, or only that they were accepted.
        per_team: Submissions of one team in the round (default: no limit but the daily one).
        final_only: After the round has closed, the runner runs the last submission of each team, and no other.
    """
    from forgetbench.leaderboard.admin import schedule_round
    from forgetbench.leaderboard.submissions.rounds import Schedule

    planned = Schedule(
        opens=_date("--opens", opens) or datetime.now(UTC),
        closes=_date("--closes", closes),
        reveals=_date("--reveals", reveals),
        visibility=show,
        team_submissions=per_team,
        final_only=final_only,
    )
    schedule_round(server.settings(), task, planned)
    until = f" to {planned.closes:%Y-%m-%d %H:%M}" if planned.closes else ""
    print_text(f"{task}: open from {planned.opens:%Y-%m-%d %H:%M}{until} UTC")


def _date(option: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option}: {text!r} is no date. Write it as 2027-03-01 or 2027-03-01T12:00+01:00.") from error
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def close(task: str, *, server: ServerOptions = SERVER) -> None:
    """Close a board now: it accepts no more submissions. A new schedule opens it again.

    Example: forgetbench admin round close TASK

    Args:
        task: Task of the board.
    """
    from forgetbench.leaderboard.admin import close_round

    print_text(f"{task}: closed since {close_round(server.settings(), task):%Y-%m-%d %H:%M} UTC")


def evaluate(task: str, *, server: ServerOptions = SERVER) -> None:
    """Request the final evaluation of a closed round; a worker does so by itself within a minute of the closing date.

    Example: forgetbench admin round evaluate TASK

    Args:
        task: Task of the board.
    """
    from forgetbench.leaderboard.admin import evaluate_round

    print_text(f"{task}: the runner runs {len(evaluate_round(server.settings(), task))} submissions")


def reveal(task: str, *, server: ServerOptions = SERVER) -> None:
    """List the hidden submissions of a round, and rank them. The salt of a sealed board stays secret.

    Example: forgetbench admin round reveal TASK

    Args:
        task: Task of the board.
    """
    from forgetbench.leaderboard.admin import reveal_round

    done = reveal_round(server.settings(), task)
    print_text(f"{task}: {done.listed} submissions are listed")
    if done.unfinished:
        print_note(f"The runner has not finished {done.unfinished} submissions; each gets its rank when it is done.")


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


def repeat_attack(record: str, *, server: ServerOptions = SERVER, options: RunOptions = RUN) -> None:
    """Run a claimed attack again with the board's own models. Only then can it flag its row.

    Example: forgetbench admin repeat-attack 0123456789abcdef

    Args:
        record: Id of the claimed attack, as the document of its entry has it.
    """
    from forgetbench.verification.attacks import repeat_attack as repeat

    print_text(f"attack {repeat(server.settings(), record, options.config())} is being scored")


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
