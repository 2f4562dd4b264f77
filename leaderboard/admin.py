"""What an operator does on the server's machine: tokens, moderation, recounts, backup, export."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import func, make_url, select
from sqlalchemy.orm import Session, joinedload

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leaderboard import boards, charts, documents, exports, jobs, moderation, tokens
from forgetbench.leaderboard.app import prepare
from forgetbench.leaderboard.database import Database
from forgetbench.leaderboard.models import Board, Entry, Job, Score, Token, utc_now
from forgetbench.leaderboard.moderation import StateChange, Wanted
from forgetbench.leaderboard.problems import Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.states import PUBLIC
from forgetbench.leaderboard.views import View

OPERATOR = "operator"
ALARMS = ("suspicious",)
"""Flags that ask for a moderator's look."""


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
    task: str
    label: str
    submitter: str
    state: str
    why: str


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


def queue(settings: Settings) -> list[QueueLine]:
    """What a moderator should look at: flagged and quarantined entries, alarms, and failed jobs."""
    with opened(settings) as database, database.reading() as session:
        entries = session.scalars(
            select(Entry)
            .where(Entry.state.in_(("listed", "flagged", "quarantined")), Entry.tier != "reference")
            .options(joinedload(Entry.board), boards.light_columns())
            .order_by(Entry.received_at)
        )
        lines = []
        for entry in entries:
            alarms = sorted(set(entry.flags or []) & set(ALARMS))
            if entry.state != "listed" or alarms:
                why = entry.note or ", ".join(alarms)
                lines.append(QueueLine(entry.id, entry.board.task, entry.label, entry.submitter, entry.state, why))
        failed = session.scalars(select(Job).where(Job.state == "failed").order_by(Job.id))
        lines += [QueueLine(job.subject, job.kind, job.key, "", "failed job", job.error or "") for job in failed]
        return lines


def change_state(settings: Settings, identity: str, state: Wanted, reason: str) -> str:
    """Bring an entry into a state, as the operator; returns its label.

    Raises:
        UsageError: There is no such entry, or that state does not follow the present one.
    """
    with opened(settings) as database, database.writing() as session:
        try:
            wanted = StateChange(state=state, reason=reason)
            return moderation.change(session, identity, wanted, OPERATOR, token=None).label
        except (Problem, ValueError) as error:
            raise UsageError(str(error)) from error


def recount(settings: Settings, task: str | None = None) -> int:
    """Have every listed entry scored again that other scoring code scored; returns how many were asked for.

    Args:
        settings: Where everything is.
        task: One board; None: all.
    """
    from forgetbench.judging import scoring_code

    present = scoring_code()
    with opened(settings) as database, database.writing() as session:
        query = select(Entry.id, Score.software).join(Score).join(Board).where(Entry.state.in_(PUBLIC))
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
    copy = settings.server_folder / ".backup.sqlite"
    with opened(settings):  # files of a submission are there before its row: the database is copied first
        _copy_database(source, copy)
    try:
        with tarfile.open(target, "w") as archive:
            archive.add(copy, "leaderboard.sqlite")
            for folder in (settings.packs, settings.evidence):
                archive.add(folder, folder.name)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        copy.unlink(missing_ok=True)
    return target


def restore(settings: Settings, source: Path) -> None:
    """A server from its backup, into an empty folder.

    Raises:
        UsageError: The folder is not empty, or the file is no backup.
    """
    _sqlite_file(settings)
    if settings.server_folder.exists() and any(settings.server_folder.iterdir()):
        raise UsageError(f"{settings.server_folder} is not empty; restore into a new folder.")
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
    url = make_url(settings.database)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise UsageError("This copies SQLite servers; for PostgreSQL use pg_dump, and copy the folder after it.")
    return Path(url.database)


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with sqlite3.connect(source) as database, sqlite3.connect(target) as copy:
        database.backup(copy)
    database.close()
    copy.close()


def dump(settings: Settings, target: Path) -> int:
    """Everything that is listed as JSON lines, one entry with scorecard and manifest in each; returns how many."""
    count = 0
    with opened(settings) as database, database.reading() as session, target.open("w", encoding="utf-8") as file:
        for identity in session.scalars(select(Entry.id).where(Entry.state.in_(PUBLIC)).order_by(Entry.id)):
            file.write(json.dumps(_line(session, identity), ensure_ascii=False) + "\n")
            count += 1
    return count


def _line(session: Session, identity: str) -> dict[str, object]:
    entry = session.get_one(Entry, identity)
    score = session.get(Score, identity)
    line: dict[str, object] = {
        "task": entry.board.task,
        "pack": entry.board.pack_sha256,
        "row": documents.row(boards.Row(entry, {})),
        "scorecard": score.card if score else None,
        "manifest": entry.manifest,
    }
    session.expunge_all()
    return line


def export_static(settings: Settings, folder: Path, base: str) -> Sequence[Path]:
    """The boards as plain files that outlive the server: a page, CSV, JSON and charts for each, and an index.

    Args:
        settings: Where everything is.
        folder: Where to write; made if it is not there.
        base: Address of the server, for the links in the files.
    """
    from forgetbench.leaderboard.rendering import Pages

    written = []
    pages = Pages(settings)
    folder.mkdir(parents=True, exist_ok=True)
    with opened(settings) as database, database.reading() as session:
        found = boards.current(session)
        for board in found:
            page = boards.page(session, board, View(columns="all"), None)
            name = board.task.replace("/", "--")
            for ending, (_, write) in exports.FORMATS.items():
                path = folder / f"{name}.{ending}"
                path.write_bytes(write(page, base))
                written.append(path)
            drawn = [charts.draw(session, board, *axes) for axes in charts.default_axes(board)]
            pictures = [f"{name}-{drawing.x.key}-{drawing.y.key}.svg" for drawing in drawn if drawing]
            for drawing, picture in zip(filter(None, drawn), pictures, strict=True):
                (folder / picture).write_bytes(pages.render("chart.svg", drawing=drawing))
            path = folder / f"{name}.html"
            path.write_bytes(
                pages.render(
                    "static.html", page=page, board=board, name=name, pictures=pictures, base=base, now=utc_now()
                )
            )
            written.append(path)
        listed = select(Entry.board_id, func.count()).where(Entry.state.in_(PUBLIC)).group_by(Entry.board_id)
        counts = {row[0]: row[1] for row in session.execute(listed)}
        index = folder / "index.html"
        index.write_bytes(pages.render("static_index.html", boards=found, counts=counts, base=base, now=utc_now()))
    shutil.copyfile(Path(__file__).parent / "static" / "style.css", folder / "style.css")
    return [*written, index]
