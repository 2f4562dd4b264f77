"""Axes whose pixels are known before anything is drawn, so that labels can be placed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import altair as alt

TICKS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)


@dataclass(frozen=True)
class Axis:
    """A symmetric logarithmic axis: linear near 0, logarithmic far from it, and 0 is on it."""

    low: float
    """Smallest value shown."""
    high: float
    """Largest value shown."""
    length: float
    """Pixels."""
    constant: float = 1.0
    """Where linear turns into logarithmic."""
    ticks: tuple[float, ...] = ()
    """Values that bear a number."""

    def pixel(self, value: float) -> float:
        """Pixels from the low end."""
        first, last = self._bent(self.low), self._bent(self.high)
        return (self._bent(value) - first) / (last - first) * self.length

    def value(self, pixel: float) -> float:
        """The value at so many pixels from the low end."""
        first, last = self._bent(self.low), self._bent(self.high)
        bent = first + pixel / self.length * (last - first)
        return math.copysign(math.expm1(abs(bent)) * self.constant, bent)

    @property
    def scale(self) -> alt.Scale:
        """The same axis for Altair."""
        return alt.Scale(type="symlog", constant=self.constant, domain=[self.low, self.high], nice=False, clamp=True)

    def _bent(self, value: float) -> float:
        return math.copysign(math.log1p(abs(value) / self.constant), value)


def axis(
    values: Iterable[float], length: float, constant: float = 1.0, marks: Iterable[float] = TICKS, *, minimum: float = 0
) -> Axis:
    """An axis on which all values are seen, with a little room at either end.

    Args:
        values: What is to be seen; 0 always is.
        length: Pixels.
        constant: Where linear turns into logarithmic.
        marks: Values that bear a number where they are in range, on both sides of 0.
        minimum: The axis reaches at least this far up.
    """
    finite = [value for value in values if math.isfinite(value)]
    bare = Axis(min([0.0, *finite]), max([minimum, constant, *finite]), length, constant)
    below = bare.value(-0.035 * length) if bare.low < 0 else 0.0
    low, high = below, bare.value(1.05 * length)
    both = {sign * mark + 0.0 for mark in marks for sign in (-1.0, 1.0)}  # adding 0 makes -0 0
    shown: list[float] = []
    whole = Axis(low, high, length, constant)
    for mark in sorted((mark for mark in both if low <= mark <= high), key=abs):
        if all(abs(whole.pixel(mark) - whole.pixel(other)) > 22 for other in shown):
            shown.append(mark)
    return Axis(low, high, length, constant, tuple(sorted(shown)))
