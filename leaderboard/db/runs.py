"""Runs of submitted methods by the board's own runner: requested, in progress, done or failed.

The runner (`forgetbench.verification`) is a process of its own; this is its table and its part of the queue.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from forgetbench.evidence.run import Manifest
from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.models import BoardRun, Entry, Job, search_text, utc_now
from forgetbench.store import JsonObject, digest


class RunState(NamedTuple):
    """What people see of a run."""

    state: str
    """``waiting``, ``running``, ``done`` or ``failed``."""
    place: int | None
    """Position in the queue, from 1; None unless it waits."""
    progress: str
    """What the runner does now, or ""."""
    reason: str
    """Why it failed, or ""."""
    cost: JsonObject | None
    """What was measured (`verification.rerun.MeasuredCost`), with ``cost_class``."""


def request_run(session: Session, entry: Entry, code: JsonObject, *, at_once: bool = True) -> None:
    """Ask the runner to run an entry's method; does nothing if that was requested before.

    Args:
        session: Session to write with.
        entry: The entry.
        code: The method (`submissions.methods.SubmittedCode`), ready for JSON.
        at_once: Whether it is queued now, not at the final evaluation of a round.
    """
    if session.get(BoardRun, entry.id) is None:
        session.add(BoardRun(entry_id=entry.id, state="waiting", code=code, requested_at=utc_now()))
        session.flush()
        if at_once:
            queue.enqueue(session, "run", entry.id)


def drop_run(session: Session, entry_id: str) -> None:
    """Forget a run that was not started."""
    session.execute(delete(BoardRun).where(BoardRun.entry_id == entry_id, BoardRun.state == "waiting"))


def run_state(session: Session, entry_id: str) -> RunState | None:
    """What people see of an entry's run; None if none was requested."""
    run = session.get(BoardRun, entry_id)
    if run is None:
        return None
    place = None
    if run.state == "waiting":
        own = session.scalar(select(Job.id).where(Job.key == f"run:{entry_id}", Job.state == "waiting"))
        unfinished = select(func.count(Job.id)).where(Job.kind == "run", Job.state.in_(("waiting", "running")))
        place = session.scalar(unfinished.where(Job.id <= own)) if own is not None else None
    return RunState(run.state, place, run.progress, run.reason, run.cost)


def start_run(session: Session, entry_id: str, runner: str) -> BoardRun:
    """Mark a run as running; returns it."""
    run = session.get_one(BoardRun, entry_id)
    run.state, run.runner, run.progress, run.updated_at = "running", runner, "", utc_now()
    return run


def report_progress(session: Session, entry_id: str, text: str) -> None:
    """Write what the runner does now."""
    run = session.get(BoardRun, entry_id)
    if run is not None:  # else the entry was purged meanwhile
        run.progress, run.updated_at = text[:200], utc_now()


class ShownMethod(NamedTuple):
    """What boards show of an entry's method."""

    name: str
    """The method, by which pages group rows."""
    label: str
    """The row."""
    registered: bool
    """Whether it is a method of this package as this server has it, as far as the manifest says."""


def finish_run(session: Session, entry: Entry, manifest: Manifest, cost: JsonObject, shown: ShownMethod) -> None:
    """Mark a run as done, and write what the runner learned of the method in place of any claim.

    Args:
        session: Session to write with.
        entry: The entry, locked.
        manifest: The manifest of the run on public draws.
        cost: What was measured.
        shown: What boards show of the method.
    """
    run = session.get_one(BoardRun, entry.id)
    run.state, run.progress, run.reason, run.cost, run.updated_at = "done", "", "", cost, utc_now()
    method = manifest.method
    if _is_planned(entry):
        content = manifest.model_dump(mode="json")
        entry.method, entry.label, entry.family = shown.name, shown.label, method.family
        entry.sentinel, entry.manifest, entry.manifest_sha256 = method.sentinel, content, digest(content)
        entry.search_text = search_text(shown.label, method, entry.submitter)
    entry.registered = shown.registered
    entry.needs_retain, entry.fingerprint = "retain" in method.needs, method.fingerprint
    entry.changes_training, entry.cost_class = method.changes_training, str(cost["cost_class"])


def retry_run(session: Session, entry_id: str) -> None:
    """Let the runner run a method again; finished models are not made again."""
    run = session.get_one(BoardRun, entry_id, with_for_update=True)
    run.state, run.reason, run.updated_at = "waiting", "", utc_now()
    queue.enqueue(session, "run", entry_id)


def fail_run(session: Session, entry_id: str, reason: str, actor: str, *, reject: bool = True) -> None:
    """Record why a method could not be verified: a claim stays listed, a method alone is rejected.

    Args:
        session: Session to write with.
        entry_id: The entry.
        reason: Why, in words.
        actor: Name in the entry's history.
        reject: Whether the method is to blame, so that there is nothing to retry.
    """
    run = session.get(BoardRun, entry_id)
    if run is None:
        return  # the entry was purged meanwhile
    run.state, run.progress, run.reason, run.updated_at = "failed", "", reason[:2000], utc_now()
    entry = session.get_one(Entry, entry_id)
    states.lock_entry(session, entry)
    if reject and entry.state == "received" and _is_planned(entry):
        states.transition(session, entry, "rejected", actor, f"not verified: {reason[:1000]}")
    else:
        states.record_event(session, entry, entry.state, actor, f"not verified: {reason[:1000]}")
        states.bump_revision(session, entry.board_id)


def _is_planned(entry: Entry) -> bool:
    """Whether only a method was submitted: there is no evidence but the runner's."""
    return not entry.manifest.get("models")
