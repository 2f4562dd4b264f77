"""Everything that is listed, as lines of JSON: who asks for it over HTTP and the operator get the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from forgetbench.leaderboard.boards.queries import Row
from forgetbench.leaderboard.db.models import Board, Entry, Score, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.render import serializers as documents
from forgetbench.leaderboard.settings import Settings

_AT_ONCE = 20
"""Entries that are read at a time: their manifests and scorecards are large."""


def lines(database: Database, settings: Settings) -> Iterator[str]:
    """The dump's head, then every listed entry of every board with its scorecard and manifest.

    Each batch is read by itself, so that nothing is held while a slow reader takes the rest; what is quarantined
    meanwhile is left out.
    """
    with database.read_session() as session:
        protocols = sorted(session.scalars(select(Board.protocol).distinct()))
        ids = list(session.scalars(select(Entry.id).where(Entry.state.in_(PUBLIC_STATES)).order_by(Entry.id)))
    head = {
        "title": f"{settings.site_title} leaderboard",
        "license": settings.data_license,
        "version": version("forgetbench"),
        "protocols": protocols,
        "date": utc_now().isoformat(timespec="seconds"),
    }
    yield _line(head)
    for start in range(0, len(ids), _AT_ONCE):
        with database.read_session() as session:
            query = (
                select(Entry, Score)
                .outerjoin(Score, Score.entry_id == Entry.id)
                .where(Entry.id.in_(ids[start : start + _AT_ONCE]), Entry.state.in_(PUBLIC_STATES))
                .order_by(Entry.id)
                .options(joinedload(Entry.board))
            )
            batch = [_line(_entry(row[0], row[1])) for row in session.execute(query)]
        yield from batch


def write(database: Database, settings: Settings, target: Path) -> int:
    """Write the dump into a file; returns how many entries it holds."""
    count = -1  # the head is none
    with target.open("w", encoding="utf-8") as file:
        for line in lines(database, settings):
            file.write(line)
            count += 1
    return count


def _entry(entry: Entry, score: Score | None) -> dict[str, Any]:
    return {
        "task": entry.board.task,
        "pack": entry.board.pack_sha256,
        "row": documents.row(Row(entry, {})),
        "scorecard": score.card if score else None,
        "manifest": entry.manifest,
    }


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"
