"""Rows of a board as pages show them: the same for this server's boards and for results that ship with the package."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from forgetbench.leaderboard.boards.queries import Outcome, Page, Row
from forgetbench.leaderboard.boards.view import View
from forgetbench.leaderboard.db.states import UNCHANGED
from forgetbench.leaderboard.render.formatting import MISSING, estimate, number, place_text, rank_text
from forgetbench.reproduction.reference_file import ReferenceBoard, ReferenceRow
from forgetbench.scoring.vocabulary import COMES_BACK, NEARER, NOTHING_FORGOTTEN, PARTIAL, Verdict, caveat

NO_UNLEARNING = "No unlearning"
ALPHA = 0.05
"""Above this p, nothing counts as forgotten (protocol section 4)."""
SHIPPED = "shipped"
"""Tier of the results that ship with the package."""
AXIS_WIDTH, AXIS_MARGIN = 230.0, 8.0
"""Pixels of a distance strip, and what it leaves free at both ends."""
_TICKS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
_NEAREST_LABELS = 24.0
"""Pixels between two numbers on the axis."""


class VerdictMark(NamedTuple):
    """How a verdict looks. Words or a symbol always accompany the color."""

    css: str
    """Class in the style sheet."""
    symbol: str
    short: str
    """One or two words, where there is little room."""


VERDICT_MARKS: dict[str, VerdictMark] = {
    Verdict.REACHES_RETRAINING: VerdictMark("reaches", "✓", "reaches retraining"),
    Verdict.BETTER: VerdictMark("better", "▲", "better than nothing"),
    Verdict.AT_A_PRICE: VerdictMark("price", "◆", "at a price"),
    Verdict.AS_NOTHING: VerdictMark("nothing", "=", "as doing nothing"),
    Verdict.WORSE: VerdictMark("worse", "▼", "worse than nothing"),
    Verdict.COLLAPSED: VerdictMark("collapsed", "✕", "collapsed"),
}
"""Verdict -> its mark, the best first."""


class Interval(NamedTuple):
    """A value with its 95 % interval, None where it has none."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, value: float | None, low: float | None, high: float | None) -> Interval | None:
        """None without a value."""
        return None if value is None else cls(value, low, high)

    def text(self, scale: float, decimals: int) -> str:
        """The value with half of its interval, rounded by it; with these decimals where no seed differs."""
        if self.low == self.high:
            return number(self.value * scale, decimals)
        return estimate(*self, scale)

    @property
    def is_ceiling(self) -> bool:
        """Whether no seed differs: the metric that sets a distance is at the end of its scale."""
        return self.value > 0 and self.low == self.high == self.value


@dataclass(frozen=True)
class ShownRow:
    """One row."""

    label: str
    method: str
    tier: str
    """A tier of the server, or `SHIPPED`."""
    id: str = ""
    """Id of the entry; "" for shipped results, which have no page."""
    baseline: bool = False
    """Whether it is Retrain or No unlearning."""
    place: str = ""
    """Its rank interval as text; "" for rows that are not ranked."""
    scope: str = ""
    """Which ranking that is."""
    verdict: str | None = None
    distance: Interval | None = None
    within_band: bool | None = None
    decided_by: str = ""
    """Name of the metric that sets the distance; "" where that is not known."""
    forgotten: Interval | None = None
    """Share of the way from No unlearning to Retrain."""
    harm: Interval | None = None
    """Accuracy lost beyond retraining's, as a share."""
    outcome: Outcome = field(default_factory=Outcome)
    """What recalibration brings back."""
    cost: float | None = None
    cost_class: str | None = None
    trials: int | None = None
    """Trials of tuning; None where that is not known."""
    flags: Sequence[str] = ()
    reasons: Sequence[str] = ()
    source: Row | None = None
    """The row of this server's database; None for shipped results."""

    @property
    def at_least(self) -> bool:
        """Whether the distance is a lower bound, because its metric is at the end of its scale."""
        return self.distance is not None and self.distance.is_ceiling and not self.within_band

    @property
    def distance_text(self) -> str:
        """The distance with half of its interval, or its lower bound."""
        if self.distance is None:
            return MISSING
        value = self.distance.value
        return f"≥ {number(value, 0 if value >= 10 else 1)}" if self.at_least else self.distance.text(1.0, 2)

    @property
    def forgotten_text(self) -> str:
        """What was forgotten, in percent."""
        return f"{self.forgotten.text(100, 0)} %" if self.forgotten else MISSING

    @property
    def caveat(self) -> str:
        """What a reader of the verdict alone would miss: nothing was forgotten, or it comes back; "" otherwise."""
        return caveat(self.verdict, self.forgotten.low if self.forgotten else None, self.flags)

    @property
    def mark(self) -> VerdictMark | None:
        """How its verdict looks: pale if a caveat goes with it."""
        mark = VERDICT_MARKS.get(self.verdict or "")
        return VerdictMark("nothing", "△", f"nearer, {self.caveat}") if mark and self.caveat else mark

    @property
    def harm_text(self) -> str:
        """Accuracy lost, in points."""
        return self.harm.text(100, 1) if self.harm else MISSING

    @property
    def forgotten_short(self) -> str:
        """What was forgotten, without its interval."""
        return f"{number(100 * self.forgotten.value, 0)} %" if self.forgotten else MISSING

    @property
    def harm_short(self) -> str:
        """Accuracy lost in points, without its interval."""
        return number(100 * self.harm.value, 1) if self.harm else MISSING

    @property
    def recovery_text(self) -> str:
        """What recalibration brings back, in words."""
        outcome = self.outcome
        if self.distance is None:
            return MISSING
        if not outcome.tested:
            return "not tested"
        if outcome.recoverable:
            return f"{number(100 * (outcome.recovered or 0), 0)} of {self.forgotten_short} comes back"
        return "nothing to undo" if outcome.p is None or outcome.p > ALPHA else "not undone"


def row_of(row: Row) -> ShownRow:
    """A row of this server."""
    entry, placing = row.entry, row.placing
    outcome = Outcome(**entry.outcome) if entry.outcome else Outcome()
    return ShownRow(
        label=entry.label,
        method=entry.method,
        tier=entry.tier,
        id=entry.id,
        baseline=entry.baseline,
        place=place_text(placing) if placing else "",
        scope=placing.scope if placing else "",
        verdict=entry.verdict,
        distance=Interval.of(entry.distance, entry.distance_low, entry.distance_high),
        within_band=entry.within_band,
        decided_by=outcome.decided_by,
        forgotten=Interval.of(entry.forgotten, entry.forgotten_low, entry.forgotten_high),
        harm=Interval.of(entry.harm, entry.harm_low, entry.harm_high),
        outcome=outcome,
        cost=entry.cost,
        cost_class=entry.cost_class,
        flags=entry.flags or (),
        reasons=entry.reasons or (),
        source=row,
    )


def shipped_row(row: ReferenceRow, *, baseline: bool) -> ShownRow:
    """A row of the results that ship with the package."""

    def interval(figures: tuple[float | None, ...] | None) -> Interval | None:
        return Interval.of(*figures[:3]) if figures else None

    kept = row.recalibration
    outcome = Outcome(
        decided_by=row.decided_by,
        tested=kept is not None and kept.recoverable is not None,
        recoverable=bool(kept and kept.recoverable),
        recovered=kept.recovered[0] if kept and kept.recovered else None,
        reason=kept.reason if kept else "",
        p=kept.p if kept else None,
    )
    return ShownRow(
        label=row.label,
        method=row.label.partition(":")[0],
        tier=SHIPPED,
        baseline=baseline,
        place=rank_text(*row.rank) if row.rank else "",
        scope="ranked" if row.rank else "",
        verdict=row.verdict,
        distance=interval(row.distance),
        within_band=row.within_band,
        decided_by=row.decided_by,
        forgotten=interval(row.forgotten),
        harm=interval(row.harm),
        outcome=outcome,
        cost=row.cost.get("flops"),
        trials=row.trials,
        flags=row.flags,
        reasons=(row.reason,) if row.reason else (),
    )


class Group(NamedTuple):
    """Rows that are shown together under a heading."""

    title: str
    rows: Sequence[ShownRow]


class Tick(NamedTuple):
    """A number on the axis of distances."""

    x: float
    text: str


class Strip(NamedTuple):
    """A distance on the axis, in pixels from the left."""

    x: float
    interval: tuple[float, float] | None
    beyond: bool
    """Whether the value exceeds the axis."""
    text: str
    """The same in words."""


class Axis(NamedTuple):
    """The axis of distances that all rows of a board share, with logarithmic steps: log(1 + distance)."""

    maximum: float
    limit: float | None
    """Below this, rows are indistinguishable from retraining."""
    nothing: float | None
    """Distance of No unlearning."""
    partial: float | None = None
    """On boards of correction: distance of retraining without the found part of the harmful rows."""

    def position(self, distance: float) -> float:
        """Pixels from the left."""
        share = math.log1p(min(max(distance, 0.0), self.maximum)) / math.log1p(self.maximum)
        return round(AXIS_MARGIN + share * (AXIS_WIDTH - 2 * AXIS_MARGIN), 1)

    @property
    def ticks(self) -> list[Tick]:
        """The numbers below the axis that fit."""
        shown: list[Tick] = []
        for value in _TICKS:
            x = self.position(value)
            if value <= self.maximum and (not shown or x - shown[-1].x >= _NEAREST_LABELS):
                shown.append(Tick(x, f"{value:,}"))
        return shown

    def strip(self, row: ShownRow) -> Strip | None:
        """Where a row is on the axis; None without a distance."""
        if row.distance is None:
            return None
        value, low, high = row.distance
        ends = None if low is None or high is None or row.at_least else (self.position(low), self.position(high))
        text = f"distance {'at least ' if row.at_least else ''}{value:.3g}"
        if ends is not None:
            text += f", 95 % interval {max(low or 0, 0):.3g} to {high:.3g}"
        if self.limit is not None:
            text += f"; limit of retraining {self.limit:.2g}"
        if self.nothing is not None:
            text += f"; doing nothing {self.nothing:.3g}"
        return Strip(self.position(value), ends, value > self.maximum, text)


def axis_of(rows: Iterable[ShownRow], limit: float | None) -> Axis:
    """The axis of a board: it ends a little to the right of the farthest row that is ranked, or of doing nothing."""
    rows = list(rows)
    distances = {row.label: row.distance.value for row in rows if row.baseline and row.distance}
    nothing, partial = distances.get(NO_UNLEARNING), distances.get(PARTIAL)
    values = [row.distance.value for row in rows if row.distance and (row.place or row.baseline)]
    values = values or [row.distance.value for row in rows if row.distance]
    largest = max([*filter(math.isfinite, values), 2 * (limit or 0), 3.0])
    return Axis(largest * 1.15, limit, nothing, partial)


class BoardTable(NamedTuple):
    """The table of a board."""

    ranked: Sequence[ShownRow]
    """Ranked rows, with Retrain and No unlearning where they belong in the order."""
    claimed: Sequence[ShownRow]
    """Claimed rows, with places among themselves."""
    waiting: Sequence[ShownRow]
    """Rows without a place and without a reason for that: they are being scored, or the board ranks nothing."""
    folded: Sequence[Group]
    """Rows that are not ranked, by reason."""
    axis: Axis

    @property
    def folded_count(self) -> int:
        """Number of folded rows."""
        return sum(len(group.rows) for group in self.folded)

    @property
    def all(self) -> list[ShownRow]:
        """All rows, in the order of the page."""
        return [*self.ranked, *self.claimed, *self.waiting, *(row for group in self.folded for row in group.rows)]


def board_table(page: Page) -> BoardTable:
    """The table of a page of this server's board."""
    summary = page.board.summary or {}
    ranks = bool(summary) and not summary.get("informational")
    references = [row_of(row) for row in page.references]
    rows = [row_of(row) for row in page.rows]
    ranked = [row for row in rows if row.scope == "ranked"]
    claimed = [row for row in rows if row.scope == "claimed"]
    others = [row for row in rows if row.scope not in {"ranked", "claimed"}]
    waiting = [row for row in others if not row.reasons or not ranks]
    return BoardTable(
        ranked=_with_references(ranked, references, page.view),
        claimed=claimed,
        waiting=waiting,
        folded=_folded([row for row in others if row not in waiting]),
        axis=axis_of([*references, *rows], summary.get("family_limit")),
    )


def shipped_table(board: ReferenceBoard) -> BoardTable:
    """The table of results that ship with the package."""
    shown = [shipped_row(row, baseline=place < board.references) for place, row in enumerate(board.rows)]
    references, rows = shown[: board.references], shown[board.references :]
    ranked = [row for row in rows if row.place]
    others = [row for row in rows if not row.place]
    axis = axis_of(shown, board.family_limit)
    if board.unranked_reason:
        return BoardTable([*references, *others], (), (), (), axis)
    return BoardTable(_with_references(ranked, references, View()), (), (), _folded(others), axis)


_NUMBERS: dict[str, Callable[[ShownRow], Interval | float | None]] = {
    "rank": lambda row: row.distance,
    "distance": lambda row: row.distance,
    "forgotten": lambda row: row.forgotten,
    "harm": lambda row: row.harm,
    "cost": lambda row: row.cost,
}
"""Sort key -> the number that gives the reference rows their place in the order."""


def _with_references(rows: Sequence[ShownRow], references: Sequence[ShownRow], view: View) -> list[ShownRow]:
    """Ranked rows with the reference rows in their order; in front where the sort key is text or a metric."""
    shown = list(rows)
    number = _NUMBERS.get(view.key)
    for reference in sorted(references, key=lambda row: row.distance.value if row.distance else 0.0, reverse=True):
        own = _value(number(reference)) if number else None
        place = 0
        if number is not None and own is not None:
            before = [_value(number(row)) for row in shown]
            after = [value is None or ((value < own) if view.descending else (value > own)) for value in before]
            place = next((index for index, later in enumerate(after) if later), len(shown))
        shown.insert(place, reference)
    return shown


def _value(number: Interval | float | None) -> float | None:
    return number.value if isinstance(number, Interval) else number


def _folded(rows: Sequence[ShownRow]) -> list[Group]:
    """Rows that are not ranked, by the reason for that."""
    groups: dict[str, list[ShownRow]] = {}
    for row in rows:
        groups.setdefault(_why_folded(row), []).append(row)
    return [Group(title, groups[title]) for title in _FOLDED if title in groups]


_FOLDED = (
    *("Suspended", "Earlier attempts", "Untouched originals", "Collapsed", "Default hyper-parameters"),
    *("Own originals", "Sentinels", "Not applicable or failed", "Other"),
)
_STATUS_GROUPS = {"suspended": "Suspended", "earlier attempt": "Earlier attempts", UNCHANGED: "Untouched originals"}
"""Status of an entry -> title of its group."""


def _why_folded(row: ShownRow) -> str:
    entry = row.source.entry if row.source else None
    if entry is not None and entry.sentinel:
        return "Sentinels"
    if entry is not None and entry.changes_training:
        return "Own originals"
    if entry is not None and entry.status in _STATUS_GROUPS:
        return _STATUS_GROUPS[entry.status]
    if row.distance is None:
        return "Not applicable or failed"
    if row.verdict == Verdict.COLLAPSED or "collapsed" in row.flags:
        return "Collapsed"
    return "Default hyper-parameters" if row.tier == SHIPPED else "Other"


FOLDED_WORDS = {
    "Suspended": "their answers raised an alarm; they have no place until a moderator has looked",
    "Earlier attempts": "only the last row of a submitter and method is ranked",
    "Untouched originals": "their answers are those of the original models: each is No unlearning",
    "Collapsed": "more than half of what the models knew beyond chance is lost, so their distance says little",
    "Default hyper-parameters": "ranks are among tuned rows, whose budgets are equal",
    "Own originals": "these methods change the original training, so they rank among such methods only",
    "Sentinels": "rows whose result is known beforehand; they audit the metrics and do not compete",
    "Not applicable or failed": "no score",
    "Other": "see the reason at each row",
}
"""Title of a group of folded rows -> why they are folded."""


def headline(verdicts: Mapping[tuple[str, str], int]) -> str:
    """What the ranked rows of a board achieve, in words; "" without ranked rows.

    Args:
        verdicts: Verdict, with its caveat -> number of ranked rows.
    """
    total = sum(verdicts.values())
    if not total:
        return ""
    found, hidden = Counter[str](), Counter[str]()
    for (verdict, known), rows in verdicts.items():
        found[verdict] += rows
        hidden[known or verdict] += rows
    reach, nearer = found[Verdict.REACHES_RETRAINING], sum(found[verdict] for verdict in NEARER)
    first = (
        f"{count_of(reach, total)} reaches retraining." if reach <= 1 else f"{count_of(reach, total)} reach retraining."
    )
    ways = {
        Verdict.AT_A_PRICE: "at the price of accuracy",
        NOTHING_FORGOTTEN: "without forgetting anything",
        COMES_BACK: "so that it comes back",
    }
    words = ", ".join(f"{hidden[key]} {text}" for key, text in ways.items() if hidden[key])
    verb = "comes" if nearer <= 1 else "come"
    return f"{first} {count_of(nearer, total)} {verb} nearer to it than doing nothing{f': {words}' if words else ''}."


def count_of(count: int, total: int) -> str:
    """``None of 6``, ``2 of 6``, ``All 6``."""
    return f"None of {total}" if not count else f"{count} of {total}"
