"""Base class of scenarios, and the split that they return."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from forgetbench.datasets._tables import category
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.types import Partition
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.options import Options
from forgetbench.registry import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from forgetbench.datasets.types import ImageSet

Track = Literal["match-oracle", "erase", "corrective"]


@dataclass(frozen=True, eq=False)
class Split:
    """A forget set and everything that follows from it; arrays are int64, read-only, and row numbers are sorted.

    Attributes:
        forget: Rows of ``train`` that a method has to forget.
        retain: Rows of ``train`` that remain; the oracle is trained only on these.
        withheld: Rows of ``train`` that the original was trained on, and that neither method nor oracle receives. On
            the corrective track: harmful rows that were not found, which methods receive among the retained ones.
        train_labels: Labels of ``train`` for training; some are wrong if the scenario mislabels images.
        test: Rows of ``test`` that a model should still classify.
        test_forgotten: Rows of ``test`` of forgotten classes; empty if no class is forgotten.
        validation: Rows of ``validation`` that a method receives: those of classes that are not forgotten.
        track: Whether models are ranked by similarity to the oracle, by how much they erased, or by how well they
            correct what bad data taught.
        requests: For streams, the rows of every request, in the order of the requests; otherwise empty.
    """

    forget: NDArray[np.int64]
    retain: NDArray[np.int64]
    withheld: NDArray[np.int64]
    train_labels: NDArray[np.int64]
    test: NDArray[np.int64]
    test_forgotten: NDArray[np.int64]
    validation: NDArray[np.int64]
    track: Track
    requests: tuple[NDArray[np.int64], ...] = ()

    def __post_init__(self) -> None:
        for name in ("forget", "retain", "withheld", "train_labels", "test", "test_forgotten", "validation"):
            object.__setattr__(self, name, _read_only(getattr(self, name)))
        object.__setattr__(self, "requests", tuple(_read_only(rows) for rows in self.requests))
        rows = np.concatenate([self.forget, self.retain, self.withheld])
        if not np.array_equal(np.sort(rows), np.arange(len(self.train_labels))):
            raise ForgetBenchError("forget, retain and withheld must be disjoint and cover the training set")

    @cached_property
    def given(self) -> NDArray[np.int64]:
        """Rows that a method receives as retained: ``retain``, and harmful rows that were not found.

        Retraining without the found part is training on these.
        """
        if self.track != "corrective":
            return self.retain
        return _read_only(np.sort(np.concatenate([self.retain, self.withheld])))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all arrays, in the order of the attributes, and of the track."""
        state = hashlib.sha256(json.dumps([self.track, [len(rows) for rows in self.requests]]).encode())
        for item in fields(self):
            value = getattr(self, item.name)
            for array in value if isinstance(value, tuple) else () if isinstance(value, str) else (value,):
                state.update(json.dumps([item.name, array.shape]).encode())
                state.update(array.astype("<i8", copy=False).data)
        return state.hexdigest()


class Scenario(Options, ABC):
    """A rule that draws the forget set: a frozen, keyword-only dataclass of its options.

    A split depends only on the partition, the options, the number of the draw and the seed; not on models or their
    seeds.
    """

    name: ClassVar[str]
    """Name in the registry."""
    title: ClassVar[str]
    """One line for lists."""

    @property
    def corrective(self) -> bool:
        """Whether splits are on the corrective track: harmful rows that were not found stay in what methods receive."""
        return False

    def __init_subclass__(cls, **keywords: object) -> None:
        super().__init_subclass__(**keywords)
        if "name" in vars(cls):
            cls.option_owner = f"scenario {cls.name!r}"

    @classmethod
    def incompatibility(cls, partition: Partition) -> str | None:  # noqa: ARG003 (base: fits all image sets)
        """Return why the scenario cannot be used with an image set, without full stop; None if it can be used.

        Args:
            partition: The image set.
        """
        return None

    def prepare(self, partition: Partition, rng_seed: int = 0) -> Partition:  # noqa: ARG002 (base: changes nothing)
        """Return the image set as models see it, which differs from what was loaded if the scenario changes images.

        Args:
            partition: The image set as it was loaded; it stays unchanged.
            rng_seed: Seed of the task's splits.

        Raises:
            UsageError: The scenario does not fit the image set.
        """
        return partition

    def draw(self, partition: Partition, draw: int = 0, rng_seed: int = 0) -> Split:
        """Draw a forget set.

        Args:
            partition: The image set, as it was loaded or as `prepare` returned it.
            draw: Number of the draw, from 0; each gives another forget set if the rule leaves a choice.
            rng_seed: Seed of the task's splits.

        Raises:
            UsageError: The scenario does not fit the image set, or no image or all images would be forgotten.
        """
        reason = self.incompatibility(partition)
        if reason:
            fitting = [name for name in scenarios.names() if not scenarios.get(name).incompatibility(partition)]
            raise UsageError(f"{self.option_owner}: {reason}. Scenarios that work with it: {', '.join(fitting)}.")
        return self._draw(partition, draw, rng_seed)

    @abstractmethod
    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split:
        """Draw a forget set from an image set that fits."""

    def make_split(
        self,
        partition: Partition,
        forget: ArrayLike,
        *,
        withheld: ArrayLike = (),
        train_labels: NDArray[np.int64] | None = None,
        forgotten_classes: Iterable[int] = (),
        forgotten_fine_classes: Iterable[int] = (),
        requests: tuple[NDArray[np.int64], ...] = (),
        missed: ArrayLike | None = None,
    ) -> Split:
        """Make the split with these rows to forget; all others are retained.

        Args:
            partition: The image set.
            forget: Rows of the training set.
            withheld: Rows that originals are trained on, and that neither method nor oracle receives.
            train_labels: Labels for training; None: those of the image set.
            forgotten_classes: Classes that are forgotten as a whole; they put the split on the erase track.
            forgotten_fine_classes: Fine classes that are forgotten as a whole; likewise.
            requests: For streams, the rows of every request.
            missed: For correction: harmful rows that were not found, which remain in what methods receive; empty if
                all were found. They put the split on the corrective track.

        Raises:
            UsageError: No image or all images would be forgotten.
        """
        forget_rows = np.unique(np.asarray(forget, dtype=np.int64))
        withheld_rows = np.unique(np.asarray(withheld if missed is None else missed, dtype=np.int64))
        total = len(partition.train)
        retain = np.setdiff1d(np.arange(total), np.concatenate([forget_rows, withheld_rows]))
        if not len(forget_rows):
            raise UsageError(f"{self.option_owner}: none of the {total} training images would be forgotten.")
        if not len(retain):
            raise UsageError(f"{self.option_owner}: all {total} training images would be forgotten; some must remain.")
        classes, fine_classes = sorted(forgotten_classes), sorted(forgotten_fine_classes)
        forgotten = {
            part: _in_classes(getattr(partition, part), classes, fine_classes) for part in ("validation", "test")
        }
        return Split(
            forget=forget_rows,
            retain=retain,
            withheld=withheld_rows,
            train_labels=partition.train.labels if train_labels is None else train_labels,
            test=np.flatnonzero(~forgotten["test"]),
            test_forgotten=np.flatnonzero(forgotten["test"]),
            validation=np.flatnonzero(~forgotten["validation"]),
            track="corrective" if missed is not None else "erase" if classes or fine_classes else "match-oracle",
            requests=requests,
        )


def forget_count(owner: str, fraction: float | None, count: int | None, total: int, what: str) -> int:
    """Return how many of a total to forget, given as a fraction or as a count: exactly one of the two.

    Args:
        owner: The scenario, for messages.
        fraction: Fraction of the total.
        count: Number of items.
        total: Number of all items.
        what: Name of the items, for messages: "people".

    Raises:
        UsageError: Both or neither are given, or the number is not between 1 and ``total - 1``.
    """
    if (fraction is None) == (count is None):
        raise UsageError(f"{owner}: give either fraction or count, the fraction or the number of {what} to forget.")
    number = round(fraction * total) if fraction is not None else count or 0
    if not 0 < number < total:
        raise UsageError(f"{owner}: {number} of {total} {what} would be forgotten; give at least 1 and not all.")
    return number


def resolve_number(owner: str, kind: str, value: str | int, names: Sequence[str]) -> int:
    """Return the number of a class or person, given by name, or by number if no name is a number.

    If names are numbers themselves, '10' always means the class of that name and never the class number 10: forgetting
    another class than intended would look like success. '#10' always means the number.

    Args:
        owner: The scenario, for messages.
        kind: "class" or "person".
        value: Name or number.
        names: Names of all classes or people.

    Raises:
        UsageError: There is no such name or number.
    """
    name = str(value)
    if name in names:
        return list(names).index(name)
    if name.startswith("#") and name[1:].isdecimal() and int(name[1:]) < len(names):
        return int(name[1:])
    same = [number for number, known in enumerate(names) if _spelling(known) == _spelling(name)]
    if len(same) == 1:
        return same[0]
    if name.isdecimal() and int(name) < len(names) and not any(known.isdecimal() for known in names):
        return int(name)
    raise UsageError(f"{owner}: {unknown(kind, name, list(names))}")


def _spelling(name: str) -> str:
    """Return a name in composed Unicode letters, and a whole number without a decimal point."""
    return category(unicodedata.normalize("NFC", name))


def completely_forgotten_classes(partition: Partition, retain: NDArray[np.int64]) -> list[int]:
    """Return the classes of the training set without a retained image; none for image sets with attributes.

    Args:
        partition: The image set.
        retain: Rows of the training set that remain.
    """
    labels = partition.train.labels
    if partition.train.attributes:
        return []
    return sorted(set(labels.tolist()) - set(labels[retain].tolist()))


def _in_classes(images: ImageSet, classes: list[int], fine_classes: list[int]) -> NDArray[np.bool_]:
    """Mark the images of these classes or fine classes."""
    chosen = np.zeros(len(images), dtype=bool)
    if classes:
        chosen |= np.isin(images.labels, classes)
    if fine_classes and images.fine_labels is not None:
        chosen |= np.isin(images.fine_labels, fine_classes)
    return chosen


def _read_only(array: NDArray[np.int64]) -> NDArray[np.int64]:
    frozen = np.ascontiguousarray(array, dtype=np.int64).view()
    frozen.flags.writeable = False
    return frozen
