"""Data types of image sets: images with labels and identities, their partition into parts, and the dataset card."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from forgetbench.datasets.problems import problem_error
from forgetbench.errors import ForgetBenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray


class DatasetCard(BaseModel):
    """Description of an image set: content, terms of use and source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Name on the command line."""
    title: str
    """Name in papers."""
    description: str
    """Two or three sentences: what the images show, how many there are, what the labels mean."""
    license: str
    """Terms of use in a few words; "unknown" if none are published."""
    homepage: str = ""
    """Web page of the image set."""
    citation: str = ""
    """Publication to cite: authors, year, title."""
    embedded: bool = False
    """Needs no files and no download: generated, or part of a library."""
    restricted: bool = False
    """The images must not be redistributed: ForgetBench never downloads, copies or shows them."""
    downloads: bool = False
    """``forgetbench data prepare`` downloads the files."""
    people: bool = False
    """Shows real people, so that ``forgetbench data prepare`` prints a notice on privacy."""
    layout: str = ""
    """Expected files in the data folder."""
    obtain: str = ""
    """Where to get the files, and on which conditions."""


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with their labels; immutable.

    Attributes:
        images: uint8, (N, C, H, W).
        labels: int64, (N,) class numbers, or (N, A) zeros and ones for A binary attributes.
        classes: Names of the classes, or of the attributes where labels are (N, A).
        identities: int64, (N,) number of the person in the image; the same number is the same person in every part of a
            partition. None if unknown.
        fine_labels: int64, (N,) fine class (the subclass of a superclass). None if there are no fine classes.
        fine_classes: Names of the fine classes.
        people: Names of the people: ``people[k]`` has identity k. Empty if they have only numbers. Not part of the
            hash, since names do not affect any model.
        sources: (N,) names of the images' files, for messages. Empty if there are no files. Not part of the hash.

    Raises:
        ForgetBenchError: Shapes, types or ranges are inconsistent.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    identities: NDArray[np.int64] | None = None
    fine_labels: NDArray[np.int64] | None = None
    fine_classes: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ForgetBenchError(f"images must be uint8 (N,C,H,W), not {self.images.dtype} {self.images.shape}")
        _freeze(self, "images", np.uint8)
        for name in ("labels", "identities", "fine_labels"):
            if getattr(self, name) is not None:
                _freeze(self, name, np.int64)
        self._check_rows()
        self._check_labels()

    def _check_rows(self) -> None:
        for name in ("labels", "identities", "fine_labels"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.images):
                raise ForgetBenchError(f"{len(self.images)} images, but {len(column)} {name}")
        if self.sources and len(self.sources) != len(self.images):
            raise ForgetBenchError(f"{len(self.images)} images, but {len(self.sources)} sources")
        if self.people and (self.identities is None or self.identities.max(initial=0) >= len(self.people)):
            raise ForgetBenchError(f"there are {len(self.people)} names of people, but identities have higher numbers")

    def _check_labels(self) -> None:
        if self.attributes:
            if self.labels.shape[1] != len(self.classes):
                raise ForgetBenchError(
                    f"labels have {self.labels.shape[1]} attributes, but the names are {self.classes}"
                )
            limit, rule = 2, "attributes must be 0 or 1"
        else:
            limit, rule = len(self.classes), f"labels must be at least 0 and below {len(self.classes)}"
        low, high = (int(self.labels.min()), int(self.labels.max())) if self.labels.size else (0, 0)
        if low < 0 or high >= limit:
            raise ForgetBenchError(f"{rule}; found {low} to {high}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        return f"ImageSet({len(self)} images {shape}, {self.outputs} {'attributes' if self.attributes else 'classes'})"

    @property
    def attributes(self) -> bool:
        """Whether labels are binary attributes, (N, A), instead of classes, (N,)."""
        return self.labels.ndim == 2

    @property
    def outputs(self) -> int:
        """Number of logits that a network needs: one per class or attribute."""
        return len(self.classes)

    def take(self, indices: ArrayLike) -> ImageSet:
        """Return the rows at these indices, in this order, as a new image set."""
        rows = np.asarray(indices, dtype=np.int64)
        return ImageSet(
            images=self.images[rows],
            labels=self.labels[rows],
            classes=self.classes,
            identities=None if self.identities is None else self.identities[rows],
            fine_labels=None if self.fine_labels is None else self.fine_labels[rows],
            fine_classes=self.fine_classes,
            people=self.people,
            sources=tuple(self.sources[row] for row in rows) if self.sources else (),
        )

    def source(self, row: int) -> str:
        """Return the name of an image for messages: its file, or its row."""
        return self.sources[row] if self.sources else f"row {row}"

    def person(self, number: int) -> str:
        """Return the name of a person for messages: the name, or the number."""
        return repr(self.people[number]) if self.people else f"number {number}"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of everything that affects a model: names of classes, shapes and every byte of images and labels."""
        columns = (self.images, self.labels, self.identities, self.fine_labels)
        head = [self.classes, self.fine_classes, [None if c is None else c.shape for c in columns]]
        state = hashlib.sha256(json.dumps(head).encode())
        for column in columns:
            if column is not None:
                state.update(column.astype(column.dtype.newbyteorder("<"), copy=False).data)
        return state.hexdigest()

    @cached_property
    def first_copy(self) -> NDArray[np.int64]:
        """int64, (N,): the first row with the same bytes; the row itself if it repeats no earlier image."""
        first: dict[bytes, int] = {}
        rows = (hashlib.blake2b(image.data, digest_size=16).digest() for image in self.images)
        return np.fromiter((first.setdefault(key, row) for row, key in enumerate(rows)), np.int64, len(self))

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Compute mean and standard deviation of every channel, of intensities in [0, 1].

        Sums are whole numbers over histograms, so that the result does not depend on the order of the images.
        """
        levels = np.arange(256, dtype=np.int64)
        means, deviations = [], []
        for channel in range(self.images.shape[1]):
            counts = np.zeros(256, dtype=np.int64)
            for start in range(0, len(self), 4096):
                counts += np.bincount(self.images[start : start + 4096, channel].ravel(), minlength=256)
            total = int(counts.sum())
            mean = int(counts @ levels) / total
            variance = int(counts @ levels**2) / total - mean**2
            means.append(mean / 255)
            deviations.append(math.sqrt(max(variance, 0.0)) / 255)
        return tuple(means), tuple(deviations)


@dataclass(frozen=True, eq=False)
class Partition:
    """An image set split into parts, as a loader returns it.

    Attributes:
        name: Name of the image set.
        train: Images that originals are trained on.
        validation: Images that methods may tune on; never used for testing.
        test: Images that utility is measured on.
        unseen: For image sets of people: people who are in no other part. None otherwise.
        card: The card of the image set.
        forget_lists: Name -> rows of ``train`` of a published forget set.
        triggered: Test images on which harmful training data shows, with their true labels: stamped with the trigger
            of a poison, or of confused classes. Only scenarios of correction make them. None otherwise.
        targets: (n,) for each triggered image, the class that the harmful data makes models answer.
        notes: What was passed over while the files were read, one text per problem that is not serious. Not part of the
            hash.

    Raises:
        ForgetBenchError: The parts differ in classes or in shape, or train or test is empty.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    unseen: ImageSet | None
    card: DatasetCard
    forget_lists: Mapping[str, NDArray[np.int64]] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()
    triggered: ImageSet | None = None
    targets: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        lists = {name: np.array(rows, dtype=np.int64) for name, rows in self.forget_lists.items()}
        for rows in lists.values():
            rows.flags.writeable = False
        object.__setattr__(self, "forget_lists", MappingProxyType(lists))
        if self.targets is not None:
            _freeze(self, "targets", np.int64)
        if (0 if self.triggered is None else len(self.triggered)) != (0 if self.targets is None else len(self.targets)):
            raise ForgetBenchError(f"{self.name}: every triggered image needs a target")
        for part, images in self.parts():
            if images.classes != self.train.classes or images.attributes != self.train.attributes:
                raise ForgetBenchError(f"{self.name}: {part} has classes {images.classes}, train {self.train.classes}")
            if images.images.shape[1:] != self.train.images.shape[1:]:
                shapes = f"{images.images.shape[1:]}, train {self.train.images.shape[1:]}"
                raise ForgetBenchError(f"{self.name}: images of {part} are {shapes}")
            if part in {"train", "test"} and not len(images):
                fix = "Add images, or correct the options that set the sizes of the parts."
                raise problem_error("missing part", f"image set {self.name!r}: part {part!r} is empty", fix)

    def parts(self) -> Iterator[tuple[str, ImageSet]]:
        """Yield (name, images) of every part that exists."""
        for part in ("train", "validation", "test", "unseen", "triggered"):
            images = getattr(self, part)
            if images is not None:
                yield part, images

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all parts."""
        return hashlib.sha256(json.dumps([[part, images.sha256] for part, images in self.parts()]).encode()).hexdigest()


def _freeze(holder: object, name: str, dtype: type[np.generic]) -> None:
    """Replace an array of a frozen object by a contiguous, read-only view of it."""
    array: NDArray[np.generic] = np.ascontiguousarray(getattr(holder, name), dtype=dtype).view()
    array.flags.writeable = False
    object.__setattr__(holder, name, array)
