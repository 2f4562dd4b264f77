"""What there is to say about a metric, once: one spec feeds the command line, docs, pages and ranking."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from forgetbench.registry import Registry

Track = Literal["match-oracle", "erase"]
Role = Literal["efficacy", "harm"]
Group = Literal["utility", "privacy", "erasure", "cost", "literature"]


class MetricSpec(BaseModel):
    """A metric: what it is, what it needs, how to read it, and whether it ranks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name in commands, files and addresses, such as ``gap.forget``."""
    title: str
    """The name in words, for a column head."""
    symbol: str
    """Short symbol for a narrow column."""
    group: Group
    """The column set that it belongs to; ``literature`` is for comparison with published tables only."""
    unit: str
    """Unit of the value; "" where it is a bare number, "share" for a share of 1."""
    direction: Literal["band", "up", "down"]
    """What is good: inside the oracle band, large, or small."""
    range: tuple[float | None, float | None]
    """Smallest and largest value possible; None where there is no end."""
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
    function: str
    """The function that computes it, in ``forgetbench.metrics``."""
    efficacy: tuple[Track, ...] = ()
    """Tracks on which it ranks as evidence of forgetting."""
    harm: tuple[Track, ...] = ()
    """Tracks on which it ranks as evidence of damage."""
    floor: float = 0.0
    """Margin of practical indifference: z never divides by less."""
    calibrated: bool = True
    """Whether halvings tell where a fresh oracle lies; if not, the band is shown and flags nothing."""
    legacy: bool = False
    """Reproduces published code that deviates from the definition; never ranks."""

    on_boards: bool = True
    """Whether scorecards hold it among their metrics, with a value or the reason why there is none; the others come
    from a run's records, or are functions of one's own arrays."""

    @property
    def from_records(self) -> bool:
        """Whether it comes from a run's records and is shown beside its score."""
        return not self.on_boards and bool({"cost", "requests"} & set(self.requires))

    def role(self, track: Track) -> Role | None:
        """Efficacy, harm, or None where the metric does not rank on this track."""
        if track in self.efficacy:
            return "efficacy"
        return "harm" if track in self.harm else None


metrics: Registry[MetricSpec] = Registry("metric")
"""All metrics by name; filled when ``forgetbench.metrics`` is imported."""


def ranking_metrics(track: Track) -> list[MetricSpec]:
    """The metrics that may rank on a track, efficacy first, then harm, by name."""
    specs = [metrics.get(name) for name in metrics.names()]
    chosen = [spec for spec in specs if spec.role(track)]
    return sorted(chosen, key=lambda spec: (spec.role(track) != "efficacy", spec.name))
