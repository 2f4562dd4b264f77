"""Erase an entry: its texts and its evidence, not the fact that there was one."""

from __future__ import annotations

import shutil

from sqlalchemy import delete, or_, select, update

from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.models import (
    ERASED,
    BoardRun,
    Entry,
    Event,
    EvidenceFile,
    IdempotencyKey,
    Job,
    KnownAttack,
    MetricValue,
    PastPlacing,
    Placing,
    Score,
    Verification,
)
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings

_NO_HASH = "0" * 64
_TABLES = (Score, MetricValue, Placing, PastPlacing, EvidenceFile, BoardRun, IdempotencyKey, KnownAttack)
"""Tables of which an erased entry has no rows."""
_CLEARED = (
    *("status", "reasons", "flags", "distance", "distance_low", "distance_high", "verdict", "within_band", "outcome"),
    *("forgotten", "forgotten_low", "forgotten_high", "harm", "harm_low", "harm_high"),
    *("cost", "budget", "cost_class", "fingerprint", "alarms"),
)
"""Columns of an erased entry without a value."""


def purge(database: Database, settings: Settings, entry_id: str, reason: str, actor: str) -> None:
    """Erase an entry. Its row stays as a tombstone with dates, the reason and who erased it, and counts as an attempt.

    Erased are names, manifest, source, scores, evidence, second records, and actors and reasons in its history. Earlier
    backups, dumps and static exports are not changed.

    Args:
        database: The server's database.
        settings: Folders of the server.
        entry_id: The entry.
        reason: Reason, which everyone can read.
        actor: Who erases it.

    Raises:
        Problem: 404, there is no such entry; 409, it is a reference row, or erased already.
    """
    with database.erasing_session() as session:
        entry = session.get(Entry, entry_id) if "\0" not in entry_id else None
        if entry is None:
            raise Problem(404, "There is no submission with that id.")
        states.lock_entry(session, entry)
        if entry.baseline or entry.state == "purged":
            raise Problem(409, "A reference row cannot be erased." if entry.baseline else "It was erased before.")
        records = list(session.scalars(select(Verification.id).where(Verification.entry_id == entry_id)))
        attacks = list(session.scalars(select(KnownAttack.id).where(KnownAttack.entry_id == entry_id)))
        for table in _TABLES:
            session.execute(delete(table).where(table.entry_id == entry_id))
        session.execute(
            update(Verification)
            .where(Verification.entry_id == entry_id)
            .values(verifier=ERASED, manifest={}, body_sha256=_NO_HASH, card=None, comparison=None, note=None)
        )
        subjects = Job.subject.in_([entry_id, *records, *attacks])
        session.execute(update(Job).where(subjects).values(error=None))
        waiting = or_(Job.state == "waiting", Job.state == "failed")
        session.execute(update(Job).where(subjects, waiting).values(state="done"))
        session.execute(update(Event).where(Event.entry_id == entry_id).values(actor=ERASED, reason=ERASED))
        entry.method = entry.label = entry.family = entry.submitter = ERASED
        entry.search_text, entry.manifest, entry.manifest_sha256 = "", {}, _NO_HASH
        for name in _CLEARED:
            setattr(entry, name, None)
        entry.queued = entry.suspended = False
        states.record_event(session, entry, "purged", actor, reason)
        entry.state, entry.note = "purged", reason
        states.bump_revision(session, entry.board_id)
        queue.enqueue(session, "rank", str(entry.board_id))
    # after the commit: a folder that is left here is removed by the worker's next clean-up
    for folder in (settings.evidence / entry_id, settings.verified / entry_id):
        shutil.rmtree(folder, ignore_errors=True)
    for record in (*records, *attacks):
        shutil.rmtree(settings.evidence / record, ignore_errors=True)
