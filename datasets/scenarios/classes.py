"""Scenarios that forget classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from forgetbench.datasets._sampling import random_order
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import Scenario, Split, resolve_number
from forgetbench.datasets.types import Partition
from forgetbench.errors import UsageError
from forgetbench.options import option

if TYPE_CHECKING:
    from collections.abc import Sequence


@scenarios.register("class")
@dataclass(frozen=True, kw_only=True)
class WholeClasses(Scenario):
    """Forget all training images of some classes.

    Named classes are the same in every draw. Without names, draw g takes the next `count` classes of one random
    order.
    """

    classes: tuple[str | int, ...] = option((), "Classes by name or number; none: drawn at random.")
    count: int = option(1, "Number of classes to draw if none is named.", ge=1)

    name: ClassVar[str] = "class"
    title: ClassVar[str] = "all images of some classes"

    @classmethod
    def incompatibility(cls, partition: Partition) -> str | None:
        """Require classes."""
        return requires_classes(partition)

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        names = partition.train.classes
        chosen = choose_classes(self.option_owner, self.classes, names, self.count, draw, rng_seed)
        forget = np.flatnonzero(np.isin(partition.train.labels, chosen))
        return self.make_split(partition, forget, forgotten_classes=chosen)


@scenarios.register("subclass")
@dataclass(frozen=True, kw_only=True)
class Subclasses(Scenario):
    """Forget all training images of some fine classes: rockets among the vehicles of CIFAR-20.

    Images of the other fine classes of the same class are retained, so that models should still recognize the class.
    """

    subclasses: tuple[str | int, ...] = option((), "Fine classes by name or number; none: drawn at random.")
    count: int = option(1, "Number of fine classes to draw if none is named.", ge=1)

    name: ClassVar[str] = "subclass"
    title: ClassVar[str] = "all images of some fine classes"

    @classmethod
    def incompatibility(cls, partition: Partition) -> str | None:
        """Require fine classes."""
        known = partition.train.fine_labels is not None
        return None if known else f"image set {partition.name!r} has no fine classes"

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        fine_labels, names = partition.train.fine_labels, partition.train.fine_classes
        assert fine_labels is not None  # noqa: S101 (draw has called incompatibility)
        chosen = choose_classes(self.option_owner, self.subclasses, names, self.count, draw, rng_seed)
        return self.make_split(partition, np.flatnonzero(np.isin(fine_labels, chosen)), forgotten_fine_classes=chosen)


@scenarios.register("few-shot")
@dataclass(frozen=True, kw_only=True)
class FewShot(Scenario):
    """Forget classes of which the method receives only a few images; their other images are withheld.

    It tests whether forgetting extends to images of a class that the method never received (Zhao et al. 2024). Every
    draw gives the method other images.
    """

    classes: tuple[str | int, ...] = option((), "Classes by name or number; none: drawn at random.")
    count: int = option(1, "Number of classes to draw if none is named.", ge=1)
    shots: int = option(4, "Images of every forgotten class that the method receives.", ge=1)

    name: ClassVar[str] = "few-shot"
    title: ClassVar[str] = "classes of which the method receives few images"

    @classmethod
    def incompatibility(cls, partition: Partition) -> str | None:
        """Require classes."""
        return requires_classes(partition)

    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        labels, names = partition.train.labels, partition.train.classes
        chosen = choose_classes(self.option_owner, self.classes, names, self.count, draw, rng_seed)
        rng = make_rng("few-shot", rng_seed, draw)
        shots: list[np.ndarray] = []
        for label in chosen:
            rows = np.flatnonzero(labels == label)
            if len(rows) <= self.shots:
                raise UsageError(
                    f"{self.option_owner}: class {names[label]!r} has only {len(rows)} training images, so that with "
                    f"{self.shots} shots none is withheld. Reduce shots, or use scenario 'class'."
                )
            shots.append(rows[random_order(len(rows), rng)[: self.shots]])
        forget = np.sort(np.concatenate(shots))
        withheld = np.setdiff1d(np.flatnonzero(np.isin(labels, chosen)), forget)
        return self.make_split(partition, forget, withheld=withheld, forgotten_classes=chosen)


def requires_classes(partition: Partition) -> str | None:
    """Return why classes cannot be forgotten; None if they can."""
    if partition.train.attributes:
        return f"image set {partition.name!r} is labeled with attributes, not with classes"
    return None


def choose_classes(
    owner: str, named: Sequence[str | int], names: Sequence[str], count: int, draw: int, rng_seed: int
) -> list[int]:
    """Return the numbers of the named classes or, if none is named, of the classes of a draw.

    Args:
        owner: The scenario, for messages.
        named: Classes by name or number.
        names: Names of all classes.
        count: Number of classes to draw.
        draw: Number of the draw.
        rng_seed: Seed of the task's splits.

    Raises:
        UsageError: A class is unknown, or all classes would be forgotten.
    """
    if named:
        return sorted({resolve_number(owner, "class", name, names) for name in named})
    if count >= len(names):
        raise UsageError(f"{owner}: {count} of {len(names)} classes would be forgotten; at least one must remain.")
    order = random_order(len(names), make_rng("class", rng_seed))
    return sorted(int(order[(draw * count + position) % len(names)]) for position in range(count))
