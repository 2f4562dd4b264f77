"""Verification: a second run of the same recipe, compared with the first metric by metric."""

from __future__ import annotations

import shutil
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from forgetbench.evidence.run import Run
from forgetbench.leaderboard.boards.compare import difference
from forgetbench.leaderboard.db import queue as jobs
from forgetbench.leaderboard.db import states
from forgetbench.leaderboard.db.models import Board, Entry, EvidenceFile, Job, Score, Token, Verification, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import FieldError, Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import receive as submissions
from forgetbench.leaderboard.submissions.uploads import Body, answers_digest, unpack


def receive(database: Database, settings: Settings, token: Token, identity: str, body: Body) -> str:
    """Check and keep a verifier's record of an entry; returns the verification's id.

    Raises:
        Problem: It is refused: not listed, another method, one's own entry, or evidence that is wrong.
    """
    folder = body.path.with_suffix(".run")
    try:
        run = unpack(body, folder, settings.max_manifest_bytes)
        with database.reading() as session:
            entry = session.get(Entry, identity)
            if entry is None or entry.state not in states.PUBLIC or entry.tier == "reference":
                raise Problem(404, "There is no listed submission of that id.")
            if entry.token_id == token.id:
                raise Problem(403, "A submission is verified by somebody else than its submitter.")
            same = select(Verification.id).where(
                Verification.entry_id == identity, Verification.body_sha256 == body.sha256
            )
            earlier = session.scalars(same.limit(1)).first()
            board = session.get_one(Board, entry.board_id)
            errors = _other_method(entry, run) or submissions.check_evidence(settings, board, run)
            identical = _answers_of(session, entry) == {
                model.file: answers_digest(model) for model in run.manifest.evidence
            }
        if earlier is not None:
            with database.writing() as session:
                score_again(session, earlier)
            return earlier
        if errors:
            raise Problem(422, f"This is no second record of {identity}; nothing was stored.", errors)
        verification = Verification(
            id=states.new_id(),
            entry_id=identity,
            token_id=token.id,
            verifier=token.name,
            received_at=utc_now(),
            manifest=run.manifest.model_dump(mode="json"),
            body_sha256=body.sha256,
            verdict="received",
            identical=identical,
        )
        name = verification.id
        submissions.put_in_place(run, settings.evidence / name)
        with database.writing() as session:
            session.add(verification)
            jobs.request(session, "verify", name)
        return name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def score_again(session: Session, identity: str) -> None:
    """Ask for the score of a verification once more, where it failed."""
    verification = session.get_one(Verification, identity, with_for_update=True)
    if verification.verdict == "failed":
        verification.verdict, verification.note = "received", None
        jobs.request(session, "verify", identity)


def give_up(session: Session, identity: str) -> None:
    """Note that a verification could not be scored."""
    verification = session.get_one(Verification, identity)
    entry = session.get_one(Entry, verification.entry_id)
    states.lock(session, entry)
    verification.verdict, verification.note = "failed", "The server could not score it; this is the server's fault."
    reason = "a second run could not be scored, which is the server's fault; it may be posted again"
    states.record(session, entry, entry.state, verification.verifier, reason)
    states.touch(session, entry.board_id)


def _answers_of(session: Session, entry: Entry) -> dict[str, str]:
    files = select(EvidenceFile.name, EvidenceFile.answers).where(EvidenceFile.entry_id == entry.id)
    return {row.name: row.answers for row in session.execute(files)}


def _other_method(entry: Entry, run: Run) -> list[FieldError]:
    ours, theirs = entry.manifest["method"], run.manifest.model_dump(mode="json")["method"]
    return [
        FieldError(field=f"method.{field}", message="is not that of the submission")
        for field in ("name", "parameters", "source_sha256")
        if ours[field] != theirs[field]
    ]


def comparison_of(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Second record minus first, for each metric that ranks: value, interval, and whether the interval contains 0.

    A metric that one of the records lacks does not agree; one that both lack cannot tell, and ``agrees`` is None.
    """
    found: dict[str, Any] = {}
    for name in first["ranking"]:
        one, other = second["metrics"].get(name), first["metrics"].get(name)
        apart = difference(one, other)
        if apart is None or apart.low is None or apart.high is None:
            lacking = [record is None or record["value"] is None or not record["pseudo"] for record in (one, other)]
            found[name] = {"value": None, "low": None, "high": None, "agrees": None if all(lacking) else False}
        else:
            agrees = apart.low <= 0 <= apart.high
            found[name] = {"value": apart.value, "low": apart.low, "high": apart.high, "agrees": agrees}
    return found


def conclude(
    database: Database, identity: str, card: dict[str, Any], job: Job, first: dict[str, Any] | None = None
) -> None:
    """Keep a scored verification, and what it makes of the entry: reproduced, flagged, or as it was.

    Args:
        database: Where rows are.
        identity: The verification.
        card: Its scorecard.
        job: The job that scored it.
        first: The entry's scorecard by the same code, where other code wrote the one that is kept.
    """
    with database.writing() as session:
        jobs.finish(session, job)
        verification = session.get_one(Verification, identity)
        entry = session.get_one(Entry, verification.entry_id)
        states.lock(session, entry)
        comparison = comparison_of(first or session.get_one(Score, entry.id).card, card)
        verification.card, verification.comparison = card, comparison
        _judge(session, entry, verification, comparison)
        states.touch(session, entry.board_id)
        if first is not None:
            jobs.request(session, "rescore", entry.id)
        jobs.request(session, "rank", str(entry.board_id))


def _judge(session: Session, entry: Entry, verification: Verification, comparison: dict[str, Any]) -> None:
    """The verdict of a comparison, with its events: a row that a second run differs from is reproduced no longer."""
    apart = [name for name, item in comparison.items() if item["agrees"] is False]
    silent = [name for name, item in comparison.items() if item["agrees"] is None]
    verification.verdict = "not reproduced" if apart else "failed" if silent or not comparison else "reproduced"
    if verification.verdict == "failed":
        missing = ", ".join(silent) or "every ranking metric"
        verification.note = f"A second run tells nothing: {missing} is missing in both records."
        reason = f"a second run tells nothing: {missing} is missing in both records"
        states.record(session, entry, entry.state, verification.verifier, reason)
    elif verification.verdict == "reproduced":
        how = "agrees to the bit" if verification.identical else "agrees"
        states.record(session, entry, entry.state, verification.verifier, f"tier: reproduced; a second run {how}")
        entry.tier = "reproduced"
    else:
        reason = f"a second run differs in {', '.join(apart)}"
        if entry.tier == "reproduced":
            states.record(session, entry, entry.state, verification.verifier, f"tier: recomputed; {reason}")
            entry.tier = "recomputed"
        if entry.state == "listed":
            states.move(session, entry, "flagged", verification.verifier, reason)
