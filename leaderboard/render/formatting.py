"""Numbers and times as text. Files have the exact values."""

from __future__ import annotations

import math
from datetime import datetime
from typing import NamedTuple, Protocol

from forgetbench.leaderboard.boards.queries import Cell, Column
from forgetbench.scoring.scorecards import Recovery

MISSING = "–"
MINUS = "−"


def digits_for(half_width: float | None, value: float) -> int:
    """Decimals that show two significant digits of the interval, or three of the value without one."""
    basis = half_width if half_width else abs(value) / 10
    if basis < 1e-9 or not math.isfinite(basis):
        return 2
    return max(0, min(4, 1 - math.floor(math.log10(basis))))


def number(value: float | None, decimals: int = 2, *, signed: bool = False) -> str:
    """A number with a true minus sign; ``–`` for None and NaN."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return f"{MINUS if value < 0 else '+' if signed else ''}∞"
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", MINUS)


def estimate(
    value: float | None, low: float | None, high: float | None, scale: float = 1.0, *, signed: bool = False
) -> str:
    """``value ± half width``, rounded according to the width of the interval."""
    if value is None:
        return MISSING
    half = None if low is None or high is None or not math.isfinite(high - low) else (high - low) / 2 * scale
    decimals = digits_for(half, value * scale)
    shown = number(value * scale, decimals, signed=signed)
    return shown if half is None else f"{shown} ± {number(half, decimals)}"


def cell_text(cell: Cell | None, column: Column) -> str:
    """The cell of a metric."""
    if cell is None:
        return MISSING
    return estimate(cell.value, cell.low, cell.high, column.scale, signed=column.signed)


def band_text(column: Column) -> str:
    """The oracle band of a column: ``low to high``."""
    if column.band is None:
        return ""
    low, high = column.band.low * column.scale, column.band.high * column.scale
    decimals = digits_for(high - low, high)
    return f"{number(low, decimals)} to {number(high, decimals)}"


def z_text(z: float | None) -> str:
    """A z value with one decimal, or without decimals from 100."""
    if z is None:
        return ""
    if math.isfinite(z) and abs(z) >= 100:
        return number(z, 0, signed=True)
    return number(z, 1, signed=True)


def rank_text(low: int | None, high: int | None) -> str:
    """A range of ranks: ``2–4``, or ``3`` for a single rank."""
    if low is None or high is None:
        return MISSING
    return str(low) if low == high else f"{low}–{high}"


class Ranks(Protocol):
    """The ranks of a row."""

    scope: str
    low: int
    high: int


def place_text(ranks: Ranks) -> str:
    """The ranks of a row; among claimed rows they begin with C, among methods with own originals with O."""
    return {"claimed": "C", "own originals": "O"}.get(ranks.scope, "") + rank_text(ranks.low, ranks.high)


def percent(share: float | None) -> str:
    """A share in percent, with two significant digits below 10 %."""
    if share is None:
        return MISSING
    value = share * 100
    return f"{value:.2g} %" if 0 < value < 10 else f"{value:.0f} %"


class BeforeAfter(NamedTuple):
    """A value of an entry, as its models are and after recalibration; shares."""

    title: str
    before: float | None
    after: float | None


_ACCURACIES = {
    "forget": "Accuracy on the forget set",
    "test": "Accuracy on test",
    "test-forgotten": "Accuracy on test images of what was forgotten",
}


def before_after(recovery: Recovery) -> list[BeforeAfter]:
    """The lines of the table of recalibration; none where there are no answers after it."""
    lines = [
        BeforeAfter(title, recovery.accuracies[subset].before, recovery.accuracies[subset].after)
        for subset, title in _ACCURACIES.items()
        if subset in recovery.accuracies
    ]
    if recovery.before.value is not None:
        lines.append(BeforeAfter("Forgotten", recovery.before.value, recovery.after.value))
    return lines


def points(share: float | None) -> str:
    """A share in percent with one decimal."""
    return "–" if share is None else f"{number(100 * share, 1)} %"


def date(value: datetime | None) -> str:
    """The day, in UTC."""
    return value.date().isoformat() if value else MISSING


def moment(value: datetime | None) -> str:
    """The minute, in UTC."""
    return value.strftime("%Y-%m-%d %H:%M UTC") if value else MISSING
