"""Operator functions on the server's machine: boards, tokens, moderation, rescoring, backup and export."""

from __future__ import annotations

import csv
import os
import sqlite3
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.boards import queries
from forgetbench.leaderboard.db import queue, runs, states
from forgetbench.leaderboard.db.models import Board, Entry, Job, Score, Token, utc_now
from forgetbench.leaderboard.db.session import open_database, parse_url
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render import dump, static_site
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import (
    attacks,
    erasure,
    moderation,
    reference,
    results,
    rounds,
    seals,
    verification,
)
from forgetbench.leaderboard.submissions.moderation import QueueItem, StateChange, TargetState, queue_items
from forgetbench.leaderboard.submissions.rounds import Schedule
from forgetbench.registry import how_to_list

OPERATOR = "operator"
"""Actor of an operator's changes."""
DATABASE_FILE = "leaderboard.sqlite"
"""Name of the database in a backup."""


class TokenInfo(NamedTuple):
    """A token without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime | None
    last_used: datetime | None
    revoked: datetime | None
    daily_submissions: int | None
    team: str | None = None


class StateChangeResult(NamedTuple):
    """A change of an entry's state."""

    label: str
    submitter: str
    task: str
    before: str
    after: str


def install_bundle(settings: Settings, folder: Path) -> Board:
    """Create a board from a local reference bundle; the worker then scores its baselines.

    Such a board is not sealed: anyone can train its oracles, and its submissions stay claims.

    Raises:
        UsageError: The folder holds no reference bundle.
        ForgetBenchError: The bundle is damaged.
    """
    with open_database(settings) as database:
        return reference.install_bundle(database, settings, folder)


class RevealedRound(NamedTuple):
    """A round whose salt was published."""

    number: int
    salt: str


def reveal_salt(settings: Settings, task: str) -> RevealedRound:
    """Publish the salt of the round of a task's board, which ends the round; does nothing if it is published.

    Raises:
        UsageError: There is no such board, or it is not sealed.
        ForgetBenchError: The salt is missing in the server's folder.
    """
    with open_database(settings) as database, database.write_session() as session:
        board = session.scalar(select(Board).where(Board.task == task, Board.superseded_at.is_(None)))
        if board is None:
            tasks = session.scalars(select(Board.task).where(Board.superseded_at.is_(None)).order_by(Board.task)).all()
            raise UsageError(f"No board for task {task!r}. {how_to_list('board', list(tasks))}")
        if not board.sealed:
            raise UsageError(f"The board of {task} is not sealed: it has no salt to publish.")
        seal = seals.read_seal(settings, board)
        for round_board in session.scalars(select(Board).where(Board.task == task, Board.round == seal.round)):
            if round_board.salt is None and round_board.task_key == board.task_key:
                round_board.salt, round_board.revealed_at = seal.salt, utc_now()
                states.bump_revision(session, round_board.id)
        return RevealedRound(seal.round, seal.salt)


def has_boards(settings: Settings) -> bool:
    """Whether the server has any board."""
    with open_database(settings) as database, database.read_session() as session:
        return bool(queries.board_versions(session))


def create_token(
    settings: Settings,
    name: str,
    scopes: Iterable[str] = ("submit",),
    *,
    days: int | None = None,
    daily_submissions: int | None = None,
    team: str | None = None,
) -> str:
    """Create a token and return its text, which is not stored.

    Args:
        settings: Configuration of the server.
        name: Name of the owner, shown as the submitter.
        scopes: Permissions: submit, verify, moderate.
        days: Days until the token expires; None for never.
        daily_submissions: Submissions in 24 hours; None for the server's quota.
        team: Team of the owner, which is shown as the submitter and shares entries and quotas.

    Raises:
        UsageError: The name, a scope, the days or the quota is invalid.
    """
    expires = _expiry(days)
    with open_database(settings) as database, database.write_session() as session:
        return tokens.create_token(
            session, name, scopes, expires_at=expires, daily_submissions=daily_submissions, team=team
        )


def renew_token(settings: Settings, token: str, *, days: int | None = None) -> str:
    """Give a token a new secret, given its id or text, for an owner who lost it; returns the new text.

    Args:
        settings: Configuration of the server.
        token: Id or text of the token.
        days: Days until the token expires; None for never.

    Raises:
        UsageError: The token is unknown, or the days are invalid.
    """
    expires = _expiry(days)
    with open_database(settings) as database, database.write_session() as session:
        return tokens.renew_token(session, token, expires_at=expires)


def _expiry(days: int | None) -> datetime | None:
    if days is not None and days < 1:
        raise UsageError(f"Invalid number of days {days}: a token is valid for at least one day.")
    try:
        return utc_now() + timedelta(days=days) if days is not None else None
    except OverflowError as error:
        raise UsageError(
            f"Invalid number of days {days}: give fewer, or none for a token that never expires."
        ) from error


def list_tokens(settings: Settings) -> list[TokenInfo]:
    """List all tokens, newest first."""
    with open_database(settings) as database, database.read_session() as session:
        return [
            TokenInfo(
                row.id,
                row.name,
                tuple(row.scopes),
                row.created_at,
                row.expires_at,
                row.last_used_at,
                row.revoked_at,
                row.daily_submissions,
                row.team,
            )
            for row in session.scalars(select(Token).order_by(Token.created_at.desc()))
        ]


def revoke_token(settings: Settings, token: str) -> str:
    """Revoke a token, given its id or text; returns its name.

    Raises:
        UsageError: The token is unknown.
    """
    with open_database(settings) as database, database.write_session() as session:
        return tokens.revoke_token(session, token).name


def set_quota(settings: Settings, token: str, daily_submissions: int | None) -> str:
    """Set the quota of a token, given its id or text; returns its name.

    Args:
        settings: Configuration of the server.
        token: Id or text of the token.
        daily_submissions: Submissions in 24 hours; None for the server's quota.

    Raises:
        UsageError: The token is unknown, or the quota is negative.
    """
    tokens.validate_quota(daily_submissions)
    with open_database(settings) as database, database.write_session() as session:
        row = tokens.get_token(session, token)
        row.daily_submissions = daily_submissions
        return row.name


def moderation_queue(settings: Settings) -> list[QueueItem]:
    """List what needs a moderator: entries with alarms, flagged and quarantined entries, and failed jobs."""
    with open_database(settings) as database, database.read_session() as session:
        return queue_items(session)


def purge(settings: Settings, entry_id: str, reason: str) -> StateChangeResult:
    """Erase the texts and the evidence of an entry; a tombstone with the reason stays.

    Raises:
        UsageError: The entry is unknown or a reference row, or the reason is empty.
    """
    reason = _validate_reason(reason)
    with open_database(settings) as database:
        with database.read_session() as session:
            entry = session.get(Entry, entry_id)
            before = (entry.label, entry.submitter, entry.board.task, entry.state) if entry else ("", "", "", "")
        try:
            erasure.purge(database, settings, entry_id, reason, OPERATOR)
        except Problem as problem:
            raise UsageError(problem.detail) from problem
    return StateChangeResult(*before, "purged")


def schedule_round(settings: Settings, task: str, planned: Schedule) -> None:
    """Start a round of a task's board, or change the present one.

    Raises:
        UsageError: There is no such board, or the schedule is not possible.
    """
    with open_database(settings) as database, database.write_session() as session:
        rounds.schedule(session, task, planned)


def close_round(settings: Settings, task: str) -> datetime:
    """Close a task's board now, unless it is closed; returns when it closed.

    Raises:
        UsageError: There is no such board.
    """
    with open_database(settings) as database, database.write_session() as session:
        closed = rounds.close(session, task, utc_now()).closes_at
        return closed or utc_now()


def evaluate_round(settings: Settings, task: str) -> list[str]:
    """Request the final evaluation of a round; returns the entries that the runner runs.

    Raises:
        UsageError: There is no such board, its round has no final evaluation, or is open.
    """
    with open_database(settings) as database, database.write_session() as session:
        return results.evaluate(session, rounds.current_board(session, task), utc_now())


class RevealedResults(NamedTuple):
    """Results of a round that were revealed."""

    listed: int
    """Submissions that are listed now."""
    unfinished: int
    """Submissions that the runner has not finished."""


def reveal_round(settings: Settings, task: str) -> RevealedResults:
    """List the accepted submissions of a round, and rank them.

    Raises:
        UsageError: There is no such board.
    """
    with open_database(settings) as database, database.write_session() as session:
        board = rounds.current_board(session, task)
        unfinished = results.unfinished_runs(session, board)
        return RevealedResults(results.reveal(session, board, OPERATOR), unfinished)


class TeamToken(NamedTuple):
    """A token that was made from a line of a file."""

    team: str
    name: str
    token: str
    expires: str


_TEAM_COLUMNS = {"name", "team", "scopes", "days", "daily"}


def create_tokens(settings: Settings, source: Path, *, days: int | None = None) -> list[TeamToken]:
    """Create a token for each line of a CSV file with the column ``name``, all or none.

    Further columns are ``team``, whose members share entries and quotas, ``scopes`` (separated by spaces), ``days`` and
    ``daily``; empty cells have the defaults.

    Args:
        settings: Configuration of the server.
        source: The file.
        days: Days until tokens expire whose line has none; None for never.

    Raises:
        UsageError: The file is not readable, a column is unknown, or a line is invalid or names a name twice.
    """
    try:
        lines = list(csv.DictReader(source.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{source} cannot be read as a CSV file: {error}.") from error
    columns = {str(name) for line in lines for name in line}
    if "name" not in columns or not columns <= _TEAM_COLUMNS:
        have = ", ".join(sorted(columns)) or "none"
        raise UsageError(
            f"{source} has the columns {have}. Its first line must be `name`, or `name` with any of team, scopes, days "
            "and daily, separated by commas."
        )
    with open_database(settings) as database, database.write_session() as session:
        known, created = tokens.taken_names(session), []
        for number, line in enumerate(lines, start=2):
            fields = {name: (text or "").strip() for name, text in line.items()}
            if fields["name"].casefold() in known:
                raise UsageError(f"{source}, line {number}: the name {fields['name']!r} is taken. No token was made.")
            known.add(fields["name"].casefold())
            try:
                created.append(_create_team_token(session, fields, days))
            except (UsageError, ValueError) as error:
                raise UsageError(f"{source}, line {number}: {error} No token was made.") from error
        return created


def _create_team_token(session: Session, fields: dict[str, str], days: int | None) -> TeamToken:
    daily, valid = fields.get("daily"), fields.get("days")
    expires = _expiry(int(valid) if valid else days)
    text = tokens.create_token(
        session,
        fields["name"],
        fields.get("scopes", "").split() or ["submit"],
        expires_at=expires,
        daily_submissions=int(daily) if daily else None,
        team=fields.get("team") or None,
    )
    until = expires.isoformat(timespec="seconds") if expires else ""
    return TeamToken(fields.get("team", ""), fields["name"], text, until)


def create_invitation(
    settings: Settings,
    *,
    team: str | None = None,
    uses: int = 1,
    days: int | None = None,
    token_days: int | None = None,
) -> str:
    """Create an invitation code, with which people make their own tokens, and return it.

    Args:
        settings: Configuration of the server.
        team: The team that its tokens belong to; None if everyone names their own.
        uses: Tokens that can be made with it.
        days: Days until it expires; None for never.
        token_days: Days until its tokens expire; None for never.

    Raises:
        UsageError: A number or the team's name is invalid.
    """
    _expiry(token_days)
    with open_database(settings) as database, database.write_session() as session:
        return tokens.create_invitation(session, team=team, uses=uses, expires_at=_expiry(days), token_days=token_days)


def acknowledge(settings: Settings, entry_id: str, reason: str) -> StateChangeResult:
    """Remove an entry from the moderation queue without changing its state; a suspended claim gets its place back.

    Raises:
        UsageError: The entry is not in the queue, or the reason is empty.
    """
    found = _validate_reason(reason)
    with open_database(settings) as database, database.write_session() as session:
        try:
            entry = moderation.acknowledge(session, entry_id, found, OPERATOR)
        except Problem as problem:
            raise UsageError(problem.detail) from problem
        return StateChangeResult(entry.label, entry.submitter, entry.board.task, entry.state, entry.state)


def _validate_reason(text: str) -> str:
    try:
        return StateChange(state="listed", reason=text).reason
    except ValidationError:
        raise UsageError("A reason of 1 to 2000 characters is required; it appears in the public history.") from None


def change_state(settings: Settings, entry_id: str, state: TargetState, reason: str) -> StateChangeResult:
    """Change the state of an entry as the operator.

    Raises:
        UsageError: The entry is unknown, the transition is not allowed, or the reason is empty.
    """
    requested = StateChange(state=state, reason=_validate_reason(reason))
    with open_database(settings) as database, database.write_session() as session:
        entry = session.get(Entry, entry_id)
        before = entry.state if entry else ""
        try:
            entry = moderation.change_state(session, settings, entry_id, requested, OPERATOR, token=None)
        except Problem as problem:
            raise UsageError(problem.detail) from problem
        return StateChangeResult(entry.label, entry.submitter, entry.board.task, before, entry.state)


def retry_jobs(settings: Settings, job: str) -> list[str]:
    """Enqueue a failed job again, by its number, or ``all`` failed jobs; returns their keys.

    Raises:
        UsageError: There is no such failed job, or its entry cannot be scored again.
    """
    failed = select(Job.id).where(Job.state == "failed").order_by(Job.id)
    if job != "all":
        failed = failed.where(Job.id == (int(job) if job.isascii() and job.isdigit() and len(job) < 10 else 0))
    keys = []
    with open_database(settings) as database:
        with database.read_session() as session:
            numbers = session.scalars(failed).all()
        if not numbers and job != "all":
            raise UsageError(f"No failed job {job!r}; `forgetbench admin queue` lists failed jobs.")
        for number in numbers:
            with database.write_session() as session:
                try:
                    keys.append(_retry_job(session, settings, session.get_one(Job, number)))
                except Problem as problem:
                    raise UsageError(f"job {number}: {problem.detail}") from problem
    return keys


def _retry_job(session: Session, settings: Settings, job: Job) -> str:
    if job.kind == "verify":
        verification.retry_verification(session, job.subject)
    elif job.kind == "attack":
        attacks.retry_attack(session, job.subject)
    elif job.kind == "score":
        moderation.score_again(session, settings, session.get_one(Entry, job.subject), OPERATOR, "retried")
    elif job.kind in {"rescore", "score_verified"}:
        queue.enqueue(session, cast("queue.JobKind", job.kind), job.subject)
    elif job.kind == "run":
        runs.retry_run(session, job.subject)
    elif job.kind == "rank":
        queue.enqueue(session, "rank", job.subject)
    job.state = "done"
    return job.key


def rescore(settings: Settings, task: str | None = None) -> int:
    """Enqueue every entry that other scoring code scored; returns their number.

    Quarantined entries are included, because they may be listed again next to the new scores of the others.

    Args:
        settings: Configuration of the server.
        task: Task of one board; None for all boards.

    Raises:
        UsageError: There is no board of that task.
    """
    from forgetbench.fingerprints import scoring_fingerprint

    current_code = scoring_fingerprint()
    with open_database(settings) as database, database.write_session() as session:
        tasks = session.scalars(select(Board.task).distinct().order_by(Board.task)).all()
        if task is not None and task not in tasks:
            raise UsageError(f"No board for task {task!r}. {how_to_list('board', list(tasks))}")
        query = select(Entry.id, Score.software).join(Score).join(Board).order_by(Entry.id)
        query = query.where(Entry.state.in_((*states.PUBLIC_STATES, "accepted", "quarantined")))
        if task is not None:
            query = query.where(Board.task == task)
        outdated = [row.id for row in session.execute(query) if row.software.get("code") != current_code]
        for entry_id in outdated:
            queue.enqueue(session, "rescore", entry_id)
        return len(outdated)


def backup(settings: Settings, target: Path) -> Path:
    """Write the whole server into one tar file: a consistent copy of the database, and all files.

    The database is copied as it is, so that a backup taken before an upgrade can still be opened by the old version.

    Raises:
        UsageError: There is no database, it is not SQLite, or the file exists or is not writable.
    """
    source = _sqlite_file(settings)
    if not source.is_file():
        raise UsageError(f"There is no leaderboard in {settings.server_folder}: {source} does not exist.")
    if target.exists():
        raise UsageError(f"{target} already exists; choose another file.")
    copy = settings.server_folder / ".backup.sqlite"
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        _copy_database(source, copy)  # before the files, because a submission's files are stored before its row
        with _create_private_file(partial) as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(copy, DATABASE_FILE)
                for path in (settings.packs, settings.evidence, settings.verified, settings.salt):
                    if path.exists():
                        archive.add(path, path.name)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)
    return target


@contextmanager
def _create_private_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that only its owner may read."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"Cannot write to {path.parent}: {error.strerror}.") from error
    with os.fdopen(handle, "wb") as file:
        yield file


def restore(settings: Settings, source: Path) -> None:
    """Restore a server from its backup into an empty folder.

    Raises:
        UsageError: The database is not SQLite, the folder is not empty, or the file is not a backup.
        ForgetBenchError: The backup is unreadable.
    """
    _sqlite_file(settings)
    if settings.server_folder.exists() and any(settings.server_folder.iterdir()):
        raise UsageError(f"{settings.server_folder} is not empty; choose another folder.")
    settings.server_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with tarfile.open(source) as archive:
            if DATABASE_FILE not in archive.getnames():
                raise UsageError(f"{source} is not a backup of a leaderboard.")
            archive.extractall(settings.server_folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise ForgetBenchError(f"Cannot read {source} as a backup: {error}") from error
    with open_database(settings):
        pass  # upgrades the schema of an older version


def _sqlite_file(settings: Settings) -> Path:
    url = parse_url(settings.database)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise UsageError("Backups support SQLite only. For PostgreSQL, run pg_dump, then copy the server's folder.")
    return Path(url.database)


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    with sqlite3.connect(source) as database, sqlite3.connect(target) as copy:
        database.backup(copy)
    database.close()
    copy.close()


def write_dump(settings: Settings, target: Path) -> int:
    """Write all listed entries as JSON lines after a header line; returns their number.

    Raises:
        UsageError: The file is not writable.
    """
    with open_database(settings) as database:
        try:
            return dump.write(database, settings, target)
        except OSError as error:
            raise UsageError(f"Cannot write {target}: {error.strerror}.") from error


def export_static(settings: Settings, folder: Path, base: str) -> Sequence[Path]:
    """Write the boards as static files (see `render.static_site.export`); returns pages and tables."""
    with open_database(settings) as database, database.read_session() as session:
        return static_site.export(session, settings, folder, base)
