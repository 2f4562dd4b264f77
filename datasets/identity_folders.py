"""Face image sets with one folder per person, where the class is the person: Pins, CASIA-Face100, LFW."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import (
    TargetShape,
    find_images,
    is_image,
    load_images,
    other_files,
    relative_name,
    walk_folder,
)
from forgetbench.datasets._identity_splits import PeopleLoader
from forgetbench.datasets._sampling import stratified_split
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.problems import Problem, problem_error, similar_names
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.options import option


@dataclass(frozen=True, kw_only=True)
class IdentityFolders(PeopleLoader):
    """Base of image sets with one folder per person; the images of every person are split.

    If the image set has folders ``train`` and ``test``, they are used, and validation images are taken from ``test``.
    """

    size: int = option(112, "Side of an image in pixels.", ge=8, le=512)
    pictures: int = option(10, "Least number of images of a person.", ge=4)
    validation: float = option(
        0.1, "Fraction of the images to validate on (of the test set, if there is one).", gt=0, lt=0.5
    )
    test: float = option(0.2, "Fraction of the images to test on, if there is no test set.", gt=0, lt=0.5)

    folders: ClassVar[tuple[str, ...]]
    """Names of the image set's folder in the data folder."""
    prefix: ClassVar[str] = ""
    """Prefix of the names of people's folders."""
    published: ClassVar[tuple[int, int | None]]
    """Numbers of people and images as published; None: unknown."""

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the images and split those of every person.

        Raises:
            ImageSetError: The folder is missing or empty.
        """
        folder, found = self._find_images(root, problems)
        images, rows = load_images(folder, found, TargetShape(3, self.size, "crop"), problems)
        paths = [found[row] for row in rows]
        names, numbers = np.unique([self._person(path) for path in paths], return_inverse=True)
        people = tuple(str(name).removeprefix(self.prefix) for name in names)
        problems += similar_names("person", people)
        identities = numbers.astype(np.int64)
        sources = tuple(relative_name(folder, path) for path in paths)
        whole = ImageSet(
            images=images, labels=identities, classes=people, identities=identities, people=people, sources=sources
        )
        in_test = np.array([path.relative_to(folder).parts[0] == "test" for path in paths])
        if not in_test.any():
            return self.split_within_person(whole, (self.validation, self.test))
        rows = np.flatnonzero(in_test)
        count = max(1, round(self.validation * len(rows)))
        rng = make_rng(self.card.name, "validation", self.seed)
        sizes = [count, len(rows) - count]
        validation, test = stratified_split(identities[rows], sizes, rng, whole.first_copy[rows])
        train = whole.take(np.flatnonzero(~in_test))
        return Partition(self.card.name, train, whole.take(rows[validation]), whole.take(rows[test]), None, self.card)

    def compare_with_published(self, root: Path | None) -> list[str]:
        """Report numbers of people and images that differ from the published ones."""
        folder = self._folder(root)
        paths = [path for path in find_images(folder, []) if self._belongs(path, folder)]
        counts = (("people", len({self._person(path) for path in paths})), ("images", len(paths)))
        return [
            f"{folder} has {count:,} {what}; the published set has {published:,}"
            for (what, count), published in zip(counts, self.published, strict=True)
            if published is not None and count != published
        ]

    def _folder(self, root: Path | None) -> Path:
        """Return the folder with one of the set's names, or the data folder itself if it is laid out as the set is."""
        if root is not None:
            for folder in (*(root / name for name in self.folders), root):
                if folder.is_dir() and (folder != root or self._has_layout(root)):
                    return folder
        names = " or ".join(self.folders)
        raise self.missing_files(root, f"{root} has no folder {names}, and does not itself contain the image set")

    def _has_layout(self, folder: Path) -> bool:
        """Check whether a folder of any name contains the image set and not some other folders of images."""
        return any(self._belongs(path, folder) for path in folder.glob("*/*") if is_image(path))

    def _find_images(self, root: Path | None, problems: list[Problem]) -> tuple[Path, list[Path]]:
        """Return the folder, and the images of people who have enough of them, sorted by path."""
        folder = self._folder(root)
        contents = walk_folder(folder)
        paths = [path for path in contents.files if is_image(path) and self._belongs(path, folder)]
        depths = {len(path.relative_to(folder).parts) for path in paths}
        nearby = [
            path
            for path in contents.files
            if len(path.relative_to(folder).parts) in depths and self._person(path).startswith(self.prefix)
        ]
        problems += contents.problems + other_files(folder, nearby, paths)
        if not paths:
            raise self.missing_files(root, f"{folder} contains no image of a person")
        names, counts = np.unique([self._person(path) for path in paths], return_counts=True)
        frequent = {str(name) for name, count in zip(names, counts, strict=True) if count >= self.pictures}
        if len(frequent) < 2:
            message = (
                f"{self.option_owner}: {len(frequent)} people have at least {self.pictures} images, but two are "
                f"needed; the most is {counts.max()}"
            )
            raise problem_error("too few images", message, "Reduce option pictures.")
        return folder, [path for path in paths if self._person(path) in frequent]

    def _person(self, path: Path) -> str:
        return path.parent.name

    def _belongs(self, path: Path, folder: Path) -> bool:
        """Check whether the path of an image has the form of the image set's files."""
        inside = path.relative_to(folder).parts
        return len(inside) >= 2 and self._person(path).startswith(self.prefix)


@datasets.register("pins")
@dataclass(frozen=True, kw_only=True)
class Pins(IdentityFolders):
    """Pins Face Recognition: 105 celebrities. Published code tests on training images; ForgetBench does not."""

    size: int = option(32, "Side of an image in pixels.", ge=8, le=512)

    folders: ClassVar[tuple[str, ...]] = ("105_classes_pins_dataset", "PINS", "pins")
    prefix: ClassVar[str] = "pins_"
    published: ClassVar[tuple[int, int | None]] = (105, 17534)
    card: ClassVar[DatasetCard] = DatasetCard(
        name="pins",
        title="Pins Face Recognition",
        description="17,534 face images of 105 celebrities, cropped from pages of an image-sharing site.",
        license="unknown: collected without the consent of the people in the images; do not redistribute",
        homepage="https://www.kaggle.com/datasets/hereisburak/pins-face-recognition",
        citation="B. (2020). Pins Face Recognition, Kaggle",
        restricted=True,
        people=True,
        layout="105_classes_pins_dataset/pins_<person>/<image>.jpg",
        obtain="Get it with an account from https://www.kaggle.com/datasets/hereisburak/pins-face-recognition.",
    )


@datasets.register("casia100")
@dataclass(frozen=True, kw_only=True)
class Casia100(IdentityFolders):
    """CASIA-Face100: 100 people of CASIA-WebFace in a training and a test set (Zhao et al. 2024)."""

    folders: ClassVar[tuple[str, ...]] = ("CASIA-Face100", "faces_webface_112x112_sub100_train_test", "casia100")
    published: ClassVar[tuple[int, int | None]] = (100, None)
    card: ClassVar[DatasetCard] = DatasetCard(
        name="casia100",
        title="CASIA-Face100",
        description="Aligned 112x112 face images of 100 people of CASIA-WebFace.",
        license="CASIA-WebFace terms: non-commercial research only, no redistribution",
        homepage="https://github.com/bjzhb666/GS-LoRA",
        citation="H. Zhao et al. (2024). Continual Forgetting for Pre-trained Vision Models; D. Yi et al. (2014)",
        restricted=True,
        people=True,
        layout="CASIA-Face100/{train,test}/<person>/<image>.jpg",
        obtain="Request it from the authors of GS-LoRA (https://github.com/bjzhb666/GS-LoRA), who made the selection.",
    )

    def _has_layout(self, folder: Path) -> bool:
        return (folder / "train").is_dir() and (folder / "test").is_dir()


@datasets.register("lfw")
@dataclass(frozen=True, kw_only=True)
class Lfw(IdentityFolders):
    """Labeled Faces in the Wild: people with enough images."""

    size: int = option(64, "Side of an image in pixels.", ge=8, le=512)

    folders: ClassVar[tuple[str, ...]] = (
        "lfw",
        "lfw_funneled",
        "lfw-deepfunneled",
        "lfw-py/lfw_funneled",
        "lfw-py/lfw",
    )
    published: ClassVar[tuple[int, int | None]] = (5749, 13233)
    card: ClassVar[DatasetCard] = DatasetCard(
        name="lfw",
        title="Labeled Faces in the Wild",
        description="13,233 press photographs of 5,749 people; 158 have ten or more.",
        license="research use; collected from news sites",
        homepage="https://vis-www.cs.umass.edu/lfw/",
        citation="G. Huang, M. Ramesh, T. Berg, E. Learned-Miller (2007). Labeled Faces in the Wild",
        restricted=True,
        people=True,
        layout="lfw/<person>/<person>_<4 digits>.jpg",
        obtain="Get lfw.tgz or lfw-funneled.tgz from https://vis-www.cs.umass.edu/lfw/, and unpack it.",
    )

    def _belongs(self, path: Path, folder: Path) -> bool:
        numbered = re.fullmatch(rf"{re.escape(self._person(path))}_\d{{4}}", path.stem)
        return numbered is not None and super()._belongs(path, folder)
