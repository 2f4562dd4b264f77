"""What a chart shows of a row: plain numbers, so that a board in memory and one in a database draw alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from forgetbench.method_label import MethodLabel
from forgetbench.reporting.figures.style import Kind

MORE = ":…"
"""What a short name has instead of its hyper-parameters."""


class Interval(NamedTuple):
    """A number with the ends of its 95 % interval, which are the number itself where it has none."""

    value: float
    low: float
    high: float


class Point(NamedTuple):
    """One row of a board in a scatter chart."""

    label: str
    """The row's name."""
    kind: Kind
    """Ranked, not ranked, claimed, or which reference row."""
    x: Interval
    """Its number on the axis from left to right, in the unit of that axis."""
    y: Interval
    """Its number on the axis from bottom to top."""
    url: str = ""
    """Where the point leads; "" for nowhere."""


def forgetting_metric(track: str) -> str:
    """The gap that tells whether something was forgotten."""
    metrics = {"match-oracle": "gap.forget", "erase": "gap.test-forgotten", "corrective": "gap.attack-success"}
    return metrics[track]


def kind_of(label: str, *, ranked: bool) -> Kind:
    """The kind of a row."""
    if label == "Retrain":
        return "Retrain"
    if label == "No unlearning":
        return "No unlearning"
    return "ranked" if ranked else "not ranked"


def interval(
    value: float | None,
    low: float | None,
    high: float | None,
    scale: float = 1.0,
    *,
    least: float | None = None,
) -> Interval | None:
    """A number with its interval in the unit of an axis; None without a number.

    Args:
        value: The number.
        low: Lower end of its interval; None where it has none.
        high: Upper end.
        scale: Unit of the axis over the unit of the number.
        least: Smallest possible number, at which the interval is cut off.
    """
    if value is None:
        return None
    low = value if low is None else low
    ends = (value, low if least is None else max(low, least), value if high is None else high)
    return Interval(*(scale * number for number in ends))


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Row -> a name that fits: hyper-parameters become an ellipsis where the method has one such row only."""
    labels = {name: MethodLabel.parse(name) for name in names}
    heads = [label.name for label in labels.values() if label.values]
    return {
        name: f"{label.name}{MORE}" if label.values and heads.count(label.name) == 1 else name
        for name, label in labels.items()
    }
