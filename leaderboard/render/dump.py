"""Dump of everything that is listed, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from forgetbench.leaderboard.boards.queries import Row
from forgetbench.leaderboard.db.models import Board, Entry, Score, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.render import serializers
from forgetbench.leaderboard.settings import Settings
from forgetbench.store import JsonObject

_BATCH = 20
"""Entries per query: their manifests and scorecards are large."""


def lines(database: Database, settings: Settings) -> Iterator[str]:
    """A line that describes the dump, then each listed entry of each board with its scorecard and manifest.

    Each batch has its own transaction, so that a slow client holds none; entries that are quarantined meanwhile are
    skipped.
    """
    with database.read_session() as session:
        protocols = sorted(session.scalars(select(Board.protocol).distinct()))
        ids = list(session.scalars(select(Entry.id).where(Entry.state.in_(PUBLIC_STATES)).order_by(Entry.id)))
    description = {
        "title": f"{settings.site_title} leaderboard",
        "license": settings.data_license,
        "version": version("forgetbench"),
        "protocols": protocols,
        "date": utc_now().isoformat(timespec="seconds"),
    }
    yield _line(description)
    for start in range(0, len(ids), _BATCH):
        with database.read_session() as session:
            query = (
                select(Entry, Score)
                .outerjoin(Score, Score.entry_id == Entry.id)
                .where(Entry.id.in_(ids[start : start + _BATCH]), Entry.state.in_(PUBLIC_STATES))
                .order_by(Entry.id)
                .options(joinedload(Entry.board))
            )
            batch = [_line(_entry(row[0], row[1])) for row in session.execute(query)]
        yield from batch


def write(database: Database, settings: Settings, target: Path) -> int:
    """Write the dump to a file; returns the number of entries."""
    count = -1  # the first line is not an entry
    with target.open("w", encoding="utf-8") as file:
        for line in lines(database, settings):
            file.write(line)
            count += 1
    return count


def _entry(entry: Entry, score: Score | None) -> JsonObject:
    return {
        "task": entry.board.task,
        "pack": entry.board.pack_sha256,
        "row": serializers.row(Row(entry, {})).model_dump(mode="json"),
        "scorecard": score.card if score else None,
        "manifest": entry.manifest,
    }


def _line(content: JsonObject) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"
