"""Scenarios in which requests come one after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from forgetbench.datasets._sampling import joined_groups, order, take_first_groups
from forgetbench.datasets.base import generator, option
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import Scenario, Split, lost_classes, wanted
from forgetbench.datasets.scenarios.classes import no_classes
from forgetbench.datasets.types import Partition
from forgetbench.errors import ForgetBenchError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@scenarios.register("stream")
@dataclass(frozen=True, kw_only=True)
class Stream(Scenario):
    """Requests one after another, each for other images, people or classes.

    The split holds all that is ever asked for; ``requests`` has the rows of every step, and :func:`step_of` the split
    of one step: what was asked for before is then withheld, and the oracle of the step is trained without either.
    """

    of: Literal["random", "identity", "class"] = option("random", "What is asked for: images, people or classes.")
    steps: int = option(4, "How many requests.", ge=2, le=1000)
    fraction: float | None = option(None, "Share of the images, people or classes, for every request.", gt=0, lt=1)
    count: int | None = option(None, "Number of images, people or classes, for every request.", ge=1)

    name: ClassVar[str] = "stream"
    title: ClassVar[str] = "requests one after another"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        groups, unit = self._groups(partition)
        total = len(groups) if self.of == "random" else int(groups.max()) + 1
        number = wanted(self.option_owner, self.fraction, self.count, total, unit)
        if self.steps * number >= total:
            raise UsageError(
                f"{self.option_owner}: {self.steps} requests for {number} each are all {total} {unit}, or more; some "
                "must stay."
            )
        turns = order(int(groups.max()) + 1, generator("stream", self.of, rng_seed, draw))
        requests = self._requests(groups, turns, number)
        kept = np.setdiff1d(np.arange(len(groups)), np.concatenate(requests))
        gone = lost_classes(partition, kept) if self.of != "random" else []
        return self.split(partition, np.concatenate(requests), gone=gone, requests=requests)

    def _groups(self, partition: Partition) -> tuple[NDArray[np.int64], str]:
        train = partition.train
        if self.of == "class":
            reason = no_classes(partition)
            if reason:
                raise UsageError(f"{self.option_owner}: {reason}.")
            return np.unique(train.labels, return_inverse=True)[1].astype(np.int64), "classes"
        if self.of == "identity":
            if train.identities is None:
                raise UsageError(
                    f"{self.option_owner}: image set {partition.name!r} has no identities; use another 'of'."
                )
            return joined_groups(train.identities, train.first_copy), "people"
        return joined_groups(train.first_copy), "training images"

    def _requests(
        self, groups: NDArray[np.int64], turns: NDArray[np.int64], number: int
    ) -> tuple[NDArray[np.int64], ...]:
        if self.of != "random":
            return tuple(
                np.flatnonzero(np.isin(groups, turns[step * number : (step + 1) * number]))
                for step in range(self.steps)
            )
        requests: list[NDArray[np.int64]] = []
        for _ in range(self.steps):
            rows = take_first_groups(groups, number, turns)
            if not len(rows):
                raise UsageError(f"{self.option_owner}: repeated images leave nothing for request {len(requests) + 1}.")
            requests.append(rows)
            turns = turns[~np.isin(turns, groups[rows])]
        return tuple(requests)


def step_of(partition: Partition, split: Split, step: int) -> Split:
    """The split of one request of a stream.

    Args:
        partition: The image set.
        split: What :class:`Stream` drew.
        step: The request, from 0.

    Returns:
        ``forget``: the rows of this request; ``withheld``: those of the earlier ones; ``retain``: all that nobody has
        asked for yet. Test rows are divided by the classes that are gone by now.

    Raises:
        ForgetBenchError: The split is of no stream, or has no such step.
    """
    if not 0 <= step < len(split.requests):
        raise ForgetBenchError(f"there is no step {step} in a stream of {len(split.requests)} requests")
    asked = np.concatenate(split.requests[: step + 1])
    kept = np.setdiff1d(np.arange(len(split.train_labels)), asked)
    gone = lost_classes(partition, kept) if split.track == "erase" else []
    earlier = np.concatenate([split.retain[:0], *split.requests[:step]])
    return Stream().split(partition, split.requests[step], withheld=earlier, train_labels=split.train_labels, gone=gone)
