"""Specs of metrics: one declaration feeds the command line, the docs, the pages, and the ranking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from forgetbench.metrics.board_rules import SUBSETS, BoardRule
from forgetbench.registry import Registry

Function = TypeVar("Function", bound=Callable[..., Any])

Track = Literal["match-oracle", "erase", "corrective"]
Role = Literal["efficacy", "harm"]
Group = Literal["utility", "privacy", "erasure", "cost", "literature"]
Direction = Literal["band", "up", "down"]

ARROWS: dict[Direction, str] = {"up": "↑", "down": "↓", "band": "→"}
"""Direction -> arrow in a column head."""


@dataclass(frozen=True)
class Display:
    """How the values of a metric are shown. Stored values are never scaled or rounded."""

    unit: str = ""
    """The unit of the shown number: "%" for shares, "points" for differences of shares; "" for a bare number."""
    scale: float = 1.0
    """Shown number over stored value: 100 for shares."""
    decimals: int = 3
    """Decimals where no interval says how many are significant."""
    signed: bool = False
    """Whether positive values are shown with a plus sign, and axes extend to both sides of 0."""

    @classmethod
    def of(cls, unit: str, *, signed: bool = False) -> Display:
        """The rules for values stored in a unit."""
        if unit == "share":
            return cls("points" if signed else "%", 100.0, 1, signed)
        return cls(unit, signed=signed)

    def text(self, value: float) -> str:
        """The value as a number, without its unit."""
        return f"{value * self.scale:{'+' if self.signed else ''}.{self.decimals}f}"


class MetricSpec(BaseModel):
    """A metric: what it is, what it needs, how to read and show it, and whether it ranks.

    Declare it with `metric` at the function that computes it. By default it is a share of 1 whose target is the oracle
    band, and does not rank.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name in commands, files and addresses, such as ``gap.forget``."""
    title: str
    """The name in words, for a column head."""
    symbol: str = Field(default_factory=lambda data: data["title"])
    """Short symbol for a narrow column; the title by default."""
    group: Group
    """The column set that it belongs to; ``literature`` is for comparison with published tables only."""
    unit: str = "share"
    """Unit of the stored value; "" for a bare number, "share" for a share of 1."""
    signed: bool = False
    """Whether it is a difference, which is shown with its sign."""
    direction: Direction = "band"
    """What is good: inside the oracle band, large, or small."""
    range: tuple[float | None, float | None] = (0.0, 1.0)
    """Smallest and largest possible value; None where the range is unbounded."""
    requires: tuple[str, ...]
    """What it is computed from: subsets of the evidence, ``features``, ``originals``, ``cost``, ``submitter``,
    ``requests`` (answers after each request of a stream), or what no board holds: ``shadow models``, ``probabilities``,
    ``scores``, ``peak memory``, ``costs by request``."""
    meaning: str
    """One line: how to read the value."""
    misses: str
    """One line: what it does not see."""
    misuse: str
    """The known misuse, or how well-known code deviates."""
    formula: str
    """The definition, in text."""
    example: str
    """A worked example that a reader can check by hand."""
    source: str
    """Where the definition comes from."""
    function: str = ""
    """Module and name of the function that computes it, within ``forgetbench.metrics``; `metric` fills it in."""
    efficacy: tuple[Track, ...] = ()
    """Tracks on which it ranks as evidence of forgetting."""
    harm: tuple[Track, ...] = ()
    """Tracks on which it ranks as evidence of damage."""
    floor: float = 0.0
    """Margin of practical indifference: z never divides by less."""
    fallback: str = ""
    """The metric that also counts towards the distance where this one is saturated."""
    relative_to_band: Literal["difference", "ratio"] | None = None
    """Whether boards show the value minus the mean of its oracle band, or divided by it."""
    calibrated: bool = True
    """Whether the band predicts where a fresh oracle falls; if not, the band is shown but raises no flag."""
    legacy: bool = False
    """Reproduces published code that deviates from the definition; never ranks."""
    unavailable: str = ""
    """Why no board can compute it, for metrics that scorecards list only with this reason."""
    on_boards: bool = True
    """Whether scorecards list it, with a value or the reason for its absence. The others come from a run's records, or
    are functions for arrays of other code."""

    @property
    def subsets(self) -> tuple[str, ...]:
        """The subsets of the evidence among its requirements."""
        return tuple(name for name in self.requires if name in SUBSETS)

    @property
    def from_records(self) -> bool:
        """Whether it comes from a run's records and is shown next to its score."""
        return not self.on_boards and bool({"cost", "requests"} & set(self.requires))

    @property
    def display(self) -> Display:
        """How its values are shown."""
        return Display.of(self.unit, signed=self.signed)

    @property
    def arrow(self) -> str:
        """Its direction as an arrow."""
        return ARROWS[self.direction]

    def role(self, track: Track) -> Role | None:
        """Efficacy, harm, or None where the metric does not rank on this track."""
        if track in self.efficacy:
            return "efficacy"
        return "harm" if track in self.harm else None


@dataclass(frozen=True)
class Declaration:
    """A function with the metrics that it computes."""

    function: Callable[..., Any]
    specs: tuple[MetricSpec, ...]
    board: BoardRule | None
    """How a board computes these metrics; None if scoring computes them by name, or if no board shows them."""


metrics: Registry[MetricSpec] = Registry("metric")
"""All metrics by name; filled when ``forgetbench.metrics`` is imported."""

declarations: list[Declaration] = []
"""All calls of `metric`, in the order of import."""


def metric(*specs: MetricSpec, board: BoardRule | None = None) -> Callable[[Function], Function]:
    """Declare the metrics that a function computes.

    Args:
        specs: One spec for each metric, such as one for each subset.
        board: How a board computes them from recorded logits; see `forgetbench.metrics.board_rules`.

    Returns:
        A decorator that registers the specs and returns the function unchanged.

    Raises:
        ForgetBenchError: A name is already registered.
    """

    def declare(function: Function) -> Function:
        module = function.__module__.removeprefix("forgetbench.metrics.")
        address = f"{module}.{function.__qualname__}"
        named = tuple(spec.model_copy(update={"function": address}) for spec in specs)
        for spec in named:
            metrics.register(spec.name, spec)
        declarations.append(Declaration(function, named, board))
        return function

    return declare


def ranking_metrics(track: Track) -> list[MetricSpec]:
    """The metrics that may rank on a track, efficacy first, then harm, by name."""
    specs = [metrics.get(name) for name in metrics.names()]
    chosen = [spec for spec in specs if spec.role(track)]
    return sorted(chosen, key=lambda spec: (spec.role(track) != "efficacy", spec.name))
