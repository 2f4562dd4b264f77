"""Scenarios that forget classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from forgetbench.datasets._sampling import order
from forgetbench.datasets.base import generator, option
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import Scenario, Split, number_of
from forgetbench.datasets.types import Partition
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@scenarios.register("class")
@dataclass(frozen=True, kw_only=True)
class WholeClasses(Scenario):
    """Forget every training image of some classes.

    Classes that are named are the same in every draw; else draw g takes the next ``count`` of one random order of all.
    """

    classes: tuple[str | int, ...] = option((), "Classes by name or number; none: drawn at random.")
    count: int = option(1, "How many classes to draw, where none is named.", ge=1)

    name: ClassVar[str] = "class"
    title: ClassVar[str] = "all images of some classes"

    @classmethod
    def unfit(cls, partition: Partition) -> str | None:
        """Attributes are no classes."""
        return no_classes(partition)

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        names = partition.train.classes
        gone = choose_classes(self.option_owner, self.classes, names, self.count, draw, rng_seed)
        return self.split(partition, np.flatnonzero(np.isin(partition.train.labels, gone)), gone=gone)


@scenarios.register("subclass")
@dataclass(frozen=True, kw_only=True)
class Subclasses(Scenario):
    """Forget every training image of some finer classes: rockets among the vehicles of CIFAR-20.

    Images of the other finer classes of the same class stay, so that the class as such is still to be known.
    """

    subclasses: tuple[str | int, ...] = option((), "Finer classes by name or number; none: drawn at random.")
    count: int = option(1, "How many finer classes to draw, where none is named.", ge=1)

    name: ClassVar[str] = "subclass"
    title: ClassVar[str] = "all images of some finer classes"

    @classmethod
    def unfit(cls, partition: Partition) -> str | None:
        """There must be finer classes."""
        known = partition.train.fine_labels is not None
        return None if known else f"image set {partition.name!r} has no finer classes"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        fine, names = partition.train.fine_labels, partition.train.fine_classes
        assert fine is not None  # noqa: S101 (draw has asked unfit)
        gone = choose_classes(self.option_owner, self.subclasses, names, self.count, draw, rng_seed)
        return self.split(partition, np.flatnonzero(np.isin(fine, gone)), gone_fine=gone)


@scenarios.register("few-shot")
@dataclass(frozen=True, kw_only=True)
class FewShot(Scenario):
    """Forget classes of which the method is given few images; the others of those classes are withheld.

    Does forgetting reach the images of a class that nobody showed to the method (Zhao et al. 2024)? Which images are
    shown changes from draw to draw.
    """

    classes: tuple[str | int, ...] = option((), "Classes by name or number; none: drawn at random.")
    count: int = option(1, "How many classes to draw, where none is named.", ge=1)
    shots: int = option(4, "Images of every forgotten class that the method is given.", ge=1)

    name: ClassVar[str] = "few-shot"
    title: ClassVar[str] = "classes, of which the method is given few images"

    @classmethod
    def unfit(cls, partition: Partition) -> str | None:
        """Attributes are no classes."""
        return no_classes(partition)

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        labels, names = partition.train.labels, partition.train.classes
        gone = choose_classes(self.option_owner, self.classes, names, self.count, draw, rng_seed)
        rng = generator("few-shot", rng_seed, draw)
        shown: list[np.ndarray] = []
        for label in gone:
            rows = np.flatnonzero(labels == label)
            if len(rows) <= self.shots:
                raise UsageError(
                    f"{self.option_owner}: class {names[label]!r} has {len(rows)} training images; with {self.shots} "
                    "shown none is withheld. Lower shots, or use scenario 'class'."
                )
            shown.append(rows[order(len(rows), rng)[: self.shots]])
        forget = np.sort(np.concatenate(shown))
        withheld = np.setdiff1d(np.flatnonzero(np.isin(labels, gone)), forget)
        return self.split(partition, forget, withheld=withheld, gone=gone)


def no_classes(partition: Partition) -> str | None:
    """Why nothing can be forgotten by class, or None."""
    if partition.train.attributes:
        return f"image set {partition.name!r} is labeled with attributes, not with classes"
    return None


def choose_classes(
    owner: str, named: Sequence[str | int], names: Sequence[str], count: int, draw: int, rng_seed: int
) -> list[int]:
    """The classes that are named or, if none is, the ones of this draw.

    Raises:
        UsageError: There is no such class, or fewer classes than are asked for.
    """
    if named:
        return sorted({number_of(owner, "class", name, names) for name in named})
    if count >= len(names):
        raise UsageError(f"{owner}: {count} of {len(names)} classes would be forgotten; at least one must stay.")
    turns = order(len(names), generator("class", rng_seed))
    return sorted(int(turns[(draw * count + place) % len(names)]) for place in range(count))
