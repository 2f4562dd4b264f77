"""Alarms for a moderator: what may be faked, or tried too often. An alarm is shown to moderators and changes no rank.

Two of them read the answers to the forgotten examples. The board's distance would not do for the first: its interval
on the control oracles reaches below zero on most boards, so that nothing is ever clearly below it.
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

NEARER = 0.7
"""Share of the control oracles' distance to the nearest reference oracle, below which answers look taken from oracles.
Independent models lie at 1; copies with little noise near 0, averages of two oracles at 0.5, of ten below 0.7."""
FLAT = 0.05
"""Share of the reference oracles' spread of phi, below which the losses count as identical."""


def write(session: Session, settings: Settings, entry: Entry, found: Sequence[str]) -> None:
    """Keep the alarms of an entry that has just been scored; one of a kind that was not there before asks for a look.

    Args:
        session: Where to write.
        settings: From how many attempts on there is an alarm.
        entry: It, with the flags of its scorecard.
        found: What ``of_answers`` found.
    """
    alarms = [*found, *_of_flags(entry), *_of_history(session, settings, entry)]
    known = {_kind(alarm) for alarm in entry.alarms or ()}
    entry.queued = entry.queued or any(_kind(alarm) not in known for alarm in alarms)
    entry.alarms = alarms


def _kind(alarm: str) -> str:
    return alarm.partition(":")[0]


def of_answers(judge: Scorer, population: list[Logits]) -> list[str]:
    """The alarms that a contestant's answers to the forgotten examples raise, one sentence each."""
    found = []
    near = _nearest(judge, population)
    control = _nearest(judge, judge.pack.population("controls"))
    if near < NEARER * control:
        share = f"its nearest lies at {near / control:.0%} of their distance"
        found.append(f"closer to the reference oracles than the control oracles are: {share}")
    spread, usual = _spread(judge, population), _spread(judge, judge.references)
    if spread < FLAT * usual:
        found.append(f"identical losses: phi of the forgotten spreads {spread:.2g} nats, the oracles' {usual:.2g}")
    return found


def _of_history(session: Session, settings: Settings, entry: Entry) -> list[str]:
    """The alarm that a submitter's attempts with one method on one board raise, where they are many."""
    same = select(func.count()).where(
        Entry.board_id == entry.board_id,
        Entry.method == entry.method,
        Entry.submitter == entry.submitter,
        Entry.received_at <= entry.received_at,
    )
    attempts = session.scalar(same) or 0
    if attempts <= settings.alarm_attempts:
        return []
    return [f"many attempts: number {attempts} of {entry.submitter} with {entry.method} on this board"]


def _of_flags(entry: Entry) -> list[str]:
    """The alarm that a scorecard's flags raise."""
    return (
        ["suspicious: lira.forget or js lies below the band of the oracles"]
        if "suspicious" in (entry.flags or ())
        else []
    )


def _nearest(judge: Scorer, population: list[Logits]) -> float:
    """How far a model's probabilities lie from its nearest reference oracle's: total variation, the median model's."""
    found = []
    for ours, theirs, labels in zip(population, judge.references, judge.pack.labels, strict=True):
        models, oracles = (_probabilities(answers["forget"], labels["forget"]) for answers in (ours, theirs))
        found += [min(np.abs(model - oracle).mean() for oracle in oracles) for model in models]
    return float(np.median(found))


def _probabilities(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    """(S, n, K) of the classes; of attributes (S, n, A), each by itself."""
    return (confidence(logits, labels) if labels.ndim == 2 else softmax(logits)).astype(np.float32)


def _spread(judge: Scorer, population: list[Logits]) -> float:
    """Standard deviation of phi over the forgotten examples, the median model's."""
    found = [
        deviation
        for answers, labels in zip(population, judge.pack.labels, strict=True)
        for deviation in phi(answers["forget"], labels["forget"]).std(axis=-1)
    ]
    return float(np.median(found))
