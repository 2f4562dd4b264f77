"""Alarms for moderators: results that may be forged, or that were tried too often.

Some suspend the place of a claim until a moderator has looked; the others only put it into the queue. Rows that the
board's own runner or its operator ran are not suspended: their evidence cannot be forged by a submitter.

The board's distance cannot replace these checks: its interval on the control oracles reaches below zero on most boards,
so that no entry is ever clearly below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from forgetbench.leaderboard.db.models import Entry, Score
from forgetbench.leaderboard.db.states import NO_TRACE, UNCHANGED
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import likeness
from forgetbench.leaderboard.submissions.likeness import BoardModels, Floats, Likeness
from forgetbench.metrics.board_rules import Population
from forgetbench.metrics.logit_statistics import phi
from forgetbench.scoring.scorer import Scorer

MIN_SPREAD = 0.05
"""Alarm threshold of the spread of phi, relative to that of the reference oracles; lower means identical losses."""


class Alarm(NamedTuple):
    """One alarm."""

    text: str
    """A sentence for moderators: its kind, a colon, and the figures."""
    suspends: bool = False
    """Whether a claim loses its place until a moderator has looked."""

    @property
    def kind(self) -> str:
        """The kind of the alarm: a known kind does not put an entry into the queue again."""
        return _kind(self.text)


def _kind(text: str) -> str:
    return text.partition(":")[0]


class EvidenceFindings(NamedTuple):
    """What the evidence of an entry says of its origin."""

    alarms: tuple[Alarm, ...] = ()
    """Alarms raised by the evidence alone."""
    likeness: Likeness | None = None
    """What it resembles; None for baselines and for models that come from originals of their own."""


def examine(scorer: Scorer, boards: list[BoardModels] | None, population: Population) -> EvidenceFindings:
    """What the evidence of an entry says of its origin, apart from other entries.

    Args:
        scorer: Scorer of the board.
        boards: The board's models, for each draw; None for models that come from originals of their own.
        population: Logits of the entry's models, for each draw.
    """
    found = likeness.resemblance(scorer, boards, population) if boards is not None else None
    alarms = _likeness_alarms(found) if found is not None else []
    spread, oracle_spread = _spread(scorer, population), _spread(scorer, scorer.references)
    if spread < MIN_SPREAD * oracle_spread:
        figures = f"the spread of phi on forgotten examples is {spread:.2g} nats, of the oracles {oracle_spread:.2g}"
        alarms.append(Alarm(f"identical losses: {figures}"))
    return EvidenceFindings(tuple(alarms), found)


def _likeness_alarms(found: Likeness) -> list[Alarm]:
    alarms = []
    if found.copies_oracles:
        count = f"{found.near_oracles} of {found.models} models"
        text = f"near the oracles: {count} are closer to an oracle of the board than its oracles are to each other"
        alarms.append(Alarm(text, suspends=True))
    if found.spliced:
        text = "spliced: on test rows the answers are those of the originals, on forgotten rows they are not"
        alarms.append(Alarm(text, suspends=True))
    if found.moved_seeds:
        seeds = ", ".join(map(str, found.moved_seeds))
        alarms.append(Alarm(f"permuted seeds: the models of seeds {seeds} come from other originals", suspends=True))
    if found.traceless:
        trace = f"correlation with their originals {found.trace:.3f}, of assigned oracles {found.trace_limit:.3f}"
        alarms.append(Alarm(f"{NO_TRACE}: {trace}"))
    return alarms


def update_alarms(
    session: Session,
    settings: Settings,
    entry: Entry,
    findings: EvidenceFindings,
    boards: list[BoardModels] | None,
) -> None:
    """Set the alarms, the flags of origin, and the suspension of an entry after scoring.

    A new kind of alarm puts the entry into the moderation queue, and one that matters suspends the place of a claim.
    What a moderator has acknowledged is not raised again.

    Args:
        session: Session to write with.
        settings: Threshold of attempts.
        entry: The entry, with the flags of its scorecard.
        findings: What its evidence says.
        boards: The board's models for each draw, to compare a claim with other entries; None for other rows.
    """
    found = [*findings.alarms, *_flag_alarms(entry), *_attempt_alarms(session, settings, entry)]
    claim = entry.tier == "claimed" and not entry.baseline
    like = findings.likeness
    unchanged = claim and like is not None and like.unchanged
    if not claim:
        found = [alarm for alarm in found if not alarm.text.startswith(NO_TRACE)]
    elif like is not None and boards is not None and not unchanged:
        found += _mixture_alarms(session, entry, boards, like.sketch)
    if claim:
        flags = [flag for flag in entry.flags or () if flag not in {NO_TRACE, UNCHANGED}]
        flags += [UNCHANGED] if unchanged else [NO_TRACE] if any(alarm.kind == NO_TRACE for alarm in found) else []
        entry.flags = flags
    known = {_kind(text) for text in entry.alarms or ()}
    new = [alarm for alarm in found if alarm.kind not in known]
    entry.queued = entry.queued or bool(new)
    entry.suspended = claim and (any(alarm.suspends for alarm in new) or (entry.suspended and _matters(found)))
    entry.alarms = [alarm.text for alarm in found]


def _matters(alarms: Sequence[Alarm]) -> bool:
    return any(alarm.suspends for alarm in alarms)


def _mixture_alarms(session: Session, entry: Entry, boards: list[BoardModels], sketch: Floats) -> list[Alarm]:
    """An alarm if the answers are those of earlier entries, or mixtures of them, of oracles, or of the originals."""
    others = _earlier_sketches(session, entry, sketch.shape)
    mixture = likeness.find_mixture(boards, sketch, {name: values for name, (_, values) in others.items()})
    if mixture is None:
        return []
    parts = [f"entry {part} of {others[part][0]}" if part in others else part for part in mixture.parts]
    what = f"those of {parts[0]}" if len(parts) == 1 else f"between those of {parts[0]} and of {parts[1]}"
    return [Alarm(f"copied answers: they are {what}, but for {mixture.residual:.1%} of what changed", suspends=True)]


def _earlier_sketches(session: Session, entry: Entry, shape: tuple[int, ...]) -> Mapping[str, tuple[str, Floats]]:
    """Submitter and sketch of the entries that were received before, except other rows of the same method.

    A submitter's rows of one method are folded into one. Rows of the same registered method, with its source as this
    server has it, are alike in honest repetitions, and their answers are no one's property.
    """
    same_method = (Entry.method == entry.method) & (Entry.fingerprint == entry.fingerprint)
    query = (
        select(Entry.id, Entry.submitter, Score.sketch)
        .join(Score)
        .where(
            Entry.board_id == entry.board_id,
            ~Entry.baseline,
            Score.sketch.is_not(None),
            or_(
                Entry.received_at < entry.received_at, (Entry.received_at == entry.received_at) & (Entry.id < entry.id)
            ),
            ~((Entry.submitter == entry.submitter) & (Entry.method == entry.method)),
            ~(same_method & Entry.registered),
        )
    )
    size = int(np.prod(shape)) * 8
    return {
        row.id: (row.submitter, np.frombuffer(row.sketch, "<f8").reshape(shape))
        for row in session.execute(query)
        if len(row.sketch) == size
    }


def _attempt_alarms(session: Session, settings: Settings, entry: Entry) -> list[Alarm]:
    query = select(func.count()).where(
        Entry.board_id == entry.board_id,
        Entry.method == entry.method,
        Entry.submitter == entry.submitter,
        Entry.received_at <= entry.received_at,
    )
    attempts = session.scalar(query) or 0
    if attempts <= settings.alarm_attempts:
        return []
    return [Alarm(f"many attempts: number {attempts} of {entry.submitter} with {entry.method} on this board")]


def _flag_alarms(entry: Entry) -> list[Alarm]:
    if "suspicious" not in (entry.flags or ()):
        return []
    return [Alarm("suspicious: lira.forget or js is below the band of the oracles")]


def _spread(scorer: Scorer, population: Population) -> float:
    """Standard deviation of phi over the forgotten examples; median over models."""
    deviations = [
        deviation
        for logits, labels in zip(population, scorer.bundle.labels, strict=True)
        for deviation in phi(logits["forget"], labels["forget"]).std(axis=-1)
    ]
    return float(np.median(deviations))
