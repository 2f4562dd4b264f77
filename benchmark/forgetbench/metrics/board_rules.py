"""Board rules: how a board computes a metric from recorded logits. A metric declares its rule at its function.

A board compares S unlearned models with S oracles. It needs a metric on a thousand splits of the pooled oracles for the
band, and with each seed left out for the interval, so a rule computes what depends on single models (or pairs of
models) once for all pooled models, and the metric then only selects among them. For a metric that is not that costly
`LogitsRule` needs nothing but the metric's own function.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray, floats
from forgetbench.metrics.columns import Answers, Column

Arrays = Mapping[str, NDArray[Any]]
Population = Sequence[Arrays]
"""For each draw, subset -> logits (S, n, K); ``features:<subset>`` -> (S, n, F) if recorded."""
Labels = Sequence[Arrays]
"""For each draw, subset -> labels (n,) or (n, A); ``groups:<subset>`` -> group numbers (n,) if there are groups."""
ModelValues = Mapping[str, FloatArray]
"""Metric name -> (G, S) values of single models, G draws of S models."""

SUBSETS = ("forget", "retain", "withheld", "validation", "test", "test-forgotten", "unseen", "test-triggered")
"""Subsets of the evidence."""
TARGETS = "targets:"
"""Prefix of the labels that harmful training data makes models answer on a subset."""
FEATURES = "features:"
"""Prefix of the arrays of penultimate features."""
MAX_SPLITS_SLOW = 100
"""Splits behind the band of a metric that is slow and does not rank."""

Metric = Callable[[IntArray, IntArray], float]
ValuesBySeed = Callable[[IntArray, IntArray], FloatArray]
Symmetry = Literal["even", "odd"]


@dataclass(frozen=True)
class Comparison:
    """A metric of the unlearned models against the oracles, both given as index arrays into the pooled models."""

    value: Metric
    """The metric."""
    symmetry: Symmetry | None = None
    """Whether exchanging the sides keeps the value or changes its sign, which saves half of the band's work."""
    by_seed: ValuesBySeed | None = None
    """One value per unlearned model, for dots."""
    max_splits: int | None = None
    """Upper limit of the splits behind its band; all by default."""
    leave_out: bool = True
    """Whether it has an interval, from leaving out each seed."""
    left_out: dict[int, tuple[float, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Seeds -> the metric with all seeds, then with each seed left out, once it is known."""


def with_columns(population: Population, labels: Labels) -> list[Answers]:
    """A population whose columns are kept; that of a board's references is shared by all its rows.

    Raises:
        UsageError: The numbers of draws differ.
    """
    if len(population) != len(labels):
        raise UsageError(f"The numbers of draws differ: {len(population)} of logits, {len(labels)} of labels.")
    return [Answers.of(answers, truth) for answers, truth in zip(population, labels, strict=True)]


class Draw:
    """Recorded answers of pooled models on one draw. Derived arrays are computed once.

    Args:
        sides: The answers of each group of models; the pool has them in this order.
        labels: Subset -> labels.
        values: Per-model metrics that are already known: metric name -> (M,) values of the pooled models.
        originals: The same of the originals, (S,), if there are originals.
        all_rows: Whether metrics that never rank read all rows, instead of a fixed number of them.
    """

    def __init__(
        self,
        sides: Sequence[Arrays],
        labels: Arrays,
        values: Mapping[str, FloatArray] | None = None,
        originals: Mapping[str, FloatArray] | None = None,
        *,
        all_rows: bool = False,
    ) -> None:
        self.sides = [Answers.of(side, labels) for side in sides]
        self.labels = labels
        self.values = dict(values or {})
        self.originals = dict(originals or {})
        self.all_rows = all_rows
        self._cache: dict[Hashable, Any] = {}

    def has(self, *subsets: str) -> bool:
        """Whether every subset has rows."""
        return all(len(self.labels.get(subset, ())) for subset in subsets)

    def has_attributes(self, subset: str = "forget") -> bool:
        """Whether the labels of a subset are binary attributes (n, A) and not classes (n,)."""
        return np.ndim(self.labels[subset]) == 2

    def logits(self, subset: str) -> FloatArray:
        """Logits of the pooled models on one subset, (M, n, K), checked.

        Raises:
            UsageError: The subset is missing, a value is not finite, or the groups of models have different rows or
                outputs.
        """
        self._require_alike(subset)
        sides = [floats(side[subset], f"{subset} logits", ndim=3) for side in self.sides]
        return np.concatenate(sides) if len(sides) > 1 else sides[0]

    def blocks(self, subset: str) -> Iterator[FloatArray]:
        """The same in blocks of rows, (M, b, K), for metrics that need the logits of several models at once."""
        self._require_alike(subset)
        models = sum(len(side[subset]) for side in self.sides)
        for parts in zip(*(side.blocks(subset, models) for side in self.sides), strict=True):
            yield np.concatenate([block for _, block in parts])

    def column(self, name: Column, subset: str) -> NDArray[Any]:
        """A column of the pooled models on one subset, (M, n) or (M, n, A).

        Raises:
            UsageError: As `logits`.
        """

        def pooled() -> NDArray[Any]:
            self._require_alike(subset)
            columns = [side.column(name, subset) for side in self.sides]
            return np.concatenate(columns) if len(columns) > 1 else columns[0]

        return self.cached((name, subset), pooled)

    def phi(self, subset: str) -> FloatArray:
        """Phi of the pooled models on one subset, (M, n)."""
        return self.column("phi", subset)

    def at_most(self, rows: int) -> int | None:
        """The limit of rows of a metric that never ranks; None for all rows."""
        return None if self.all_rows else rows

    def _require_alike(self, subset: str) -> None:
        """Require logits of the same rows and outputs on all sides."""
        if not all(subset in side for side in self.sides):
            raise UsageError(f"The logits of {subset!r} are missing on one side.")
        shapes = [np.shape(side[subset])[1:] for side in self.sides]
        if len(set(shapes)) > 1:
            raise UsageError(f"{subset}: {shapes[0]} rows and outputs against {shapes[1]}.")

    def cached(self, key: Hashable, compute: Callable[[], FloatArray]) -> FloatArray:
        """A derived array, computed at the first call with its key."""
        if key not in self._cache:
            self._cache[key] = compute()
        array: FloatArray = self._cache[key]
        return array


@dataclass(frozen=True)
class PairwiseRule:
    """The metric compares the two sides; it gets a band, a z, and an interval over seeds."""

    prepare: Callable[..., Comparison | None]
    """``prepare(draw, *subsets)`` with the subsets that the spec requires. None: not defined on this board. A
    ``UsageError`` is shown as the reason for a missing value."""


@dataclass(frozen=True)
class LogitsRule:
    """The declared function itself is called as ``function(unlearned, oracle, labels)``, on one subset.

    It receives logits (S, n, K) of either side and the labels (n,) or (n, A), and returns a number. It is called a few
    hundred times for a band: use `PairwiseRule` if it takes longer than some milliseconds.
    """

    symmetry: Symmetry | None = None
    """Whether exchanging the sides keeps the value or changes its sign."""
    max_splits: int = MAX_SPLITS_SLOW
    """Upper limit of the splits behind its band."""

    def comparison(self, draw: Draw, subset: str, function: Callable[..., float]) -> Comparison:
        """The function as a comparison of pooled models."""
        logits, labels = draw.logits(subset), draw.labels[subset]
        return Comparison(
            lambda left, right: float(function(logits[left], logits[right], labels)),
            self.symmetry,
            max_splits=self.max_splits,
        )


@dataclass(frozen=True)
class PerModelRule:
    """The metric has one value per model. Its band is that of the difference of means, moved to the oracles' mean."""

    measure: Callable[[Draw], FloatArray]
    """(M,) values of the models of a draw. A ``UsageError`` is shown as the reason for a missing value."""
    reads: tuple[str, ...] = ()
    """Per-model metrics that it reads from ``draw.values``; without them it is silently left out."""
    compare: Callable[[Draw, FloatArray], Comparison | None] | None = None
    """Another comparison of the pooled values than the difference of means; its value is then shown as it is."""


@dataclass(frozen=True)
class Populations:
    """Everything that a metric of one contestant may read."""

    unlearned: Population
    oracles: Population
    originals: Population | None
    labels: Labels
    values: ModelValues
    """Per-model metrics of the unlearned models."""

    def has(self, *subsets: str) -> bool:
        """Whether every subset has rows in every draw."""
        return all(len(truth.get(subset, ())) for truth in self.labels for subset in subsets)


@dataclass(frozen=True)
class PerSeedRule:
    """The metric has one value per seed, shown with a t interval; it has no band."""

    measure: Callable[[Populations], FloatArray | None]
    """(S,) values, each a mean over draws; None: not defined on this board."""


BoardRule = PairwiseRule | LogitsRule | PerModelRule | PerSeedRule


def difference_of_means(values: FloatArray) -> Comparison:
    """The mean of (M,) values over the unlearned models minus the mean over the oracles."""

    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        gaps: FloatArray = values[left] - values[right].mean()
        return gaps

    return Comparison(lambda left, right: float(values[left].mean() - values[right].mean()), "odd", by_seed)


def paired_by_seed(
    metric: Callable[[Mapping[str, FloatArray], Mapping[str, FloatArray]], FloatArray], values: Mapping[str, FloatArray]
) -> Comparison:
    """A metric of several (M,) quantities that pairs seed with seed and is then averaged."""

    def by_seed(left: IntArray, right: IntArray) -> FloatArray:
        return metric({name: array[left] for name, array in values.items()}, {n: a[right] for n, a in values.items()})

    return Comparison(lambda left, right: float(by_seed(left, right).mean()), "even", by_seed)


def mean_over_pairs(matrix: FloatArray) -> Comparison:
    """The mean over all pairs of an unlearned model and an oracle of a symmetric (M, M) matrix."""
    return Comparison(lambda left, right: float(matrix[np.ix_(left, right)].mean()), "even")
