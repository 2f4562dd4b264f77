"""Scenario in which forget requests arrive one after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from forgetbench.datasets._sampling import connected_groups, random_order, take_ranked_groups
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import (
    Scenario,
    Split,
    completely_forgotten_classes,
    forget_count,
    resolve_number,
)
from forgetbench.datasets.scenarios.classes import requires_classes
from forgetbench.datasets.types import Partition
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.options import option

if TYPE_CHECKING:
    from numpy.typing import NDArray


@scenarios.register("stream")
@dataclass(frozen=True, kw_only=True)
class Stream(Scenario):
    """Several requests, one after another, each for other images, people or classes.

    The split contains the rows of all requests, and `requests` those of each. In the split of one step, the rows of
    earlier requests are withheld; the oracle of a step is trained without either.
    """

    of: Literal["random", "identity", "class"] = option("random", "What is forgotten: images, people or classes.")
    steps: int = option(4, "Number of requests.", ge=2, le=1000)
    fraction: float | None = option(None, "Fraction of the images, people or classes in every request.", gt=0, lt=1)
    count: int | None = option(None, "Number of images, people or classes in every request.", ge=1)
    order: tuple[str | int, ...] = option((), "Classes by name or number, in the order of requests; none: drawn.")

    name: ClassVar[str] = "stream"
    title: ClassVar[str] = "several requests, one after another"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        groups, unit = self._groups(partition)
        total = len(groups) if self.of == "random" else int(groups.max()) + 1
        count = forget_count(self.option_owner, self.fraction, self.count, total, unit)
        if self.steps * count >= total:
            raise UsageError(
                f"{self.option_owner}: {self.steps} requests of {count} would forget all {total} {unit}; some must "
                "remain."
            )
        order = self._given_order(partition, self.steps * count)
        if order is None:
            order = random_order(int(groups.max()) + 1, make_rng("stream", self.of, rng_seed, draw))
        requests = self._requests(groups, order, count)
        forget = np.concatenate(requests)
        retain = np.setdiff1d(np.arange(len(groups)), forget)
        classes = completely_forgotten_classes(partition, retain) if self.of != "random" else []
        return self.make_split(partition, forget, forgotten_classes=classes, requests=requests)

    def _given_order(self, partition: Partition, count: int) -> NDArray[np.int64] | None:
        """Return the classes of all requests in order; None if they are drawn."""
        if not self.order:
            return None
        if self.of != "class":
            raise UsageError(f"{self.option_owner}: option order lists classes; it needs of = class, not {self.of}.")
        classes = partition.train.classes
        numbers = [resolve_number(self.option_owner, "class", name, classes) for name in self.order]
        if len(set(numbers)) != len(numbers) or len(numbers) != count:
            raise UsageError(
                f"{self.option_owner}: option order must list {count} different classes, one for each that is "
                f"requested, not {len(set(numbers))}."
            )
        return np.searchsorted(np.unique(partition.train.labels), numbers).astype(np.int64)

    def _groups(self, partition: Partition) -> tuple[NDArray[np.int64], str]:
        """Return the group of every row, whose rows are forgotten together, and the unit that is counted."""
        train = partition.train
        if self.of == "class":
            reason = requires_classes(partition)
            if reason:
                raise UsageError(f"{self.option_owner}: {reason}.")
            return np.unique(train.labels, return_inverse=True)[1].astype(np.int64), "classes"
        if self.of == "identity":
            if train.identities is None:
                raise UsageError(
                    f"{self.option_owner}: image set {partition.name!r} has no identities; set option of to another "
                    "value."
                )
            return connected_groups(train.identities, train.first_copy), "people"
        return connected_groups(train.first_copy), "training images"

    def _requests(
        self, groups: NDArray[np.int64], order: NDArray[np.int64], count: int
    ) -> tuple[NDArray[np.int64], ...]:
        if self.of != "random":
            return tuple(
                np.flatnonzero(np.isin(groups, order[step * count : (step + 1) * count])) for step in range(self.steps)
            )
        requests: list[NDArray[np.int64]] = []
        for _ in range(self.steps):
            rows = take_ranked_groups(groups, count, order)
            if not len(rows):
                raise UsageError(f"{self.option_owner}: repeated images leave none for request {len(requests) + 1}.")
            requests.append(rows)
            order = order[~np.isin(order, groups[rows])]
        return tuple(requests)


def split_of_step(partition: Partition, split: Split, step: int) -> Split:
    """Return the split of one request of a stream.

    Args:
        partition: The image set.
        split: The split that :class:`Stream` drew.
        step: Number of the request, from 0.

    Returns:
        ``forget`` has the rows of this request, ``withheld`` those of earlier ones, and ``retain`` all rows of no
        request so far. Test rows are divided by the classes that are forgotten so far.

    Raises:
        ForgetBenchError: The split is not of a stream, or has no such step.
    """
    if not 0 <= step < len(split.requests):
        raise ForgetBenchError(f"step {step} is not in a stream of {len(split.requests)} requests")
    requested = np.concatenate(split.requests[: step + 1])
    retain = np.setdiff1d(np.arange(len(split.train_labels)), requested)
    classes = completely_forgotten_classes(partition, retain) if split.track == "erase" else []
    earlier = np.concatenate([split.retain[:0], *split.requests[:step]])
    return Stream().make_split(
        partition,
        split.requests[step],
        withheld=earlier,
        train_labels=split.train_labels,
        forgotten_classes=classes,
    )
