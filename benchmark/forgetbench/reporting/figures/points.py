"""What a picture shows of a row: plain numbers, so that a board in memory and one in a database draw alike."""

from __future__ import annotations

from typing import NamedTuple, Protocol

REFERENCES = ("Retrain", "No unlearning")
"""The reference rows, as `forgetbench.scoring.scorer` names them."""


class Ends(Protocol):
    """A band, from a scorecard or from a database."""

    @property
    def low(self) -> float:
        """Lower end."""

    @property
    def high(self) -> float:
        """Upper end."""


class Interval(NamedTuple):
    """A number with its 95 % interval, where it has one."""

    value: float
    low: float
    high: float


class Point(NamedTuple):
    """One row of a board."""

    label: str
    """The row's name."""
    kind: str
    """One of style.KINDS."""
    cost: float | None = None
    """FLOPs as a share of retraining's."""
    distance: Interval | None = None
    """Distance to the oracles."""
    forget: Interval | None = None
    """Accuracy on what was to be forgotten, minus the oracles'; a share."""
    utility: Interval | None = None
    """Test accuracy minus the oracles'; a share."""


def forgetting_metric(track: str) -> str:
    """The gap that tells whether something was forgotten."""
    return "gap.forget" if track == "match-oracle" else "gap.test-forgotten"


def kind_of(label: str, *, ranked: bool) -> str:
    """The kind of a row."""
    if label in REFERENCES:
        return label
    return "ranked" if ranked else "not ranked"


def interval(value: float | None, low: float | None, high: float | None) -> Interval | None:
    """A number and the ends of its interval, which are the number itself where there are none."""
    if value is None:
        return None
    return Interval(value, value if low is None else low, value if high is None else high)


def in_points(band: Ends | None) -> tuple[float, float]:
    """Ends of the band of an accuracy gap, in percentage points."""
    return (0.0, 0.0) if band is None else (100 * band.low, 100 * band.high)
