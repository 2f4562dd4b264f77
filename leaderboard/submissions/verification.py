"""Verifications: second records of an entry by other people, compared with the first metric by metric.

This is the server's part. ``forgetbench verify`` (`remote.verify`) runs the recipe again and posts the record;
``forgetbench reproduce`` (`reproduction`) compares a rerun locally and posts nothing.
"""

from __future__ import annotations

import shutil
from typing import TypedDict

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from forgetbench.evidence.run import Manifest, Run
from forgetbench.leaderboard.boards.compare import difference
from forgetbench.leaderboard.boards.entries import is_owner
from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.models import (
    Board,
    Entry,
    EvidenceFile,
    Job,
    Score,
    Token,
    Verification,
    utc_now,
)
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import FieldError, Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import receive
from forgetbench.leaderboard.submissions.uploads import UploadedBody, logits_digest, unpack
from forgetbench.store import JsonObject


class MetricComparison(TypedDict):
    """Difference of a ranking metric between two records, second minus first."""

    value: float | None
    """Difference of the values; None if a record lacks the metric."""
    low: float | None
    """Lower end of the 95 % interval."""
    high: float | None
    """Upper end of the 95 % interval."""
    agrees: bool | None
    """Whether the interval contains 0; None if both records lack the metric."""


def receive_verification(
    database: Database, settings: Settings, token: Token, entry_id: str, body: UploadedBody
) -> str:
    """Check and store a second record of an entry; returns the verification's id.

    Raises:
        Problem: 404, the entry is not listed; 403, it is the verifier's own; 422, the record is of another method, or
            its evidence is invalid.
    """
    folder = body.path.with_suffix(".run")
    try:
        run = unpack(body, folder, settings.max_manifest_bytes)
        with database.read_session() as session:
            entry = session.get(Entry, entry_id)
            if entry is None or entry.state not in states.PUBLIC_STATES or entry.baseline:
                raise Problem(404, "There is no listed submission with that id.")
            if is_owner(entry, token) or token.submitter == entry.submitter:
                raise Problem(403, "You cannot verify your own submission; another person must.")
            receive.check_space(session, settings, token, body.size)
            same_body = select(Verification.id).where(
                Verification.entry_id == entry_id, Verification.body_sha256 == body.sha256
            )
            earlier = session.scalars(same_body.limit(1)).first()
            board = session.get_one(Board, entry.board_id)
            errors = _check_method(entry, run) or receive.check_evidence(settings, board, run)
            errors += _check_new_answers(session, entry, run)
        if earlier is not None:
            with database.write_session() as session:
                retry_verification(session, earlier)
            return earlier
        if errors:
            raise Problem(422, f"This is not a second record of {entry_id}; nothing was stored.", errors)
        verification_id = states.new_id()
        verification = Verification(
            id=verification_id,
            entry_id=entry_id,
            token_id=token.id,
            verifier=token.name,
            received_at=utc_now(),
            manifest=run.manifest.model_dump(mode="json"),
            body_sha256=body.sha256,
            outcome="received",
        )
        receive.store_evidence(run, settings.evidence / verification_id)
        with database.write_session() as session:
            session.add(verification)
            queue.enqueue(session, "verify", verification_id)
        return verification_id
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_new_answers(session: Session, entry: Entry, run: Run) -> list[FieldError]:
    """Refuse answers of the first record or of another verification: the same bits prove copying, not a second run."""
    known = set(session.scalars(select(EvidenceFile.answers).where(EvidenceFile.entry_id == entry.id)))
    for content in session.scalars(select(Verification.manifest).where(Verification.entry_id == entry.id)):
        known |= {logits_digest(model) for model in Manifest.model_validate(content).models}
    message = (
        "has the answers of an earlier record, bit by bit: they prove no second run. `forgetbench verify --post` runs "
        "the method with other seeds; if it uses none, its second run cannot be distinguished from a copy"
    )
    return [
        FieldError(field=model.file, message=message) for model in run.manifest.models if logits_digest(model) in known
    ]


def _check_method(entry: Entry, run: Run) -> list[FieldError]:
    first, second = Manifest.model_validate(entry.manifest).method, run.manifest.method
    if first.source is None and not entry.registered:
        message = (
            "has no source in this entry, and is no method of this package with this server's fingerprint: "
            "others cannot run it again"
        )
        return [FieldError(field="method.source", message=message)]
    return [
        FieldError(field=f"method.{field}", message="differs from the submission")
        for field in ("name", "parameters", "fingerprint")
        if getattr(first, field) != getattr(second, field)
    ]


def retry_verification(session: Session, verification_id: str) -> None:
    """Enqueue a failed verification again; does nothing if it has not failed."""
    verification = session.get_one(Verification, verification_id, with_for_update=True)
    if verification.outcome == "failed":
        verification.outcome, verification.note = "received", None
        queue.enqueue(session, "verify", verification_id)


def mark_failed(session: Session, verification_id: str) -> None:
    """Record that a verification could not be scored."""
    verification = session.get_one(Verification, verification_id)
    entry = session.get_one(Entry, verification.entry_id)
    states.lock_entry(session, entry)
    verification.outcome, verification.note = "failed", "The server could not score it; this is the server's fault."
    reason = "a second run could not be scored, which is the server's fault; it may be posted again"
    states.record_event(session, entry, entry.state, verification.verifier, reason)
    states.bump_revision(session, entry.board_id)


def compare_scorecards(first: JsonObject, second: JsonObject) -> dict[str, MetricComparison]:
    """Compare the ranking metrics of two scorecards: second minus first, with an interval over seeds.

    A metric that one of the records lacks does not agree. If both lack it, ``agrees`` is None.
    """
    comparison: dict[str, MetricComparison] = {}
    for name in first["ranking"]:
        values = second["metrics"].get(name), first["metrics"].get(name)
        delta = difference(*values)
        if delta is None or delta.low is None or delta.high is None:
            lacking = [value is None or value["value"] is None or not value["pseudo_values"] for value in values]
            agrees = None if all(lacking) else False
            comparison[name] = {"value": None, "low": None, "high": None, "agrees": agrees}
        else:
            agrees = delta.low <= 0 <= delta.high
            comparison[name] = {"value": delta.value, "low": delta.low, "high": delta.high, "agrees": agrees}
    return comparison


def complete_verification(
    database: Database,
    verification_id: str,
    card: JsonObject,
    job: Job,
    first: JsonObject | None = None,
    *,
    copied: bool = False,
) -> None:
    """Store a scored verification, and update its entry: one more reproduction, flagged, or unchanged.

    Args:
        database: The server's database.
        verification_id: The verification.
        card: Its scorecard.
        job: The job that scored it.
        first: The entry's scorecard by the current code, if other code computed the stored one.
        copied: Whether nearly all of what its models changed is what those of the first record changed.
    """
    with database.write_session() as session:
        queue.complete(session, job)
        verification = session.get_one(Verification, verification_id)
        entry = session.get_one(Entry, verification.entry_id)
        states.lock_entry(session, entry)
        if entry.state == "purged":
            return
        score = session.get_one(Score, entry.id)
        comparison = compare_scorecards(first or score.public or score.card, card)
        verification.card, verification.comparison = card, dict(comparison)
        _apply_outcome(session, entry, verification, comparison, copied=copied)
        states.bump_revision(session, entry.board_id)
        if first is not None:
            queue.enqueue(session, "rescore", entry.id)
        queue.enqueue(session, "rank", str(entry.board_id))


def _apply_outcome(
    session: Session,
    entry: Entry,
    verification: Verification,
    comparison: dict[str, MetricComparison],
    *,
    copied: bool,
) -> None:
    """Set the outcome, with its events, and count the people whose run agreed; the tier of the entry stays."""
    differing = [name for name, item in comparison.items() if item["agrees"] is False]
    undecided = [name for name, item in comparison.items() if item["agrees"] is None]
    verifier = verification.verifier
    if differing:
        verification.outcome = "not reproduced"
        reason = f"a second run differs in {', '.join(differing)}"
        if entry.state == "listed":
            states.transition(session, entry, "flagged", verifier, reason)
    elif undecided or not comparison:
        verification.outcome = "failed"
        missing = ", ".join(undecided) or "every ranking metric"
        reason = f"a second run is inconclusive: {missing} is missing in both records"
        verification.note = f"{reason[0].upper()}{reason[1:]}."
        states.record_event(session, entry, entry.state, verifier, reason)
    elif copied:
        verification.outcome = "failed"
        reason = "a second run is not counted: nearly all of its answers are those of the first"
        verification.note = f"{reason[0].upper()}{reason[1:]}. They were copied, or the method hardly depends on seeds."
        states.record_event(session, entry, entry.state, verifier, reason)
    else:
        verification.outcome = "reproduced"
        states.record_event(session, entry, entry.state, verifier, "reproduced: a second run agrees")
        session.flush()
        agreeing = select(func.count(Verification.token_id.distinct())).where(
            Verification.entry_id == entry.id, Verification.outcome == "reproduced", ~Verification.identical
        )
        entry.reproductions = session.scalar(agreeing) or 0
