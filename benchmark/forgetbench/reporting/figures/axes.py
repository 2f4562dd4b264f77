"""Axes whose pixels are known before anything is drawn, so that labels can be placed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forgetbench.reporting.figures.style import Spec

TICKS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
TICK_DISTANCE = 22.0
"""Least distance of two numbers on an axis, in pixels."""
LINEAR_TICK_DISTANCE = 60.0
"""The same on a linear axis, whose numbers are longer."""


@dataclass(frozen=True)
class Axis:
    """A linear axis, or a symmetric logarithmic one: linear near 0, logarithmic far from it."""

    low: float
    """Smallest value shown."""
    high: float
    """Largest value shown."""
    length: float
    """Pixels."""
    constant: float | None = 1.0
    """Where linear turns into logarithmic; None for a linear axis."""
    ticks: tuple[float, ...] = ()
    """Values that bear a number."""

    def pixel(self, value: float) -> float:
        """Pixels from the low end."""
        first, last = self._transform(self.low), self._transform(self.high)
        return (self._transform(value) - first) / (last - first) * self.length

    def value(self, pixel: float) -> float:
        """The value at so many pixels from the low end."""
        first, last = self._transform(self.low), self._transform(self.high)
        transformed = first + pixel / self.length * (last - first)
        if self.constant is None:
            return transformed
        return math.copysign(math.expm1(abs(transformed)) * self.constant, transformed)

    @property
    def scale(self) -> Spec:
        """The same axis as a Vega-Lite scale."""
        kind: Spec = {"type": "linear"} if self.constant is None else {"constant": self.constant, "type": "symlog"}
        return {"clamp": True, "domain": [self.low, self.high], "nice": False, **kind}

    @property
    def guide(self) -> Spec:
        """Its numbers and grid lines, as a Vega-Lite axis."""
        return {"format": ".3~f", "labelOverlap": False, "values": list(self.ticks)}

    def _transform(self, value: float) -> float:
        if self.constant is None:
            return value
        return math.copysign(math.log1p(abs(value) / self.constant), value)


def symlog_axis(
    values: Iterable[float],
    length: float,
    constant: float = 1.0,
    ticks: Iterable[float] = TICKS,
    *,
    minimum: float = 0,
) -> Axis:
    """A symmetric logarithmic axis that shows 0 and all values, with a little room at either end.

    Args:
        values: What it must show.
        length: Pixels.
        constant: Where linear turns into logarithmic.
        ticks: Values that bear a number where they are in range, on both sides of 0.
        minimum: The axis reaches at least this far up.
    """
    finite = [value for value in values if math.isfinite(value)]
    bare = Axis(min([0.0, *finite]), max([minimum, constant, *finite]), length, constant)
    low = bare.value(-0.035 * length) if bare.low < 0 else 0.0
    axis = Axis(low, bare.value(1.05 * length), length, constant)
    both_signs = {sign * tick + 0.0 for tick in ticks for sign in (-1.0, 1.0)}  # adding 0 makes -0 0
    return Axis(axis.low, axis.high, length, constant, _spread(axis, sorted(both_signs, key=abs), TICK_DISTANCE))


def linear_axis(values: Iterable[float], length: float) -> Axis:
    """A linear axis that shows all values, with a little room at either end and numbers at round places.

    Args:
        values: What it must show; what is not finite is ignored.
        length: Pixels.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    size = max(abs(low), abs(high))
    margin = 0.05 * (high - low) if high - low > 1e-9 * size else max(0.05 * size, 0.5)
    axis = Axis(low - margin, high + margin, length, None)
    step = _round_step(axis.high - axis.low, max(1.0, length / LINEAR_TICK_DISTANCE))
    first = math.ceil(axis.low / step)
    ticks = [float(f"{place * step:.12g}") for place in range(first, math.floor(axis.high / step) + 1)]
    return Axis(axis.low, axis.high, length, None, tuple(ticks))


def _round_step(span: float, most: float) -> float:
    """The least of 1, 2, 5 times a power of ten that cuts a span into at most so many steps."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most)


def _spread(axis: Axis, ticks: Sequence[float], distance: float) -> tuple[float, ...]:
    """The ticks within an axis, the first ones first, that leave so many pixels between them."""
    shown: list[float] = []
    for tick in ticks:
        inside = axis.low <= tick <= axis.high
        if inside and all(abs(axis.pixel(tick) - axis.pixel(other)) > distance for other in shown):
            shown.append(tick)
    return tuple(sorted(shown))
