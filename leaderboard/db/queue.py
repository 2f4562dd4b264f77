"""Jobs in the database: a worker leases one, renews the lease while it works, and gives it back done or failed.

A worker that dies lets its lease run out, and another does the job again. What a job changes is committed in the
transaction that marks it done, and only while the lease is held: nothing is lost and nothing is done twice.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import and_, delete, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from forgetbench.leaderboard.db.models import Job, ScoringProcess, utc_now
from forgetbench.leaderboard.db.session import Database

Kind = Literal["score", "rescore", "verify", "rank"]
_FORGOTTEN = timedelta(days=7)
_PRIORITY: dict[str, int] = {"score": 10, "verify": 12, "rescore": 15, "rank": 20}


class LeaseLost(Exception):  # noqa: N818 - it says what happened
    """Another worker has the job by now; whatever was done for it must not be kept."""


def request(session: Session, kind: Kind, subject: str) -> None:
    """Ask for a job, unless the same one waits already; whatever failed of it before is settled by that.

    One that waits is held until this transaction ends: a worker that took it before would not see what it is asked for.
    """
    key = f"{kind}:{subject}"
    session.execute(update(Job).where(Job.key == key, Job.state == "failed").values(state="done"))
    same = select(Job.id).where(Job.key == key, Job.state == "waiting").limit(1).with_for_update()
    while session.scalar(same) is None:
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
            continue  # someone else asked for it at the same moment; it may be taken already
        return


def claim(database: Database, worker: str, lease: float) -> Job | None:
    """Lease the most urgent job that waits, or whose worker let its lease run out; None where there is none.

    Args:
        database: Where the jobs are.
        worker: Name of the one who asks, unique.
        lease: Seconds until the job counts as abandoned.
    """
    other = aliased(Job)
    now = utc_now()
    running = exists().where(other.key == Job.key, other.state == "running", other.id != Job.id)
    candidate = (
        select(Job.id)
        .where(
            or_(
                and_(Job.state == "waiting", ~running),
                and_(Job.state == "running", Job.lease_until < now),
            )
        )
        .order_by(Job.priority, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    try:
        with database.writing() as session:
            identity = session.scalar(candidate)
            job = session.get(Job, identity) if identity is not None else None
            if job is None:
                return None
            job.state, job.worker, job.attempts = "running", worker, job.attempts + 1
            job.lease_until = now + timedelta(seconds=lease)
            session.flush()
            session.expunge(job)
            return job
    except IntegrityError:  # PostgreSQL: another worker took a job of this key at the same moment
        return None


def renew(database: Database, job: Job, lease: float) -> bool:
    """Heartbeat: hold the job for longer. False where the lease is lost."""
    with database.writing() as session:
        until = utc_now() + timedelta(seconds=lease)
        return _change_held(session, job, lease_until=until)


def finish(session: Session, job: Job, *, error: str | None = None) -> None:
    """Mark the job done (or failed) within the transaction that keeps its result.

    Raises:
        LeaseLost: Someone else has it; the transaction must not be committed.
    """
    state = "done" if error is None else "failed"
    if not _change_held(session, job, state=state, error=error, finished_at=utc_now(), lease_until=None):
        raise LeaseLost(f"job {job.id} is no longer held by {job.worker}")


def retry(session: Session, job: Job, error: str, delay: float) -> None:
    """Let the job be tried again after some seconds: its lease runs out then."""
    _change_held(session, job, error=error, lease_until=utc_now() + timedelta(seconds=delay))


def note_process(database: Database, name: str, code: str) -> None:
    """Write down that a scoring process was heard of now."""
    with database.writing() as session:
        process = session.get(ScoringProcess, name)
        if process is None:
            session.execute(delete(ScoringProcess).where(ScoringProcess.seen_at < utc_now() - _FORGOTTEN))
            session.add(ScoringProcess(name=name, code=code, seen_at=utc_now()))
        else:
            process.seen_at = utc_now()


def trouble(session: Session, lease: float) -> str:
    """Why nothing is scored: no scoring process was heard of for two leases; "" where one was.

    Args:
        session: Where to read.
        lease: Seconds until a job counts as abandoned.
    """
    seen = session.scalar(select(func.max(ScoringProcess.seen_at)))
    if seen is not None and utc_now() - seen < timedelta(seconds=2 * lease):
        return ""
    asked = select(func.count()).where(Job.state.in_(("waiting", "running")), Job.kind.in_(("score", "verify")))
    since = f"since {seen:%Y-%m-%d %H:%M} UTC" if seen is not None else "yet"
    return f"no scoring process has been heard of {since}; {session.scalar(asked)} wait for a score"


def _change_held(session: Session, job: Job, **values: Any) -> bool:
    """Change a job if it is still held as it was when it was claimed."""
    held = and_(Job.id == job.id, Job.state == "running", Job.worker == job.worker, Job.attempts == job.attempts)
    statement = update(Job).where(held).values(**values).returning(Job.id)
    return session.scalar(statement.execution_options(synchronize_session=False)) is not None
