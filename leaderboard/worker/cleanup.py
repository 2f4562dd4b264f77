"""Tidying up: what an interrupted upload left behind."""

from __future__ import annotations

import shutil
import time

from sqlalchemy import select

from forgetbench.leaderboard.db.models import Entry, Verification
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings

LEFT_AFTER_SECONDS = 6 * 3600.0


def remove_leftovers(settings: Settings, database: Database, older_than: float = LEFT_AFTER_SECONDS) -> int:
    """Remove uploads that were cut off, and evidence whose row was never written; returns how many.

    Evidence is on disk before its row exists, so a server that dies between the two leaves a folder without an owner.

    Args:
        settings: Where the folders are.
        database: Where the rows are.
        older_than: Seconds that a leftover must have lain there; uploads under way are younger.
    """
    before = time.time() - older_than
    removed = 0
    for path in settings.incoming.glob("*") if settings.incoming.is_dir() else ():
        if path.stat().st_mtime < before:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            removed += 1
    if settings.evidence.is_dir():
        with database.reading() as session:
            known = {*session.scalars(select(Entry.id)), *session.scalars(select(Verification.id))}
        for path in settings.evidence.iterdir():
            if path.name not in known and path.stat().st_mtime < before:
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
    return removed
