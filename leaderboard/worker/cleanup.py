"""Remove the files of interrupted uploads."""

from __future__ import annotations

import shutil
import time

from sqlalchemy import select

from forgetbench.leaderboard.db.models import Entry, Verification
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings

MIN_AGE_SECONDS = 6 * 3600.0
"""Younger files may belong to an upload in progress."""


def remove_leftovers(settings: Settings, database: Database, min_age: float = MIN_AGE_SECONDS) -> int:
    """Remove interrupted uploads, and evidence without a row; returns their number.

    Evidence is stored before its row, so a server that dies between the two leaves a folder without a row.

    Args:
        settings: Folders of the server.
        database: The server's database.
        min_age: Least age of a leftover, in seconds.
    """
    newest = time.time() - min_age
    removed = 0
    for path in settings.incoming.glob("*") if settings.incoming.is_dir() else ():
        if path.stat().st_mtime < newest:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            removed += 1
    if settings.evidence.is_dir():
        with database.read_session() as session:
            known = {*session.scalars(select(Entry.id)), *session.scalars(select(Verification.id))}
        for path in settings.evidence.iterdir():
            if path.name not in known and path.stat().st_mtime < newest:
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
    return removed
