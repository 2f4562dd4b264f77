"""What an operator does on the server's machine: tokens, moderation, recounts, backup, export."""

from __future__ import annotations

import os
import sqlite3
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.db import queue as jobs
from forgetbench.leaderboard.db import states
from forgetbench.leaderboard.db.models import Board, Entry, Job, Score, Token, Verification
from forgetbench.leaderboard.db.session import Database, parse_url
from forgetbench.leaderboard.db.states import PUBLIC
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render import dump as dumps
from forgetbench.leaderboard.render import static_site as plain
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import moderation, verification
from forgetbench.leaderboard.submissions.moderation import StateChange, Wanted
from forgetbench.leaderboard.web.app import prepare

OPERATOR = "operator"


class TokenLine(NamedTuple):
    """A token as an operator sees it; never its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime | None
    last_used: datetime | None
    revoked: datetime | None
    daily_submissions: int | None


class QueueLine(NamedTuple):
    """Something that waits for a moderator."""

    entry: str
    """Its id; of a job that failed ``job`` and its number."""
    task: str
    label: str
    submitter: str
    state: str
    why: str


class Change(NamedTuple):
    """What became of an entry."""

    label: str
    submitter: str
    task: str
    before: str
    after: str


@contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """The server's database, its schema brought up to date."""
    database = Database(settings.database)
    try:
        prepare(settings, database)
        yield database
    finally:
        database.close()


def list_tokens(settings: Settings) -> list[TokenLine]:
    """All tokens, the newest first."""
    with opened(settings) as database, database.reading() as session:
        return [
            TokenLine(
                row.id,
                row.name,
                tuple(row.scopes),
                row.created_at,
                row.expires_at,
                row.last_used_at,
                row.revoked_at,
                row.daily_submissions,
            )
            for row in session.scalars(select(Token).order_by(Token.created_at.desc()))
        ]


def revoke_token(settings: Settings, identity: str) -> str:
    """Revoke a token, by its id or the whole token; returns its name.

    Raises:
        UsageError: There is none of that id.
    """
    with opened(settings) as database, database.writing() as session:
        return tokens.revoke(session, identity).name


def set_quota(settings: Settings, identity: str, daily_submissions: int | None) -> str:
    """Give a token a quota of its own, or with None the server's; returns its name.

    Raises:
        UsageError: There is no such token, or the quota is negative.
    """
    tokens.check_quota(daily_submissions)
    with opened(settings) as database, database.writing() as session:
        token = tokens.find(session, identity)
        token.daily_submissions = daily_submissions
        return token.name


def queue(settings: Settings) -> list[QueueLine]:
    """What a moderator should look at: alarms, flagged and quarantined entries, and failed jobs."""
    waiting = (
        select(Entry.id, Board.task, Entry.label, Entry.submitter, Entry.state, Entry.note, Entry.alarms)
        .join(Board, Board.id == Entry.board_id)
        .where(Entry.queued)
        .order_by(Entry.received_at)
    )
    with opened(settings) as database, database.reading() as session:
        lines = [
            QueueLine(identity, task, label, submitter, state, "; ".join(filter(None, [note, *(alarms or ())])))
            for identity, task, label, submitter, state, note, alarms in session.execute(waiting)
        ]
        failed = session.scalars(select(Job).where(Job.state == "failed").order_by(Job.id))
        return lines + [_job_line(session, job) for job in failed]


def _job_line(session: Session, job: Job) -> QueueLine:
    """A job that failed, with the row or the board that it was for."""
    record = session.get(Verification, job.subject) if job.kind == "verify" else None
    entry = session.get(Entry, record.entry_id if record else job.subject) if job.kind != "rank" else None
    board = session.get(Board, entry.board_id if entry else int(job.subject)) if entry or job.kind == "rank" else None
    label, submitter = (entry.label, entry.submitter) if entry else ("", "")
    task = board.task if board else job.subject
    return QueueLine(f"job {job.id}", task, label, submitter, f"{job.kind} failed", job.error or "")


def acknowledge(settings: Settings, identity: str, reason: str) -> Change:
    """Take an entry off the queue: somebody has looked at it, and it stays as it is.

    Raises:
        UsageError: It is not in the queue, or the reason is empty.
    """
    with opened(settings) as database, database.writing() as session:
        entry = session.get(Entry, identity)
        if entry is not None:
            states.lock(session, entry)
        if entry is None or not entry.queued:
            raise UsageError(f"{identity!r} is not in the queue; `forgetbench admin queue` shows what is.")
        entry.queued = False
        states.record(session, entry, entry.state, OPERATOR, f"looked at: {_reason(reason)}")
        return Change(entry.label, entry.submitter, entry.board.task, entry.state, entry.state)


def _reason(text: str) -> str:
    """A reason as it may stand in the history.

    Raises:
        UsageError: It is empty or too long.
    """
    try:
        return StateChange(state="listed", reason=text).reason
    except ValidationError:
        raise UsageError("A reason is needed, of 1 to 2000 characters: it stands in the public history.") from None


def change_state(settings: Settings, identity: str, state: Wanted, reason: str) -> Change:
    """Bring an entry into a state, as the operator.

    Raises:
        UsageError: There is no such entry, or that state does not follow the present one.
    """
    wanted = StateChange(state=state, reason=_reason(reason))
    with opened(settings) as database, database.writing() as session:
        entry = session.get(Entry, identity)
        before = entry.state if entry else ""
        try:
            entry = moderation.change(session, settings, identity, wanted, OPERATOR, token=None)
        except Problem as error:
            raise UsageError(error.detail) from error
        return Change(entry.label, entry.submitter, entry.board.task, before, entry.state)


def retry(settings: Settings, job: str) -> list[str]:
    """Ask again for a job that failed, by its number, or for all of them; returns what they are.

    Raises:
        UsageError: No such job has failed, or its entry may not be scored again.
    """
    failed = select(Job.id).where(Job.state == "failed").order_by(Job.id)
    if job != "all":
        failed = failed.where(Job.id == (int(job) if job.isascii() and job.isdigit() and len(job) < 10 else 0))
    asked = []
    with opened(settings) as database:
        with database.reading() as session:
            found = session.scalars(failed).all()
        if not found and job != "all":
            raise UsageError(f"No job {job!r} has failed; `forgetbench admin queue` shows those that have.")
        for number in found:
            with database.writing() as session:
                try:
                    asked.append(_ask_again(session, settings, session.get_one(Job, number)))
                except Problem as error:
                    raise UsageError(f"job {number}: {error.detail}") from error
    return asked


def _ask_again(session: Session, settings: Settings, job: Job) -> str:
    if job.kind == "verify":
        verification.score_again(session, job.subject)
    elif job.kind == "score":
        moderation.score_again(session, settings, session.get_one(Entry, job.subject), OPERATOR, "asked for again")
    elif job.kind == "rescore":
        jobs.request(session, "rescore", job.subject)
    elif job.kind == "rank":
        jobs.request(session, "rank", job.subject)
    job.state = "done"
    return job.key


def recount(settings: Settings, task: str | None = None) -> int:
    """Have every entry scored again that other scoring code scored; returns how many were asked for.

    Quarantined entries too: they may be listed again one day, among the new numbers of the others.

    Args:
        settings: Where everything is.
        task: One board; None: all.

    Raises:
        UsageError: There is no board of that task.
    """
    from forgetbench.scoring.scorer import scoring_code

    present = scoring_code()
    with opened(settings) as database, database.writing() as session:
        tasks = session.scalars(select(Board.task).distinct().order_by(Board.task)).all()
        if task is not None and task not in tasks:
            raise UsageError(f"There is no board of {task!r} here. There is: {', '.join(tasks) or 'none yet'}.")
        query = select(Entry.id, Score.software).join(Score).join(Board).order_by(Entry.id)
        query = query.where(Entry.state.in_((*PUBLIC, "quarantined")))
        if task is not None:
            query = query.where(Board.task == task)
        stale = [row.id for row in session.execute(query) if row.software.get("code") != present]
        for identity in stale:
            jobs.request(session, "rescore", identity)
        return len(stale)


def backup(settings: Settings, target: Path) -> Path:
    """The whole server in one tar file: a consistent copy of the database, and all files.

    Raises:
        UsageError: The database is not SQLite, or the file exists.
    """
    source = _sqlite_file(settings)
    if target.exists():
        raise UsageError(f"{target} exists; a backup overwrites nothing.")
    copy, fresh = settings.server_folder / ".backup.sqlite", target.with_name(f".{target.name}.{os.getpid()}")
    with opened(settings):  # files of a submission are there before its row: the database is copied first
        _copy_database(source, copy)
    try:
        with _new_file(fresh, "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(copy, "leaderboard.sqlite")
                for folder in (settings.packs, settings.evidence):
                    archive.add(folder, folder.name)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(target)
    finally:
        fresh.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)
    return target


@contextmanager
def _new_file(path: Path, mode: str) -> Iterator[IO[Any]]:
    """A new file that its owner alone may read.

    Raises:
        UsageError: It cannot be made there.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"{path.parent} is no folder that can be written to: {error.strerror}.") from error
    with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file


def restore(settings: Settings, source: Path) -> None:
    """A server from its backup, into an empty folder.

    Raises:
        UsageError: The folder is not empty, or the file is no backup.
    """
    _sqlite_file(settings)
    if settings.server_folder.exists() and any(settings.server_folder.iterdir()):
        raise UsageError(f"{settings.server_folder} is not empty; restore into a new folder.")
    settings.server_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with tarfile.open(source) as archive:
            if "leaderboard.sqlite" not in archive.getnames():
                raise UsageError(f"{source} is no backup of a leaderboard.")
            archive.extractall(settings.server_folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise ForgetBenchError(f"{source} cannot be read as a backup: {error}") from error
    with opened(settings):
        return


def _sqlite_file(settings: Settings) -> Path:
    url = parse_url(settings.database)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise UsageError("This copies SQLite servers; for PostgreSQL use pg_dump, and copy the folder after it.")
    return Path(url.database)


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    with sqlite3.connect(source) as database, sqlite3.connect(target) as copy:
        database.backup(copy)
    database.close()
    copy.close()


def dump(settings: Settings, target: Path) -> int:
    """Everything that is listed as JSON lines, behind a head that says what it is; returns how many entries.

    Raises:
        UsageError: The file cannot be written.
    """
    with opened(settings) as database:
        try:
            return dumps.write(database, settings, target)
        except OSError as error:
            raise UsageError(f"{target} cannot be written: {error.strerror}.") from error


def export_static(settings: Settings, folder: Path, base: str) -> Sequence[Path]:
    """The boards as plain files that outlive the server, as ``plain.export`` writes them."""
    with opened(settings) as database, database.reading() as session:
        return plain.export(session, settings, folder, base)
