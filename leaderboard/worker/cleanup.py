"""Remove the files of interrupted uploads and downloads, and sign-ins that were given up."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select

from forgetbench.leaderboard.auth import sign_in
from forgetbench.leaderboard.db.models import Entry, KnownAttack, Verification
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings

MIN_AGE_SECONDS = 6 * 3600.0
"""Younger files may belong to an upload in progress."""


def remove_leftovers(settings: Settings, database: Database, min_age: float = MIN_AGE_SECONDS) -> int:
    """Remove interrupted uploads, unfinished downloads, and evidence without a row; returns their number.

    Sign-ins that were given up are deleted too.

    Evidence is stored before its row, so a server that dies between the two leaves a folder without a row.

    Args:
        settings: Folders of the server.
        database: The server's database.
        min_age: Least age of a leftover, in seconds.
    """
    with database.write_session() as session:
        sign_in.forget_expired(session)
    with database.read_session() as session:
        kept = Entry.state != "purged"
        second = select(Verification.id).join(Entry, Entry.id == Verification.entry_id).where(kept)
        attacks = select(KnownAttack.id).join(Entry, Entry.id == KnownAttack.entry_id).where(kept)
        ids = (session.scalars(query) for query in (select(Entry.id).where(kept), second, attacks))
        known = {identity for found in ids for identity in found}
    leftovers = [*settings.incoming.glob("*"), *settings.packs.glob("*/.public-*")]
    for folder in (settings.evidence, settings.verified):
        leftovers += [path for path in folder.glob("*") if path.name not in known]
    return sum(_remove(path, time.time() - min_age) for path in leftovers)


def _remove(path: Path, newest: float) -> bool:
    """Remove a file or folder that was not changed since ``newest``; whether it did."""
    with suppress(FileNotFoundError):  # an upload that ended meanwhile, or another worker
        if path.stat().st_mtime < newest:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            return True
    return False
