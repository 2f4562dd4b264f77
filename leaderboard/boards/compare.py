"""Two to six entries of one board next to each other: paired differences, seeds, and configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

from forgetbench.leaderboard.boards.entries import EntryDetail
from forgetbench.leaderboard.boards.queries import Column, columns_of
from forgetbench.leaderboard.db.models import Board
from forgetbench.leaderboard.errors import Problem
from forgetbench.store import JsonObject

MIN_ENTRIES, MAX_ENTRIES = 2, 6


class MetricScore(TypedDict):
    """A metric of a stored scorecard."""

    value: float | None
    low: float | None
    high: float | None
    pseudo_values: list[float]
    """One pseudo-value per seed."""
    seeds: list[float]


@dataclass(frozen=True)
class Difference:
    """An entry's metric minus the first entry's, with its interval over seeds."""

    value: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Line:
    """One metric of all compared entries."""

    column: Column
    values: list[MetricScore | None]
    differences: list[Difference | None]
    """Against the first entry; None for itself."""

    @property
    def span(self) -> list[float]:
        """Least and largest number of the line: its strips share one scale."""
        numbers = [
            number
            for value in self.values
            if value is not None
            for number in (value["value"], value["low"], value["high"], *value.get("seeds", ()))
            if number is not None
        ]
        return [min(numbers), max(numbers)] if numbers else []


@dataclass(frozen=True)
class Comparison:
    """A comparison of entries."""

    board: Board
    entries: list[EntryDetail]
    lines: list[Line]
    distance: Line | None
    parameters: list[tuple[str, list[str], bool]]
    """Name, each entry's value, and whether they differ."""
    public: bool = False
    """Whether the values are those of the public draws of a sealed board."""


def compare(entries: Sequence[EntryDetail]) -> Comparison:
    """Compare entries of one board.

    Raises:
        Problem: 422, these are not two to six entries of one board.
    """
    if not MIN_ENTRIES <= len(entries) <= MAX_ENTRIES:
        raise Problem(422, f"Choose {MIN_ENTRIES} to {MAX_ENTRIES} entries to compare; {len(entries)} were chosen.")
    boards = {detail.board.id for detail in entries}
    if len(boards) > 1:
        raise Problem(422, "These entries are on different boards, whose scores cannot be compared.")
    board = entries[0].board
    claims = any(detail.entry.tier == "claimed" for detail in entries)  # then only public draws are comparable
    cards = [detail.public_card if claims else detail.card for detail in entries]
    lines = [
        line
        for column in columns_of(board, "claimed" if claims else "")
        if any((line := _line(column, [_metric(card, column.name) for card in cards])).values)
    ]
    distances = [card["distance"] if card else None for card in cards]
    column = Column(
        name="distance",
        title="distance",
        symbol="D",
        group="",
        unit="oracle sd",
        direction="down",
        meaning="The largest |z| over the ranking metrics",
        shown_unit="oracle sd",
    )
    return Comparison(
        board=board,
        entries=list(entries),
        lines=lines,
        distance=_line(column, distances) if any(distances) else None,
        parameters=_parameters(entries),
        public=claims and board.sealed,
    )


def _metric(card: JsonObject | None, name: str) -> MetricScore | None:
    value: MetricScore | None = card["metrics"].get(name) if card else None
    return value if value and value["value"] is not None else None


def _line(column: Column, values: list[MetricScore | None]) -> Line:
    first = values[0]
    differences = [None if place == 0 else difference(value, first) for place, value in enumerate(values)]
    return Line(column, values, differences)


def difference(value: MetricScore | None, other: MetricScore | None) -> Difference | None:
    """One value minus another, paired by seed, with a t interval of the differences of their pseudo-values."""
    if value is None or other is None or value["value"] is None or other["value"] is None:
        return None
    mean_difference = value["value"] - other["value"]
    left, right = value["pseudo_values"], other["pseudo_values"]
    count = len(left)
    if count < 2 or count != len(right):
        return Difference(mean_difference, None, None)
    differences = [a - b for a, b in zip(left, right, strict=True)]
    mean = math.fsum(differences) / count
    sd = math.sqrt(math.fsum((item - mean) ** 2 for item in differences) / (count - 1))
    half = student_975(count - 1) * sd / math.sqrt(count)
    return Difference(mean_difference, mean_difference - half, mean_difference + half)


def _parameters(entries: Sequence[EntryDetail]) -> list[tuple[str, list[str], bool]]:
    tables = []
    for detail in entries:
        method = detail.manifest.method
        table = {"method": method.name, "source": method.fingerprint[:12], **method.parameters}
        tables.append({name: _text(value) for name, value in table.items()})
    names = list(dict.fromkeys(name for table in tables for name in table))
    rows = [(name, [table.get(name, "–") for table in tables]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in rows]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@lru_cache(maxsize=256)
def student_975(freedom: int) -> float:
    """The 97.5 % point of Student's t for integer degrees of freedom, without scipy: the web process stays small."""
    low, high = 1.0, 13.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _central(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def _central(t: float, freedom: int) -> float:
    """Probability between -t and t (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom == 1:
        return 2 * angle / math.pi
    if freedom % 2:
        term = total = cosine
        for k in range(2, freedom - 1, 2):
            term *= k / (k + 1) * cosine**2
            total += term
        return 2 / math.pi * (angle + sine * total)
    term = total = 1.0
    for k in range(1, freedom - 2, 2):
        term *= k / (k + 1) * cosine**2
        total += term
    return sine * total
