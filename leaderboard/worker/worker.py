"""The scoring process: takes jobs from the database, scores evidence, and brings the ranks of boards up to date."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.run import Manifest, Run
from forgetbench.leaderboard.boards import distributions
from forgetbench.leaderboard.db import queue as jobs
from forgetbench.leaderboard.db import states
from forgetbench.leaderboard.db.models import (
    CHOICES,
    Board,
    Entry,
    Job,
    MetricValue,
    Placing,
    Score,
    Verification,
    utc_now,
)
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.render import vega
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import alarms, verification
from forgetbench.leaderboard.submissions import reference as packs
from forgetbench.leaderboard.worker import cleanup as housekeeping
from forgetbench.leaderboard.worker import scoring as scorer
from forgetbench.scoring.scorecards import Scorecard

log = logging.getLogger("forgetbench.worker")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before a database that does not answer is asked again: twice as long each time."""


class Scored(NamedTuple):
    """What is computed of an entry's evidence."""

    card: Scorecard
    phi: list[float]
    """Shares of phi in the bins of the board."""
    alarms: list[str]
    """What of the answers a moderator should know."""


class Worker:
    """One scoring process."""

    def __init__(self, settings: Settings, database: Database, *, parent: int | None = None) -> None:
        self.settings, self.database, self._parent = settings, database, parent
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._heard = -math.inf
        self._kinds: dict[str, Callable[[Job], None]] = {
            "score": self._score,
            "rescore": self._rescore,
            "verify": self._verify,
            "rank": self._rank,
        }

    def stop(self, *_: Any) -> None:
        """Stop after the job at hand; usable as a signal's handler."""
        self._stop.set()

    def run(self) -> None:
        """Work until told to stop; a database that does not answer is asked again."""
        log.info("worker %s looks for jobs", self.name)
        vega.make(self.settings)
        tidy, failures = False, 0
        while not self._stop.is_set() and self._parent in {None, os.getppid()}:
            try:
                if not tidy:
                    housekeeping.remove_leftovers(self.settings, self.database)
                    tidy = True
                self._be_heard()
                pause = 0.0 if self.work_once() else self.settings.poll_seconds
                failures = 0
            except SQLAlchemyError:
                pause, failures = min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE), min(failures + 1, 10)
                log.exception("the database does not answer; it is asked again in %.0f s", pause)
            self._stop.wait(pause)
        log.info("worker %s stopped", self.name)

    def _be_heard(self) -> None:
        """Write down that this process runs, where that was not done of late."""
        if time.monotonic() - self._heard > self.settings.lease_seconds / 3:
            jobs.note_process(self.database, self.name, scorer.software()["code"])
            self._heard = time.monotonic()

    def drain(self) -> int:
        """Do every job that waits, and return how many there were."""
        done = 0
        while self.work_once():
            done += 1
        return done

    def work_once(self) -> bool:
        """Do one job; False where there is none."""
        job = jobs.claim(self.database, self.name, self.settings.lease_seconds)
        if job is None:
            return False
        try:
            if job.kind not in self._kinds:
                self._give_up(job, "this version knows no such job")
            elif job.attempts > self.settings.job_attempts:
                self._give_up(job, job.error or "the scoring process died each time")
            else:
                self._do(job)
        except jobs.LeaseLost:
            log.warning("job %s: the lease was lost, another worker has it", job.key)
        return True

    def _do(self, job: Job) -> None:
        started = time.monotonic()
        try:
            with self._heartbeat(job):
                self._kinds[job.kind](job)
            log.info("job %s done in %.2f s", job.key, time.monotonic() - started)
        except jobs.LeaseLost:
            raise
        except Exception as error:
            log.exception("job %s failed, attempt %d", job.key, job.attempts)
            message = f"{type(error).__name__}: {error}"
            if job.attempts >= self.settings.job_attempts:
                self._give_up(job, message)
            else:
                with self.database.writing() as session:
                    jobs.retry(session, job, message, delay=self.settings.poll_seconds * 2**job.attempts)

    @contextmanager
    def _heartbeat(self, job: Job) -> Iterator[None]:
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self.settings.lease_seconds / 3):
                try:
                    if not jobs.renew(self.database, job, self.settings.lease_seconds):
                        return
                    self._be_heard()
                except Exception:  # the next beat may get through: without any, another worker takes the job
                    log.exception("the lease of job %s could not be renewed", job.key)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _give_up(self, job: Job, error: str) -> None:
        with self.database.writing() as session:
            jobs.finish(session, job, error=error)
            if job.kind == "verify":
                verification.give_up(session, job.subject)
            entry = session.get(Entry, job.subject) if job.kind == "score" else None
            if entry is not None:
                states.lock(session, entry)
            if entry is not None and entry.state in {"received", "scoring"}:
                if entry.state == "received":
                    states.move(session, entry, "scoring", states.SERVER)
                reason = (
                    "The server could not score it; this is the server's fault. A moderator can have it scored again."
                )
                states.move(session, entry, "rejected", states.SERVER, reason)

    def _score(self, job: Job) -> None:
        with self.database.writing() as session:
            entry = session.get_one(Entry, job.subject)
            states.lock(session, entry)
            if entry.state not in {"received", "scoring"}:
                jobs.finish(session, job)  # withdrawn in the meantime, or scored
                return
            if entry.state == "received":
                states.move(session, entry, "scoring", states.SERVER)
            board = session.get_one(Board, entry.board_id)
            session.flush()
            session.expunge_all()
        started = time.monotonic()
        try:
            scored = self._scorecard(board, entry)
        except ForgetBenchError as error:
            with self.database.writing() as session:
                jobs.finish(session, job)
                if (found := _still_scoring(session, entry.id)) is not None:
                    states.move(session, found, "rejected", states.SERVER, str(error))
            return
        with self.database.writing() as session:
            jobs.finish(session, job)
            if (found := _still_scoring(session, entry.id)) is not None:
                write_numbers(session, found, scored, time.monotonic() - started)
                states.move(session, found, "listed", states.SERVER)
                alarms.write(session, self.settings, found, scored.alarms)
                jobs.request(session, "rank", str(board.id))

    def _scorecard(self, board: Board, entry: Entry) -> Scored:
        pack = packs.folder(self.settings, board) / "pack"
        judge, bins = scorer.judge_of(pack), scorer.distributions_of(pack)
        if entry.tier == "reference":
            models = judge.originals if entry.method == "none" else judge.pack.population("controls")
            return Scored(judge.score_reference(entry.label), distributions.of_models(judge, bins, models), [])
        run = Run(self.settings.evidence / entry.id, Manifest.model_validate(entry.manifest))
        card, models = judge.score(run), run.population(board.draws, board.seeds)
        return Scored(card, distributions.of_models(judge, bins, models), alarms.of_answers(judge, models))

    def _rescore(self, job: Job) -> None:
        """Score an entry once more, by newer code; its old numbers stand until the new ones are there."""
        with self.database.reading() as session:
            entry = session.get_one(Entry, job.subject)
            board = session.get_one(Board, entry.board_id)
            score = session.get(Score, entry.id)
            session.expunge_all()
        if score is None or _scored_by_this_code(score):
            with self.database.writing() as session:
                jobs.finish(session, job)
            return
        started = time.monotonic()
        scored = self._scorecard(board, entry)
        with self.database.writing() as session:
            jobs.finish(session, job)
            entry = session.get_one(Entry, entry.id)
            states.lock(session, entry)
            for table in (Score, MetricValue):
                session.execute(delete(table).where(table.entry_id == entry.id))
            write_numbers(session, entry, scored, time.monotonic() - started)
            alarms.write(session, self.settings, entry, scored.alarms)
            code = scorer.software()["code"][:12]
            states.record(session, entry, entry.state, states.SERVER, f"scored again, by code {code}")
            jobs.request(session, "rank", str(board.id))

    def _verify(self, job: Job) -> None:
        with self.database.reading() as session:
            record = session.get_one(Verification, job.subject)
            entry = session.get_one(Entry, record.entry_id)
            board = session.get_one(Board, entry.board_id)
            fresh = _scored_by_this_code(session.get_one(Score, entry.id))
            session.expunge_all()
        judge = scorer.judge_of(packs.folder(self.settings, board) / "pack")
        card = judge.score(Run(self.settings.evidence / record.id, Manifest.model_validate(record.manifest)))
        first = None if fresh else self._scorecard(board, entry).card.model_dump(mode="json")
        verification.conclude(self.database, record.id, card.model_dump(mode="json"), job, first)

    def _rank(self, job: Job) -> None:
        with self.database.reading() as session:
            board = session.get_one(Board, int(job.subject))
            briefs = session.execute(
                select(Entry.id, Entry.tier, Entry.sentinel, Entry.changes_training, Score.brief)
                .join(Score, Score.entry_id == Entry.id)
                .where(Entry.board_id == board.id, Entry.state.in_(states.PUBLIC))
                .order_by(Entry.received_at, Entry.id)
            ).all()
            example = session.scalars(
                select(Score.card)
                .join(Entry, Entry.id == Score.entry_id)
                .where(Entry.board_id == board.id)
                .order_by(Entry.tier != "reference")
                .limit(1)
            ).one()
            accuracy = session.scalar(
                select(MetricValue.value)
                .join(Entry, Entry.id == MetricValue.entry_id)
                .where(Entry.board_id == board.id, Entry.tier == "reference", Entry.method == "none")
                .where(MetricValue.metric == "accuracy.test")
            )
        contestants = [row for row in briefs if row.tier != "reference"]
        live = [row for row in contestants if not row.sentinel and not row.changes_training]
        reasons: dict[str, str] = {}
        places: list[dict[str, Any]] = []
        for scope in CHOICES:
            chosen = [row for row in live if scope in {"all", row.tier}]
            for place in scorer.rank_briefs([row.brief for row in chosen]).rows:
                identity = chosen[place.index].id
                if place.rank is not None:
                    numbers = {"position": place.rank, "low": place.low, "high": place.high, "tie_group": place.group}
                    places.append({"entry_id": identity, "scope": scope, "board_id": board.id, **numbers})
                elif scope == "all":
                    reasons[identity] = place.reason
        for row in contestants:
            if row.sentinel:
                reasons[row.id] = "sentinel: stands here to audit the metrics, not to compete"
            elif row.changes_training:
                reasons[row.id] = own_originals_reason(row.brief, accuracy)
        pack = packs.folder(self.settings, board) / "pack"
        bands, phi = scorer.judge_of(pack).bands, scorer.distributions_of(pack)
        with self.database.writing() as session:
            jobs.finish(session, job)
            keep_ranking(session, board.id, places, reasons, scorer.summary_of(bands, scorer.stored(example), phi))


def _scored_by_this_code(score: Score) -> bool:
    return bool(score.software.get("code") == scorer.software()["code"])


def _still_scoring(session: Session, identity: str) -> Entry | None:
    """An entry, locked; None where somebody withdrew or rejected it while it was scored."""
    entry = session.get_one(Entry, identity)
    states.lock(session, entry)
    return entry if entry.state == "scoring" else None


def own_originals_reason(card: dict[str, Any], accuracy: float | None) -> str:
    """Why a row that changes original training takes no place, with the utility and the cost of its own originals.

    Args:
        card: The row's scorecard.
        accuracy: Mean test accuracy of the board's originals.
    """
    own, training = card.get("own_originals"), card["cost"].get("training")
    if own is None or accuracy is None:
        return "own originals: it changes the original training"
    cost = f"; trained at {training:.2f} times retraining's FLOPs" if training else ""
    return f"own originals: right on {own:.1%} of the test images, the board's on {accuracy:.1%}{cost}"


def write_numbers(session: Session, entry: Entry, scored: Scored, seconds: float) -> None:
    """Write a scorecard's numbers, and its distribution of phi, into rows."""
    card = scored.card
    session.add(
        Score(
            entry_id=entry.id,
            card=card.model_dump(mode="json"),
            brief=scorer.brief(card).model_dump(mode="json"),
            software=scorer.software(),
            seconds=seconds,
            scored_at=utc_now(),
            phi={"shares": scored.phi},
        )
    )
    for name, value in card.metrics.items():
        session.add(
            MetricValue(
                entry_id=entry.id,
                metric=name,
                board_id=entry.board_id,
                value=value.value,
                low=value.low,
                high=value.high,
                z=value.z,
                note=value.reason,
            )
        )
    distance = card.distance
    entry.flags = list(card.flags)
    if distance is not None:
        entry.distance, entry.distance_low, entry.distance_high = distance.value, distance.low, distance.high
        entry.inside = distance.inside
    entry.cost, entry.budget = card.cost.flops, scorer.budget_of(card.cost)


def keep_ranking(
    session: Session, board: int, places: list[dict[str, Any]], reasons: dict[str, str], summary: dict[str, Any]
) -> None:
    """Replace the places of a board's rows."""
    session.execute(delete(Placing).where(Placing.board_id == board))
    if places:
        session.execute(insert(Placing), places)
    ranked = {place["entry_id"] for place in places if place["scope"] == "all"}
    rows = session.execute(select(Entry.id, Entry.status, Entry.reasons).where(Entry.board_id == board)).all()
    changed = []
    for row in rows:
        reason = reasons.get(row.id, "")
        status = "ranked" if row.id in ranked else reason.partition(":")[0][:32] if reason else None
        wanted = [reason] if reason else []
        if (row.status, row.reasons or []) != (status, wanted):
            changed.append({"id": row.id, "status": status, "reasons": wanted})
    if changed:
        session.execute(update(Entry), changed)
    session.execute(
        update(Board).where(Board.id == board).values(summary=summary, ranked_at=utc_now(), revision=Board.revision + 1)
    )
