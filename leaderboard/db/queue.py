"""Job queue in the database: a worker leases a job, renews the lease while it works, then completes it.

The lease of a worker that died expires, and another worker takes the job. The results of a job are committed in the
transaction that completes it, and only while the lease is held, so no result is lost or written twice.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import and_, case, delete, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from forgetbench.leaderboard.db.models import Job, ScoringProcess, utc_now
from forgetbench.leaderboard.db.session import Database

JobKind = Literal["score", "score_verified", "rescore", "verify", "attack", "rank", "run"]
_PRIORITY: dict[JobKind, int] = {
    "score": 10,
    "score_verified": 11,
    "verify": 12,
    "attack": 13,
    "rescore": 15,
    "rank": 20,
    "run": 30,
}
SCORING_KINDS = ("score", "score_verified", "rescore", "verify", "attack", "rank")
"""Kinds of jobs of the scoring worker; those of kind ``run`` are the runner's."""
RANK_DELAY = timedelta(seconds=30)
"""Age from which a ranking goes before further scores, so that a steady stream of submissions does not delay it."""
_HEARTBEAT_RETENTION = timedelta(days=7)


class LeaseLostError(Exception):
    """Another worker holds the job; the caller must roll back."""


def enqueue(session: Session, kind: JobKind, subject: str) -> None:
    """Add a job unless the same one is waiting; earlier failures of the same job count as settled.

    A waiting job is locked until this transaction ends. A worker that took it before the commit would not see the rows
    that the job is about.
    """
    key = f"{kind}:{subject}"
    session.execute(update(Job).where(Job.key == key, Job.state == "failed").values(state="done"))
    waiting = select(Job.id).where(Job.key == key, Job.state == "waiting").limit(1).with_for_update()
    while session.scalar(waiting) is None:
        job = Job(
            key=key,
            kind=kind,
            subject=subject,
            priority=_PRIORITY[kind],
            state="waiting",
            attempts=0,
            created_at=utc_now(),
        )
        try:
            with session.begin_nested():
                session.add(job)
        except IntegrityError:
            continue  # another transaction added it at the same time, and a worker may have taken it already
        return


def claim(database: Database, worker: str, lease: float, kinds: Collection[str] = SCORING_KINDS) -> Job | None:
    """Lease the most urgent job that is waiting or whose lease has expired; None if there is none.

    Args:
        database: The server's database.
        worker: Unique name of the worker.
        lease: Seconds until the job counts as abandoned.
        kinds: Kinds of jobs that the worker does.
    """
    other_job = aliased(Job)
    now = utc_now()
    same_key_is_running = exists().where(other_job.key == Job.key, other_job.state == "running", other_job.id != Job.id)
    overdue = and_(Job.kind == "rank", Job.created_at < now - RANK_DELAY)
    candidate = (
        select(Job.id)
        .where(
            Job.kind.in_(kinds),
            or_(
                and_(Job.state == "waiting", ~same_key_is_running),
                and_(Job.state == "running", Job.lease_until < now),
            ),
        )
        .order_by(case((overdue, 0), else_=Job.priority), Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    try:
        with database.write_session() as session:
            job_id = session.scalar(candidate)
            job = session.get(Job, job_id) if job_id is not None else None
            if job is None:
                return None
            job.state, job.worker, job.attempts = "running", worker, job.attempts + 1
            job.lease_until = now + timedelta(seconds=lease)
            session.flush()
            session.expunge(job)
            return job
    except IntegrityError:  # PostgreSQL: another worker took a job of this key at the same time
        return None


def renew_lease(database: Database, job: Job, lease: float) -> bool:
    """Extend the lease of a job; False if it was lost."""
    with database.write_session() as session:
        return _update_leased(session, job, lease_until=utc_now() + timedelta(seconds=lease))


def complete(session: Session, job: Job, *, error: str | None = None) -> None:
    """Mark a job as done (or failed) within the transaction that writes its results.

    Raises:
        LeaseLostError: Another worker holds the job; the transaction must not be committed.
    """
    state = "done" if error is None else "failed"
    if not _update_leased(session, job, state=state, error=error, finished_at=utc_now(), lease_until=None):
        raise LeaseLostError(f"job {job.id} is no longer held by {job.worker}")


def retry_later(session: Session, job: Job, error: str, delay: float) -> None:
    """Let a job be tried again in ``delay`` seconds, when its lease expires."""
    _update_leased(session, job, error=error, lease_until=utc_now() + timedelta(seconds=delay))


def release(session: Session, job: Job) -> None:
    """Give a job back that was not really tried, because the server's storage failed; the attempt does not count."""
    _update_leased(session, job, attempts=job.attempts - 1, lease_until=utc_now())


def record_heartbeat(database: Database, worker: str, code: str, *, runs_methods: bool = False) -> None:
    """Record that a worker is running.

    Args:
        database: The server's database.
        worker: Unique name of the worker.
        code: Hash of its scoring code.
        runs_methods: Whether it is a runner.
    """
    with database.write_session() as session:
        process = session.get(ScoringProcess, worker)
        if process is None:
            session.execute(delete(ScoringProcess).where(ScoringProcess.seen_at < utc_now() - _HEARTBEAT_RETENTION))
            session.add(ScoringProcess(name=worker, code=code, seen_at=utc_now(), runs_methods=runs_methods))
        else:
            process.seen_at = utc_now()


def worker_warning(session: Session, lease: float) -> str:
    """Explain that no worker is running: none has sent a heartbeat for two leases; "" if one is running.

    Args:
        session: Session to read with.
        lease: Seconds until a job counts as abandoned.
    """
    last_seen = session.scalar(select(func.max(ScoringProcess.seen_at)).where(~ScoringProcess.runs_methods))
    if last_seen is not None and utc_now() - last_seen < timedelta(seconds=2 * lease):
        return ""
    unscored = select(func.count()).where(Job.state.in_(("waiting", "running")), Job.kind.in_(("score", "verify")))
    since = f"has been running since {last_seen:%Y-%m-%d %H:%M} UTC" if last_seen is not None else "has started yet"
    return f"no scoring worker {since}; submissions waiting for a score: {session.scalar(unscored)}"


def runner_warning(session: Session, lease: float) -> str:
    """Explain that no runner is running, which verifies submissions; "" if one is.

    Args:
        session: Session to read with.
        lease: Seconds until a job counts as abandoned.
    """
    last_seen = session.scalar(select(func.max(ScoringProcess.seen_at)).where(ScoringProcess.runs_methods))
    if last_seen is not None and utc_now() - last_seen < timedelta(seconds=2 * lease):
        return ""
    since = f"has been running since {last_seen:%Y-%m-%d %H:%M} UTC" if last_seen is not None else "has started yet"
    return f"no runner {since}, and only a runner verifies submissions"


def _update_leased(session: Session, job: Job, **values: Any) -> bool:
    """Update a job if this worker still holds it; whether it did."""
    held = and_(Job.id == job.id, Job.state == "running", Job.worker == job.worker, Job.attempts == job.attempts)
    statement = update(Job).where(held).values(**values).returning(Job.id)
    return session.scalar(statement.execution_options(synchronize_session=False)) is not None
