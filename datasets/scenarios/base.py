"""Scenarios: the rules that draw what is to be forgotten; and the split that they return."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from forgetbench.datasets.base import Options
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.types import Partition
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.registry import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from forgetbench.datasets.types import ImageSet

Track = Literal["match-oracle", "erase"]


@dataclass(frozen=True, eq=False)
class Split:
    """What a scenario drew; all arrays are int64, sorted where they hold row numbers, and read-only.

    Attributes:
        forget: Rows of ``train`` that a method is asked to forget.
        retain: Rows of ``train`` that stay; the oracle is trained on these alone.
        withheld: Rows of ``train`` that the original has seen, and that nobody gets: neither method nor oracle.
        train_labels: The labels of ``train`` that are trained on, flipped where the scenario flips.
        test: Rows of ``test`` that a model should still answer.
        test_forgotten: Rows of ``test`` of forgotten classes; empty where no class goes.
        validation: Rows of ``validation`` that a method may see: those of classes that are kept.
        track: Whether a row is ranked by likeness to the oracle or by what is gone.
        requests: For streams, the rows of ``forget`` in the order in which they are asked for; empty otherwise.
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
    def sha256(self) -> str:
        """Hash of all arrays, in the order of the attributes, and of the track."""
        state = hashlib.sha256(json.dumps([self.track, [len(rows) for rows in self.requests]]).encode())
        for item in fields(self):
            value = getattr(self, item.name)
            for array in value if isinstance(value, tuple) else () if isinstance(value, str) else (value,):
                state.update(json.dumps([item.name, array.shape]).encode())
                state.update(array.astype("<i8", copy=False).data)
        return state.hexdigest()


class Scenario(Options, ABC):
    """A rule that draws what is to be forgotten: a frozen, keyword-only dataclass of its parameters.

    A split is a function of (partition, parameters, draw number, seed) alone; models and their seeds play no part.
    """

    name: ClassVar[str]
    """Its name in the registry."""
    title: ClassVar[str]
    """One line for lists."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "name" in vars(cls):
            cls.option_owner = f"scenario {cls.name!r}"

    @classmethod
    def unfit(cls, partition: Partition) -> str | None:  # noqa: ARG003 (most fit all)
        """Why this scenario cannot be used with an image set, as a sentence without a full stop; None where it can."""
        return None

    def draw(self, partition: Partition, draw: int = 0, rng_seed: int = 0) -> Split:
        """The split of one draw.

        Args:
            partition: The image set.
            draw: Number of the draw, from 0; every number is another forget set, where the rule leaves a choice.
            rng_seed: Seed of the task's splits.

        Raises:
            UsageError: The scenario does not fit the image set, or nothing (or everything) would be forgotten.
        """
        reason = self.unfit(partition)
        if reason:
            fitting = [name for name in scenarios.names() if not scenarios.get(name).unfit(partition)]
            raise UsageError(f"{self.option_owner}: {reason}; scenarios that work with it: {', '.join(fitting)}.")
        return self._draw(partition, draw, rng_seed)

    @abstractmethod
    def _draw(self, partition: Partition, draw: int, rng_seed: int) -> Split: ...

    def split(
        self,
        partition: Partition,
        forget: ArrayLike,
        *,
        withheld: ArrayLike = (),
        train_labels: NDArray[np.int64] | None = None,
        gone: Iterable[int] = (),
        gone_fine: Iterable[int] = (),
        requests: tuple[NDArray[np.int64], ...] = (),
    ) -> Split:
        """A split with these rows to be forgotten; the others are retained.

        Args:
            partition: The image set.
            forget: Rows of the training set.
            withheld: Rows that are trained on and given to nobody.
            train_labels: Labels to train on, where they are not those of the image set.
            gone: Classes that nobody is to know afterwards; they put the split on the erase track.
            gone_fine: The same, as finer classes.
            requests: For streams, the rows in the order of the requests.

        Raises:
            UsageError: Nothing would be forgotten, or nothing retained.
        """
        forget_rows = np.unique(np.asarray(forget, dtype=np.int64))
        withheld_rows = np.unique(np.asarray(withheld, dtype=np.int64))
        total = len(partition.train)
        retain = np.setdiff1d(np.arange(total), np.concatenate([forget_rows, withheld_rows]))
        if not len(forget_rows):
            raise UsageError(f"{self.option_owner}: nothing of the {total} training images would be forgotten.")
        if not len(retain):
            raise UsageError(f"{self.option_owner}: all {total} training images would be forgotten; some must stay.")
        classes, finer = sorted(gone), sorted(gone_fine)
        lost = {part: _of_classes(getattr(partition, part), classes, finer) for part in ("validation", "test")}
        return Split(
            forget=forget_rows,
            retain=retain,
            withheld=withheld_rows,
            train_labels=partition.train.labels if train_labels is None else train_labels,
            test=np.flatnonzero(~lost["test"]),
            test_forgotten=np.flatnonzero(lost["test"]),
            validation=np.flatnonzero(~lost["validation"]),
            track="erase" if classes or finer else "match-oracle",
            requests=requests,
        )


def wanted(owner: str, fraction: float | None, count: int | None, total: int, what: str) -> int:
    """How many of a total are asked for, given as a share or as a number: exactly one of the two.

    Raises:
        UsageError: Both or neither are given, or the number is not below the total.
    """
    if (fraction is None) == (count is None):
        raise UsageError(f"{owner}: give either fraction or count, the share or the number of {what} to forget.")
    number = round(fraction * total) if fraction is not None else count or 0
    if not 0 < number < total:
        raise UsageError(f"{owner}: {number} of {total} {what} would be forgotten; it must be at least 1 and not all.")
    return number


def number_of(owner: str, kind: str, asked: str | int, names: Sequence[str]) -> int:
    """The number of a class or person that is asked for by name, or by number where no name is a number.

    Where names are numbers themselves, '10' must mean the class of that name and never the tenth one: forgetting
    somebody else would look like success.

    Raises:
        UsageError: Nobody and nothing is called so.
    """
    name = str(asked)
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and int(name) < len(names) and not any(known.isdecimal() for known in names):
        return int(name)
    raise UsageError(f"{owner}: {unknown(kind, name, list(names))}")


def lost_classes(partition: Partition, kept: NDArray[np.int64]) -> list[int]:
    """Classes of the training set of which no image is among the kept rows; attributes are never lost."""
    labels = partition.train.labels
    if partition.train.attributes:
        return []
    return sorted(set(labels.tolist()) - set(labels[kept].tolist()))


def _of_classes(images: ImageSet, classes: list[int], finer: list[int]) -> NDArray[np.bool_]:
    """Which images are of one of these classes or finer classes."""
    chosen = np.zeros(len(images), dtype=bool)
    if classes:
        chosen |= np.isin(images.labels, classes)
    if finer and images.fine_labels is not None:
        chosen |= np.isin(images.fine_labels, finer)
    return chosen


def _read_only(array: NDArray[np.int64]) -> NDArray[np.int64]:
    frozen = np.ascontiguousarray(array, dtype=np.int64).view()
    frozen.flags.writeable = False
    return frozen
