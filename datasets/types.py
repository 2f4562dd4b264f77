"""What an image set is: images, labels, people; and the four parts that a loader hands over."""

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

from forgetbench.errors import ForgetBenchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray
    from PIL.Image import Image


class DatasetCard(BaseModel):
    """What a person should know of an image set before using it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """The name on the command line."""
    title: str
    """The name that papers use."""
    description: str
    """Two or three sentences: what is seen, how many, what the labels mean."""
    license: str
    """Terms of the images, in a few words; "unknown" where nobody has said."""
    homepage: str = ""
    """Where the set comes from."""
    citation: str = ""
    """Who to cite: authors, year, title."""
    embedded: bool = False
    """Needs no file and no network: drawn by us, or part of a library that we use."""
    restricted: bool = False
    """The images may not be passed on: they are never fetched, stored elsewhere or shown by us."""
    downloads: bool = False
    """``data prepare`` may fetch the files."""
    people: bool = False
    """Shows people, so that ``data prepare`` says what that asks of the user."""
    layout: str = ""
    """The files that are expected below the data folder."""
    obtain: str = ""
    """Where to get the files, and on what conditions."""


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with their labels; immutable.

    Attributes:
        images: uint8, (N, C, H, W).
        labels: int64, (N,) class numbers, or (N, A) zeros and ones for A binary attributes.
        classes: Names of the classes, or of the attributes where labels are (N, A).
        identities: int64, (N,): who is seen; the same number is the same person in every part of a partition. None
            where nobody knows.
        fine_labels: int64, (N,): a finer class than the label (the subclass of a superclass). None where there is none.
        fine_classes: Names of the finer classes.
        people: Names of the people: ``people[k]`` is who has identity k. Empty where they have numbers alone. Outside
            the hash: what a person is called shapes no model.
        sources: (N,) names of the files that the images came from, for messages. Empty where there is no file. Outside
            the hash too.

    Raises:
        ForgetBenchError: Shapes, types or ranges do not fit together.
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
            raise ForgetBenchError(f"{len(self.people)} people have names, and identities go beyond them")

    def _check_labels(self) -> None:
        if self.attributes:
            if self.labels.shape[1] != len(self.classes):
                raise ForgetBenchError(f"labels have {self.labels.shape[1]} attributes, named are {self.classes}")
            top, what = 2, "attributes must be 0 or 1"
        else:
            top, what = len(self.classes), f"labels must be below {len(self.classes)}, the number of classes"
        low, high = (int(self.labels.min()), int(self.labels.max())) if self.labels.size else (0, 0)
        if low < 0 or high >= top:
            raise ForgetBenchError(f"{what}; found {low} to {high}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        return f"ImageSet({len(self)} images {shape}, {self.outputs} {'attributes' if self.attributes else 'classes'})"

    @property
    def attributes(self) -> bool:
        """Whether the labels are binary attributes, (N, A), instead of classes, (N,)."""
        return self.labels.ndim == 2

    @property
    def outputs(self) -> int:
        """How many logits a network needs: one per class, or one per attribute."""
        return len(self.classes)

    def take(self, indices: ArrayLike) -> ImageSet:
        """The rows at these indices, in this order, as a set of its own."""
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
        """What to call an image in a message: its file, or its row."""
        return self.sources[row] if self.sources else f"row {row}"

    def person(self, number: int) -> str:
        """What to call somebody in a message: the name, or the number."""
        return repr(self.people[number]) if self.people else f"number {number}"

    @cached_property
    def sha256(self) -> str:
        """Hash of all that shapes a model: names of classes, shapes and every byte."""
        columns = (self.images, self.labels, self.identities, self.fine_labels)
        head = [self.classes, self.fine_classes, [None if c is None else c.shape for c in columns]]
        state = hashlib.sha256(json.dumps(head).encode())
        for column in columns:
            if column is not None:
                state.update(column.astype(column.dtype.newbyteorder("<"), copy=False).data)
        return state.hexdigest()

    @cached_property
    def first_copy(self) -> NDArray[np.int64]:
        """int64, (N,): the first row whose image has the same bytes; a row that repeats nothing names itself."""
        first: dict[bytes, int] = {}
        rows = (hashlib.blake2b(image.data, digest_size=16).digest() for image in self.images)
        return np.fromiter((first.setdefault(key, row) for row, key in enumerate(rows)), np.int64, len(self))

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel, of intensities in [0, 1].

        They are summed over histograms, in whole numbers, so that the order of the images does not matter.
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
    """An image set in its parts, as a loader hands it over.

    Attributes:
        name: Name of the image set.
        train: What originals are trained on.
        validation: What a method may tune on; never tested on.
        test: What utility is measured on.
        unseen: For sets of people: people of whom nothing is in the other parts. None otherwise.
        card: The card of the image set.
        forget_lists: Rows of ``train`` that somebody published as the ones to forget, by name.

    Raises:
        ForgetBenchError: The parts differ in classes or in shape, or one that is needed is empty.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    unseen: ImageSet | None
    card: DatasetCard
    forget_lists: Mapping[str, NDArray[np.int64]] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        lists = {name: np.array(rows, dtype=np.int64) for name, rows in self.forget_lists.items()}
        for rows in lists.values():
            rows.flags.writeable = False
        object.__setattr__(self, "forget_lists", MappingProxyType(lists))
        for part, images in self.parts():
            if images.classes != self.train.classes or images.attributes != self.train.attributes:
                raise ForgetBenchError(f"{self.name}: {part} has classes {images.classes}, train {self.train.classes}")
            if images.images.shape[1:] != self.train.images.shape[1:]:
                shapes = f"{images.images.shape[1:]}, train {self.train.images.shape[1:]}"
                raise ForgetBenchError(f"{self.name}: images of {part} are {shapes}")
            if part in {"train", "test"} and not len(images):
                raise ForgetBenchError(f"{self.name}: {part} is empty")

    def parts(self) -> Iterator[tuple[str, ImageSet]]:
        """The parts that there are, with their names."""
        for part in ("train", "validation", "test", "unseen"):
            images = getattr(self, part)
            if images is not None:
                yield part, images

    @cached_property
    def sha256(self) -> str:
        """Hash over all parts."""
        return hashlib.sha256(json.dumps([[part, images.sha256] for part, images in self.parts()]).encode()).hexdigest()


def contact_sheet(images: NDArray[np.uint8], columns: int, *, enlarge: int = 1, gap: int = 1) -> Image:
    """All images on one sheet, row by row.

    Args:
        images: uint8, (N, C, H, W) with one channel (grey) or three.
        columns: Images in a row.
        enlarge: Every pixel becomes a square of this side.
        gap: Pixels of white between images, before enlarging.

    Raises:
        UsageError: There is no image, or a side is not positive.
    """
    import PIL.Image

    if len(images) == 0 or columns < 1 or enlarge < 1:
        raise UsageError("A contact sheet needs at least one image, one column and an enlargement of one.")
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, dtype=np.uint8)
    pixels = np.broadcast_to(images if channels == 3 else images[:, :1], (count, 3, height, width)).transpose(
        0, 2, 3, 1
    )
    for index, image in enumerate(pixels):
        row, column = divmod(index, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return PIL.Image.fromarray(sheet.repeat(enlarge, axis=0).repeat(enlarge, axis=1))


def _freeze(holder: object, name: str, dtype: type[np.generic]) -> None:
    """Replace an array by a contiguous view of it that nobody can write through."""
    array: NDArray[np.generic] = np.ascontiguousarray(getattr(holder, name), dtype=dtype).view()
    array.flags.writeable = False
    object.__setattr__(holder, name, array)
