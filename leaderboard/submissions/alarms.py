"""Alarms for moderators: results that may be forged, or that were tried too often. Alarms change no rank.

Two alarms compare the logits of the forgotten examples directly. The board's distance cannot replace the first one: its
interval on the control oracles reaches below zero on most boards, so that no entry is ever clearly below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from forgetbench.evidence.arrays import Logits
from forgetbench.leaderboard.db.models import Entry
from forgetbench.leaderboard.settings import Settings
from forgetbench.metrics.logit_statistics import confidence, phi, softmax
from forgetbench.scoring.scorer import Scorer

MIN_ORACLE_DISTANCE = 0.7
"""Alarm threshold of the distance to the nearest reference oracle, relative to that of the control oracles.

Independent models have about 1; copies with little noise near 0, averages of two oracles 0.5, of ten below 0.7."""
MIN_SPREAD = 0.05
"""Alarm threshold of the spread of phi, relative to that of the reference oracles; lower means identical losses."""


def update_alarms(session: Session, settings: Settings, entry: Entry, alarms: Sequence[str]) -> None:
    """Set the alarms of an entry after scoring; a new kind of alarm puts the entry into the moderation queue.

    Args:
        session: Session to write with.
        settings: Threshold of attempts.
        entry: The entry, with the flags of its scorecard.
        alarms: Alarms from `logits_alarms`.
    """
    alarms = [*alarms, *_flag_alarms(entry), *_attempt_alarms(session, settings, entry)]
    known = {_kind(alarm) for alarm in entry.alarms or ()}
    entry.queued = entry.queued or any(_kind(alarm) not in known for alarm in alarms)
    entry.alarms = alarms


def _kind(alarm: str) -> str:
    return alarm.partition(":")[0]


def logits_alarms(scorer: Scorer, population: list[Logits]) -> list[str]:
    """Alarms raised by the logits of the forgotten examples, one sentence each.

    Args:
        scorer: Scorer of the board.
        population: Logits of the entry's models, for each draw.
    """
    alarms = []
    distance = _oracle_distance(scorer, population)
    usual = _oracle_distance(scorer, scorer.bundle.population("controls"))
    if distance < MIN_ORACLE_DISTANCE * usual:
        ratio = f"the distance to its nearest oracle is {distance / usual:.0%} of theirs"
        alarms.append(f"closer to the reference oracles than the control oracles are: {ratio}")
    spread, oracle_spread = _spread(scorer, population), _spread(scorer, scorer.references)
    if spread < MIN_SPREAD * oracle_spread:
        alarms.append(
            f"identical losses: the spread of phi on forgotten examples is {spread:.2g} nats, of the oracles "
            f"{oracle_spread:.2g}"
        )
    return alarms


def _attempt_alarms(session: Session, settings: Settings, entry: Entry) -> list[str]:
    query = select(func.count()).where(
        Entry.board_id == entry.board_id,
        Entry.method == entry.method,
        Entry.submitter == entry.submitter,
        Entry.received_at <= entry.received_at,
    )
    attempts = session.scalar(query) or 0
    if attempts <= settings.alarm_attempts:
        return []
    return [f"many attempts: number {attempts} of {entry.submitter} with {entry.method} on this board"]


def _flag_alarms(entry: Entry) -> list[str]:
    if "suspicious" not in (entry.flags or ()):
        return []
    return ["suspicious: lira.forget or js is below the band of the oracles"]


def _oracle_distance(scorer: Scorer, population: list[Logits]) -> float:
    """Total variation between a model's probabilities and those of its nearest reference oracle; median over models."""
    distances = []
    for logits, oracle_logits, labels in zip(population, scorer.references, scorer.bundle.labels, strict=True):
        models, oracles = (_probabilities(item["forget"], labels["forget"]) for item in (logits, oracle_logits))
        distances += [min(np.abs(model - oracle).mean() for oracle in oracles) for model in models]
    return float(np.median(distances))


def _probabilities(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities of the classes (S, n, K), or of each binary attribute (S, n, A)."""
    return (confidence(logits, labels) if labels.ndim == 2 else softmax(logits)).astype(np.float32)


def _spread(scorer: Scorer, population: list[Logits]) -> float:
    """Standard deviation of phi over the forgotten examples; median over models."""
    deviations = [
        deviation
        for logits, labels in zip(population, scorer.bundle.labels, strict=True)
        for deviation in phi(logits["forget"], labels["forget"]).std(axis=-1)
    ]
    return float(np.median(deviations))
