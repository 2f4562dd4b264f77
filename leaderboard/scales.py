"""From numbers to places on paper: linear, logarithmic, and logarithmic on both sides of 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TINY = 1e-12


@dataclass(frozen=True)
class Scale:
    """A scale from numbers to pixels."""

    bend: Callable[[float], float]
    """Makes the scale linear."""
    nice: Sequence[float]
    """Round numbers within the scale, in order."""
    floor: float
    """Numbers below are drawn here (a logarithm has no 0)."""
    low: float
    high: float
    start: float
    end: float

    def at(self, number: float) -> float:
        """The place of a number."""
        share = (self.bend(max(number, self.floor)) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, apart: float) -> list[tuple[float, str]]:
        """Places and texts of the round numbers, as many as leave so many pixels between them."""
        found: list[tuple[float, str]] = []
        # 0 and powers of ten first: they are kept, and what stands too near to them goes
        for number in sorted(self.nice, key=lambda number: (_odd(number), abs(number))):
            place = self.at(number)
            inside = min(self.start, self.end) - 1 <= place <= max(self.start, self.end) + 1
            if inside and all(abs(place - other) >= apart for other, _ in found):
                found.append((round(place, 1), f"{number:g}".replace("-", "−")))
        return sorted(found)


def make_scale(kind: str, numbers: Sequence[float], start: float, end: float, mark: float | None = None) -> Scale:
    """A scale that holds all numbers.

    Args:
        kind: ``linear``, ``log`` or ``symlog`` (linear near 0, up to about 1).
        numbers: What is to be drawn, at least one.
        start: Pixel of the least.
        end: Pixel of the largest.
        mark: Another number that is to be seen.
    """
    shown = [*numbers, *([mark] if mark is not None else [])]
    floor = -math.inf
    bend: Callable[[float], float]
    if kind == "log":
        positive = [number for number in shown if number > TINY]
        floor = (min(positive) if positive else 1.0) / (2 if len(positive) < len(shown) else 1)
        bend = math.log10
    elif kind == "symlog":
        bend = math.asinh
    else:
        bend = float
    low, high = (bend(max(number, floor)) for number in (min(shown), max(shown)))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return Scale(bend, _nice(kind, max(min(shown), floor), max(shown)), floor, low, high, start, end)


def _nice(kind: str, low: float, high: float) -> list[float]:
    if kind == "linear":
        span = high - low if high - low > TINY else 1.0
        step = 10.0 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 7)
        first = math.ceil((low - span * 0.1) / step)
        return [round((first + place) * step, 12) for place in range(12) if (first + place) * step <= high + span * 0.1]
    sizes = [factor * 10.0**power for power in range(-6, 7) for factor in (1, 2, 5)]
    sizes = (
        sizes if kind == "log" else [-size for size in sizes if size >= 0.5] + [0.0] + [s for s in sizes if s >= 0.5]
    )
    return sorted(size for size in sizes if low * (1 - 1e-9) - 1e-9 <= size <= high * (1 + 1e-9))


def _odd(number: float) -> bool:
    """Whether a number is neither 0 nor a power of ten."""
    return number != 0 and not math.isclose(math.log10(abs(number)) % 1, 0, abs_tol=1e-9)
