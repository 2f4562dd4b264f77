"""Two to six entries of one board side by side: paired differences, seeds, and what is configured differently."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from forgetbench.leaderboard.boards.entries import EntryDetail
from forgetbench.leaderboard.boards.queries import Column, columns_of
from forgetbench.leaderboard.db.models import Board
from forgetbench.leaderboard.errors import Problem

FEWEST, MOST = 2, 6


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
    """One metric of all entries."""

    column: Column
    values: list[dict[str, Any] | None]
    differences: list[Difference | None]
    """Against the first entry; None for itself."""

    @property
    def span(self) -> list[float]:
        """Least and largest number of the line: its pictures share one scale."""
        found = [
            number
            for value in self.values
            if value is not None
            for number in (value["value"], value["low"], value["high"], *value.get("seeds", ()))
            if number is not None
        ]
        return [min(found), max(found)] if found else []


@dataclass(frozen=True)
class Comparison:
    """What the page shows."""

    board: Board
    entries: list[EntryDetail]
    lines: list[Line]
    distance: Line | None
    parameters: list[tuple[str, list[str], bool]]
    """Name, each entry's value, and whether they differ."""


def compare(entries: Sequence[EntryDetail]) -> Comparison:
    """Entries side by side.

    Raises:
        Problem: 422, they are not two to six entries of one board.
    """
    if not FEWEST <= len(entries) <= MOST:
        raise Problem(422, f"Choose {FEWEST} to {MOST} entries to compare; {len(entries)} were chosen.")
    boards = {whole.board.id for whole in entries}
    if len(boards) > 1:
        raise Problem(422, "These entries stand on different boards, whose scores cannot be compared.")
    board = entries[0].board
    cards = [whole.score.card if whole.score else None for whole in entries]
    lines = [
        line
        for column in columns_of(board)
        if any((line := _line(column, [_metric(card, column.name) for card in cards])).values)
    ]
    distances = [card["distance"] if card else None for card in cards]
    column = Column("distance", "distance", "D", "", "oracle sd", "down", "The largest |z| over the ranking metrics")
    return Comparison(
        board=board,
        entries=list(entries),
        lines=lines,
        distance=_line(column, distances) if any(distances) else None,
        parameters=_parameters(entries),
    )


def _metric(card: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    value = card["metrics"].get(name) if card else None
    return value if value and value["value"] is not None else None


def _line(column: Column, values: list[dict[str, Any] | None]) -> Line:
    first = values[0]
    differences = [None if place == 0 else difference(value, first) for place, value in enumerate(values)]
    return Line(column, values, differences)


def difference(one: dict[str, Any] | None, other: dict[str, Any] | None) -> Difference | None:
    """One value minus another, paired by seed: a t interval of the differences of their pseudo-values."""
    if one is None or other is None or one["value"] is None or other["value"] is None:
        return None
    value = one["value"] - other["value"]
    left, right = one["pseudo_values"], other["pseudo_values"]
    count = len(left)
    if count < 2 or count != len(right):
        return Difference(value, None, None)
    apart = [a - b for a, b in zip(left, right, strict=True)]
    mean = math.fsum(apart) / count
    sd = math.sqrt(math.fsum((item - mean) ** 2 for item in apart) / (count - 1))
    half = student_975(count - 1) * sd / math.sqrt(count)
    return Difference(value, value - half, value + half)


def _parameters(entries: Sequence[EntryDetail]) -> list[tuple[str, list[str], bool]]:
    tables = []
    for whole in entries:
        method = whole.entry.manifest["method"]
        table = {"method": method["name"], "source": method["fingerprint"][:12], **method["parameters"]}
        tables.append({name: _text(value) for name, value in table.items()})
    names = list(dict.fromkeys(name for table in tables for name in table))
    rows = [(name, [table.get(name, "–") for table in tables]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in rows]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@lru_cache(maxsize=256)
def student_975(freedom: int) -> float:
    """The 97.5 % point of Student's t with whole degrees of freedom, by bisection; the web process has no scipy."""
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
