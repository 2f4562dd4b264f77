"""Verification: a second run of the same recipe, compared with the first metric by metric."""

from __future__ import annotations

import shutil
from typing import Any

from sqlalchemy import select

from forgetbench.evidence import Run
from forgetbench.leaderboard import jobs, states, submissions
from forgetbench.leaderboard.comparing import difference
from forgetbench.leaderboard.database import Database
from forgetbench.leaderboard.models import Board, Entry, Job, Score, Token, Verification, utc_now
from forgetbench.leaderboard.problems import FieldError, Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.uploads import Body, unpack


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
            if earlier is not None:
                return earlier
            board = session.get_one(Board, entry.board_id)
            errors = _other_method(entry, run) or submissions.check_evidence(settings, board, run)
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
        )
        name = verification.id
        submissions.put_in_place(run, settings.evidence / name)
        with database.writing() as session:
            session.add(verification)
            jobs.request(session, "verify", name)
        return name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def conclude(database: Database, identity: str, card: dict[str, Any], job: Job) -> None:
    """Keep a scored verification, and what it makes of the entry: reproduced, flagged, or as it was."""
    with database.writing() as session:
        jobs.finish(session, job)
        verification = session.get_one(Verification, identity)
        entry = session.get_one(Entry, verification.entry_id)
        states.lock(session, entry)
        comparison = comparison_of(session.get_one(Score, entry.id).card, card)
        apart = [name for name, item in comparison.items() if item["agrees"] is False]
        silent = [name for name, item in comparison.items() if item["agrees"] is None]
        verification.card, verification.comparison = card, comparison
        verification.verdict = "not reproduced" if apart else "failed" if silent or not comparison else "reproduced"
        if verification.verdict == "failed":
            reason = (
                f"a second run tells nothing: {', '.join(silent) or 'every ranking metric'} is missing in both records"
            )
            states.record(session, entry, entry.state, verification.verifier, reason)
        elif verification.verdict == "reproduced":
            states.record(session, entry, entry.state, verification.verifier, "tier: reproduced; a second run agrees")
            entry.tier = "reproduced"
        elif entry.state == "listed":
            reason = f"a second run differs in {', '.join(apart)}"
            states.move(session, entry, "flagged", verification.verifier, reason)
        states.touch(session, entry.board_id)
        jobs.request(session, "rank", str(entry.board_id))
