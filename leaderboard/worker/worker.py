"""Scoring worker: leases jobs from the database, scores evidence, and updates the rankings of boards."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.run import Manifest, Run
from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.failures import failure_kind
from forgetbench.leaderboard.db.models import (
    Board,
    Entry,
    Job,
    KnownAttack,
    MetricValue,
    Score,
    Token,
    Verification,
    utc_now,
)
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.render import vega
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import alarms, methods, reference, results, verification
from forgetbench.leaderboard.submissions import attacks as known_attacks
from forgetbench.leaderboard.worker import attacks, cleanup, notices, scoring

log = logging.getLogger("forgetbench.worker")
MIN_PAUSE, MAX_PAUSE = 1.0, 30.0
"""Seconds before an unreachable database is tried again; the pause doubles each time."""
MAX_DELAY = 300.0
"""Longest time in seconds before a failed job is tried again."""
MAINTENANCE_SECONDS = 3600.0
"""Time between two removals of leftovers."""
LOOK_SECONDS = 60.0
"""Time between two looks at the dates of rounds and at the moderation queue."""
_STORAGE_WORDS = {
    "full": "the disk is full",
    "busy": "the database is busy",
    "unreachable": "the database does not answer",
}


class Worker:
    """One worker; several may run on the same database."""

    def __init__(self, settings: Settings, database: Database, *, parent: int | None = None) -> None:
        self.settings, self.database, self._parent = settings, database, parent
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._last_heartbeat = self._last_maintenance = self._last_look = -math.inf
        self._handlers: dict[str, Callable[[Job], None]] = {
            "score": self._score,
            "score_verified": self._score_verified,
            "rescore": self._rescore,
            "verify": self._verify,
            "attack": self._attack,
            "rank": self._rank,
        }

    @property
    def max_attempts(self) -> int:
        """Number of attempts before a job counts as failed."""
        return self.settings.job_attempts

    def stop(self) -> None:
        """Make `run` return after the current job."""
        self._stop.set()

    def run(self) -> None:
        """Run jobs until `stop`, or until the parent process has ended; retries while the database does not answer."""
        log.info("worker %s started", self.name)
        prepared, failures = False, 0
        while not self._stop.is_set() and self._parent in {None, os.getppid()}:
            try:
                if not prepared:
                    self._enqueue_outdated()
                    prepared = True
                self._send_heartbeat()
                self._maintain()
                self._look_around()
                pause = 0.0 if self.work_once() else self.settings.poll_seconds
                failures = 0
            except (SQLAlchemyError, OSError) as error:
                pause, failures = min(MIN_PAUSE * 2**failures, MAX_PAUSE), min(failures + 1, 10)
                words = _STORAGE_WORDS[failure_kind(error) or "unreachable"]
                log.exception("%s; trying again in %.0f s", words, pause)
            self._stop.wait(pause)
        log.info("worker %s stopped", self.name)

    def _enqueue_outdated(self) -> None:
        """Have scores of an earlier protocol computed again."""
        with self.database.write_session() as session:
            count = scoring.enqueue_outdated(session)
        if count:
            log.info("%d entries were scored by an earlier protocol: scoring them again", count)

    def _maintain(self) -> None:
        """Write the program of interactive charts and remove leftovers, once an hour; scoring needs neither."""
        if time.monotonic() - self._last_maintenance < MAINTENANCE_SECONDS:
            return
        self._last_maintenance = time.monotonic()
        try:
            if removed := cleanup.remove_leftovers(self.settings, self.database):
                log.info("%d leftovers of interrupted uploads removed", removed)
            vega.write_program(self.settings)
        except Exception:
            log.exception("maintenance failed, and is tried again in %.0f s", MAINTENANCE_SECONDS)

    def _look_around(self) -> None:
        """Take the steps of rounds whose dates have come, and notify moderators, once a minute."""
        if time.monotonic() - self._last_look < LOOK_SECONDS:
            return
        self._last_look = time.monotonic()
        with self.database.read_session() as session:
            due = results.due(session, utc_now())
        for board_id in due:
            with self.database.write_session() as session:
                results.advance(session, board_id, utc_now())
        notices.notify(self.settings, self.database)

    def _send_heartbeat(self) -> None:
        """Record that this worker is running, at most three times per lease."""
        if time.monotonic() - self._last_heartbeat > self.settings.lease_seconds / 3:
            queue.record_heartbeat(self.database, self.name, scoring.software_versions()["code"])
            self._last_heartbeat = time.monotonic()

    def drain(self) -> int:
        """Run all waiting jobs; returns their number."""
        count = 0
        while self.work_once():
            count += 1
        return count

    def work_once(self) -> bool:
        """Run one job; False if none is waiting."""
        job = queue.claim(self.database, self.name, self.settings.lease_seconds, tuple(self._handlers))
        if job is None:
            return False
        try:
            if job.attempts > self.max_attempts:
                self._fail(job, job.error or "the worker died in every attempt")
            else:
                self._run_job(job)
        except queue.LeaseLostError:
            log.warning("job %s: the lease was lost to another worker", job.key)
        return True

    def _run_job(self, job: Job) -> None:
        started = time.monotonic()
        try:
            with self._renewed_lease(job):
                self._handlers[job.kind](job)
            log.info("job %s done in %.2f s", job.key, time.monotonic() - started)
        except queue.LeaseLostError:
            raise
        except Exception as error:
            if failure_kind(error) is not None:
                with suppress(SQLAlchemyError), self.database.write_session() as session:
                    queue.release(session, job)
                raise
            log.exception("job %s failed, attempt %d", job.key, job.attempts)
            message = f"{type(error).__name__}: {error}"
            if job.attempts >= self.max_attempts:
                self._fail(job, message)
            else:
                with self.database.write_session() as session:
                    queue.retry_later(
                        session, job, message, delay=min(self.settings.poll_seconds * 2**job.attempts, MAX_DELAY)
                    )

    @contextmanager
    def _renewed_lease(self, job: Job) -> Iterator[None]:
        """Renew the lease of a job in a thread until the block ends."""
        finished = threading.Event()

        def renew() -> None:
            while not finished.wait(self.settings.lease_seconds / 3):
                try:
                    if not queue.renew_lease(self.database, job, self.settings.lease_seconds):
                        return
                    self._send_heartbeat()
                except Exception:  # the next renewal may succeed; if none does, another worker takes the job
                    log.exception("the lease of job %s could not be renewed", job.key)

        thread = threading.Thread(target=renew, name="lease renewal", daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()

    def _fail(self, job: Job, error: str) -> None:
        """Mark a job as failed, and reject its entry or fail its verification."""
        with self.database.write_session() as session:
            queue.complete(session, job, error=error)
            if job.kind == "verify":
                verification.mark_failed(session, job.subject)
            if job.kind == "attack":
                known_attacks.mark_failed(session, job.subject, "The server could not score it.")
            entry = session.get(Entry, job.subject) if job.kind in {"score", "score_verified"} else None
            if entry is not None:
                states.lock_entry(session, entry)
            if entry is not None and entry.state in {"received", "scoring"}:
                if entry.state == "received":
                    states.transition(session, entry, "scoring", states.SERVER_ACTOR)
                reason = "The server could not score it, which is the server's fault. A moderator can retry it."
                states.transition(session, entry, "rejected", states.SERVER_ACTOR, reason)

    def _score(self, job: Job) -> None:
        with self.database.write_session() as session:
            entry = session.get_one(Entry, job.subject)
            states.lock_entry(session, entry)
            if entry.state not in {"received", "scoring"}:
                queue.complete(session, job)  # withdrawn meanwhile, or already scored
                return
            if entry.state == "received":
                states.transition(session, entry, "scoring", states.SERVER_ACTOR)
            board = session.get_one(Board, entry.board_id)
            session.flush()
            session.expunge_all()
        started = time.monotonic()
        try:
            result = scoring.score_entry(self.settings, board, entry)
        except ForgetBenchError as error:
            with self.database.write_session() as session:
                queue.complete(session, job)
                if (row := _lock_if_scoring(session, entry.id)) is not None:
                    states.transition(session, row, "rejected", states.SERVER_ACTOR, str(error))
            return
        with self.database.write_session() as session:
            queue.complete(session, job)
            if (row := _lock_if_scoring(session, entry.id)) is not None:
                scoring.write_score(session, row, result, time.monotonic() - started)
                _show(session, row)
                self._update_alarms(session, board, row, result)
                methods.request_for_claim(session, board, row)
                queue.enqueue(session, "rank", str(board.id))

    def _update_alarms(self, session: Session, board: Board, entry: Entry, result: scoring.ScoringResult) -> None:
        """Set the alarms of an entry; claims are compared with the other entries of their board."""
        claim = entry.tier == "claimed" and not entry.baseline
        models = scoring.board_models(reference.bundle_folder(self.settings, board)) if claim else None
        alarms.update_alarms(session, self.settings, entry, result.findings, models)

    def _score_verified(self, job: Job) -> None:
        """Score what the runner recorded, which replaces the score of the claim, and set the tier."""
        with self.database.read_session() as session:
            entry = session.get_one(Entry, job.subject)
            board = session.get_one(Board, entry.board_id)
            session.expunge_all()
        started = time.monotonic()
        result = scoring.score_entry(self.settings, board, entry, verified=True)
        with self.database.write_session() as session:
            queue.complete(session, job)
            entry = session.get_one(Entry, entry.id)
            states.lock_entry(session, entry)
            if entry.state in {"withdrawn", "rejected", "purged"}:
                return
            token = session.get_one(Token, entry.token_id)
            _replace_score(session, entry, result, time.monotonic() - started)
            entry.tier = "reference" if "run" in token.scopes else "verified"
            reason = f"tier: {entry.tier}; scored from the runner's evidence on public and sealed draws"
            states.record_event(session, entry, entry.state, states.SERVER_ACTOR, reason)
            if entry.state == "received":
                states.transition(session, entry, "scoring", states.SERVER_ACTOR)
            if entry.state == "scoring":
                _show(session, entry)
            self._update_alarms(session, board, entry, result)
            queue.enqueue(session, "rank", str(board.id))

    def _rescore(self, job: Job) -> None:
        """Score an entry again with newer code; the old scores stay visible until the new ones are written."""
        with self.database.read_session() as session:
            entry = session.get_one(Entry, job.subject)
            board = session.get_one(Board, entry.board_id)
            score = session.get(Score, entry.id)
            session.expunge_all()
        if score is None or scoring.is_current(score):
            with self.database.write_session() as session:
                queue.complete(session, job)
            return
        started = time.monotonic()
        result = scoring.score_entry(self.settings, board, entry)
        with self.database.write_session() as session:
            queue.complete(session, job)
            entry = session.get_one(Entry, entry.id)
            states.lock_entry(session, entry)
            if entry.state == "purged":
                return
            _replace_score(session, entry, result, time.monotonic() - started)
            self._update_alarms(session, board, entry, result)
            code = scoring.software_versions()["code"][:12]
            states.record_event(session, entry, entry.state, states.SERVER_ACTOR, f"scored again, by code {code}")
            queue.enqueue(session, "rank", str(board.id))

    def _verify(self, job: Job) -> None:
        with self.database.read_session() as session:
            record = session.get_one(Verification, job.subject)
            entry = session.get_one(Entry, record.entry_id)
            board = session.get_one(Board, entry.board_id)
            score = session.get_one(Score, entry.id)
            current = scoring.is_current(score)
            session.expunge_all()
        bundle = reference.bundle_folder(self.settings, board)
        run = Run(self.settings.evidence / record.id, Manifest.model_validate(record.manifest))
        card = scoring.get_scorer(bundle).score(run)
        copied = not entry.changes_training and scoring.is_copy(bundle, board, run, score.sketch)
        # Scores of different code are not comparable: score the first record again if necessary.
        result = None if current else scoring.score_entry(self.settings, board, entry)
        first = (result.public or result.card).model_dump(mode="json") if result else None
        verification.complete_verification(
            self.database, record.id, card.model_dump(mode="json"), job, first, copied=copied
        )

    def _attack(self, job: Job) -> None:
        """Score an attack; with one of the runner's, all of them on its board, since the family limit is over all."""
        with self.database.read_session() as session:
            record = session.get(KnownAttack, job.subject)
            entry = session.get_one(Entry, record.entry_id) if record else None
            board = session.get_one(Board, entry.board_id) if entry else None
            repeated = known_attacks.repeated_on(session, board.id) if board else []
            chosen = repeated if record and record.runner else [record] if record else []
            records = [(one, session.get_one(Entry, one.entry_id)) for one in chosen]
            session.expunge_all()
        found = attacks.score_records(self.settings, board, records, repeated) if board and records else {}
        with self.database.write_session() as session:
            queue.complete(session, job)
            for record_id, result in found.items():
                known_attacks.write_result(session, record_id, result)

    def _rank(self, job: Job) -> None:
        with self.database.read_session() as session:
            board = session.get_one(Board, int(job.subject))
            stored = scoring.read_ranking_input(session, board)
            session.expunge_all()
        ranking = scoring.rank_board(self.settings, board, stored)
        with self.database.write_session() as session:
            queue.complete(session, job)
            scoring.write_ranking(session, board.id, ranking)


def _replace_score(session: Session, entry: Entry, result: scoring.ScoringResult, seconds: float) -> None:
    """Write a score in place of the present one, if there is one."""
    for table in (Score, MetricValue):
        session.execute(delete(table).where(table.entry_id == entry.id))
    scoring.write_score(session, entry, result, seconds)


def _show(session: Session, entry: Entry) -> None:
    """Put a scored entry on its board, or accept it while the results of its round are hidden."""
    board = session.get_one(Board, entry.board_id)
    states.transition(session, entry, states.scored_state(board, entry), states.SERVER_ACTOR)


def _lock_if_scoring(session: Session, entry_id: str) -> Entry | None:
    """Lock an entry; None if it was withdrawn or rejected while it was scored."""
    entry = session.get_one(Entry, entry_id)
    states.lock_entry(session, entry)
    return entry if entry.state == "scoring" else None
