"""Numbers and times as people read them. The exact values are in the exports."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from forgetbench.leaderboard.boards.queries import Cell, Column

MISSING = "–"
MINUS = "−"


def digits_for(half_width: float | None, value: float) -> int:
    """Decimals that show two significant figures of the interval, or three of the value where there is none."""
    basis = half_width if half_width else abs(value) / 10
    if basis < 1e-9 or not math.isfinite(basis):
        return 2
    return max(0, min(4, 1 - math.floor(math.log10(basis))))


def number(value: float | None, decimals: int = 2, *, signed: bool = False) -> str:
    """A number with a true minus sign; ``–`` where there is none."""
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
    """``value ± half width``, rounded by the width of the interval."""
    if value is None:
        return MISSING
    half = None if low is None or high is None or not math.isfinite(high - low) else (high - low) / 2 * scale
    decimals = digits_for(half, value * scale)
    shown = number(value * scale, decimals, signed=signed)
    return shown if half is None else f"{shown} ± {number(half, decimals)}"


def cell_text(cell: Cell | None, column: Column) -> str:
    """A metric's cell."""
    if cell is None:
        return MISSING
    return estimate(cell.value, cell.low, cell.high, column.scale, signed=column.display.signed)


def band_text(column: Column) -> str:
    """The oracle band of a column: ``low to high``."""
    if column.band is None:
        return ""
    low, high = column.band.low * column.scale, column.band.high * column.scale
    decimals = digits_for(high - low, high)
    return f"{number(low, decimals)} to {number(high, decimals)}"


def z_text(z: float | None) -> str:
    """A z value: one decimal, none beyond 100."""
    if z is None:
        return ""
    if math.isfinite(z) and abs(z) >= 100:
        return number(z, 0, signed=True)
    return number(z, 1, signed=True)


def rank_text(low: int | None, high: int | None) -> str:
    """A rank interval: ``2–4``, or ``3`` where it is one place."""
    if low is None or high is None:
        return MISSING
    return str(low) if low == high else f"{low}–{high}"


def per_cent(share: float | None) -> str:
    """A share in per cent, two significant figures below 10 %."""
    if share is None:
        return MISSING
    value = share * 100
    return f"{value:.2g} %" if 0 < value < 10 else f"{value:.0f} %"


def date(value: datetime | None) -> str:
    """The day, in UTC."""
    return value.strftime("%Y-%m-%d") if value else MISSING


def moment(value: datetime | None) -> str:
    """The minute, in UTC."""
    return value.strftime("%Y-%m-%d %H:%M UTC") if value else MISSING


def parameters(values: dict[str, Any], limit: int = 90) -> str:
    """Hyper-parameters in one line: ``epochs=5, lr=0.01``."""
    text = ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"
