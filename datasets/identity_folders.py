"""Face sets with one folder for each person, where the class is the person: Pins, CASIA-Face100, LFW."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import IMAGE_SUFFIXES, Shape, below, image_paths, resident
from forgetbench.datasets._identity_splits import PeopleLoader
from forgetbench.datasets._sampling import stratified_parts
from forgetbench.datasets.base import generator, option
from forgetbench.datasets.problems import Problem, problem_error
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition


@dataclass(frozen=True, kw_only=True)
class IdentityFolders(PeopleLoader):
    """Base of sets with one folder for each person; every person's pictures are divided.

    Where the set comes in ``train`` and ``test``, that is kept, and validation pictures are taken out of ``test``.
    """

    size: int = option(112, "Side of a picture, pixels.", ge=8, le=512)
    pictures: int = option(10, "Fewest pictures of a person to be used.", ge=4)
    validation: float = option(
        0.1, "Share of the pictures (with a test set of its own: of that) to validate on.", gt=0, lt=0.5
    )
    test: float = option(0.2, "Share of the pictures to test on, where there is no test set.", gt=0, lt=0.5)

    folders: ClassVar[tuple[str, ...]]
    """Where the set lies below the data folder."""
    prefix: ClassVar[str] = ""
    """What the names of people's folders start with."""
    published: ClassVar[tuple[int, int | None]]
    """How many people and pictures the set has, as published; None: nobody says."""

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the pictures and divide each person's.

        Raises:
            UsageError: The folder is missing or empty.
        """
        folder, found = self._paths(root)
        images, read = resident(folder, found, Shape(3, self.size, "crop"), problems)
        paths = [found[row] for row in read]
        names = [self._person(path) for path in paths]
        classes, numbers = np.unique(names, return_inverse=True)
        shown = tuple(str(name).removeprefix(self.prefix) for name in classes)
        who = numbers.astype(np.int64)
        sources = tuple(below(folder, path) for path in paths)
        whole = ImageSet(images=images, labels=who, classes=shown, identities=who, people=shown, sources=sources)
        tested = np.array([path.relative_to(folder).parts[0] == "test" for path in paths])
        if not tested.any():
            return self.within_person(whole, (self.validation, self.test))
        rows = np.flatnonzero(tested)
        count = max(1, round(self.validation * len(rows)))
        rng = generator(self.card.name, "validation", self.seed)
        sizes = [count, len(rows) - count]
        validation, test = stratified_parts(who[rows], sizes, rng, whole.first_copy[rows])
        train = whole.take(np.flatnonzero(~tested))
        return Partition(self.card.name, train, whole.take(rows[validation]), whole.take(rows[test]), None, self.card)

    def _person(self, path: Path) -> str:
        return path.parent.name

    def differences(self, root: Path | None) -> list[str]:
        """Numbers of people and pictures that are not the published ones."""
        folder = self._folder(root)
        found = [path for path in image_paths(folder) if self._fits(path, folder)]
        counts = (("people", len({self._person(path) for path in found})), ("pictures", len(found)))
        return [
            f"{folder} has {count:,} {what}; as published, the set has {wanted:,}"
            for (what, count), wanted in zip(counts, self.published, strict=True)
            if wanted is not None and count != wanted
        ]

    def _folder(self, root: Path | None) -> Path:
        """The folder of one of the set's names, or the data folder itself where that is laid out as the set is."""
        if root is not None:
            for folder in (*(root / name for name in self.folders), root):
                if folder.is_dir() and (folder != root or self._laid_out(root)):
                    return folder
        raise self.missing(root, f"neither is {' or '.join(self.folders)} below {root}, nor is that folder the set")

    def _laid_out(self, folder: Path) -> bool:
        """Whether a folder of any name holds the set: else every folder of pictures would be taken for it."""
        return any(self._fits(path, folder) for path in folder.glob("*/*") if path.suffix.lower() in IMAGE_SUFFIXES)

    def _paths(self, root: Path | None) -> tuple[Path, list[Path]]:
        """The folder, and the pictures of people who have enough of them, sorted by path."""
        folder = self._folder(root)
        found = [path for path in image_paths(folder) if self._fits(path, folder)]
        if not found:
            raise self.missing(root, f"there is no picture of anybody below {folder}")
        names, counts = np.unique([self._person(path) for path in found], return_counts=True)
        enough = {str(name) for name, count in zip(names, counts, strict=True) if count >= self.pictures}
        if len(enough) < 2:
            where = (
                f"{self.option_owner}: {len(enough)} people have {self.pictures} pictures or more, and two are needed; "
                f"the most is {counts.max()}"
            )
            raise problem_error("too few images", where, "Lower option pictures.")
        return folder, [path for path in found if self._person(path) in enough]

    def _fits(self, path: Path, folder: Path) -> bool:
        inside = path.relative_to(folder).parts
        return len(inside) >= 2 and self._person(path).startswith(self.prefix)


@datasets.register("pins")
@dataclass(frozen=True, kw_only=True)
class Pins(IdentityFolders):
    """Pins Face Recognition: 105 celebrities; published code tests it on its training pictures, we do not."""

    size: int = option(32, "Side of a picture, pixels.", ge=8, le=512)

    folders: ClassVar[tuple[str, ...]] = ("105_classes_pins_dataset", "PINS", "pins")
    prefix: ClassVar[str] = "pins_"
    published: ClassVar[tuple[int, int | None]] = (105, 17534)
    card: ClassVar[DatasetCard] = DatasetCard(
        name="pins",
        title="Pins Face Recognition",
        description="17,534 face pictures of 105 celebrities, cut out of pages of a picture site.",
        license="unknown: collected without the consent of those who are seen; do not pass on",
        homepage="https://www.kaggle.com/datasets/hereisburak/pins-face-recognition",
        citation="B. (2020). Pins Face Recognition, Kaggle",
        restricted=True,
        people=True,
        layout="105_classes_pins_dataset/pins_<person>/<picture>.jpg",
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
        description="Aligned 112x112 face pictures of 100 people of CASIA-WebFace.",
        license="CASIA-WebFace terms: non-commercial research only, no redistribution",
        homepage="https://github.com/bjzhb666/GS-LoRA",
        citation="H. Zhao et al. (2024). Continual Forgetting for Pre-trained Vision Models; D. Yi et al. (2014)",
        restricted=True,
        people=True,
        layout="CASIA-Face100/{train,test}/<person>/<picture>.jpg",
        obtain="Ask the authors of GS-LoRA (https://github.com/bjzhb666/GS-LoRA), who made the selection.",
    )

    def _laid_out(self, folder: Path) -> bool:
        return (folder / "train").is_dir() and (folder / "test").is_dir()


@datasets.register("lfw")
@dataclass(frozen=True, kw_only=True)
class Lfw(IdentityFolders):
    """Labeled Faces in the Wild: people with enough pictures."""

    size: int = option(64, "Side of a picture, pixels.", ge=8, le=512)

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
        description="13,233 press pictures of 5,749 people; 158 have ten or more.",
        license="research use; collected from news sites",
        homepage="https://vis-www.cs.umass.edu/lfw/",
        citation="G. Huang, M. Ramesh, T. Berg, E. Learned-Miller (2007). Labeled Faces in the Wild",
        restricted=True,
        people=True,
        layout="lfw/<person>/<person>_<4 digits>.jpg",
        obtain="Get lfw.tgz or lfw-funneled.tgz from https://vis-www.cs.umass.edu/lfw/, and unpack it.",
    )

    def _fits(self, path: Path, folder: Path) -> bool:
        named = re.fullmatch(rf"{re.escape(self._person(path))}_\d{{4}}", path.stem)
        return named is not None and super()._fits(path, folder)
