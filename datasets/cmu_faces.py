"""CMU Face Images (UCI repository 124): 20 people in 32 moments each, grey."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import Shape, below, resident
from forgetbench.datasets._identity_splits import PeopleLoader
from forgetbench.datasets.base import option
from forgetbench.datasets.problems import Problem, compared, problem_error
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition

CLASSES = {
    "expression": ("neutral", "happy", "sad", "angry"),
    "pose": ("straight", "left", "right", "up"),
    "sunglasses": ("open", "sunglasses"),
}
GRAMMAR = re.compile(
    r"(?P<identity>[a-z0-9]+)_(?P<pose>straight|left|right|up)_(?P<expression>neutral|happy|sad|angry)"
    r"_(?P<sunglasses>open|sunglasses)(?P<reduced>_[24])?\.(?i:pgm)"
)
PEOPLE = [
    "an2i",
    "at33",
    "boland",
    "bpm",
    "ch4f",
    "cheyer",
    "choon",
    "danieln",
    "glickman",
    "karyadi",
    "kawamura",
    "kk49",
    "megak",
    "mitchell",
    "night",
    "phoebe",
    "saavik",
    "steffi",
    "sz24",
    "tammo",
]
DAMAGED = [
    "choon_left_angry_sunglasses",
    "danieln_straight_happy_sunglasses",
    "glickman_straight_angry_open",
    "glickman_right_sad_open",
    "karyadi_right_happy_sunglasses",
    "kawamura_up_happy_open",
    "megak_straight_sad_sunglasses",
    "megak_up_sad_sunglasses",
    "mitchell_straight_angry_open",
    "mitchell_right_angry_sunglasses",
    "mitchell_up_neutral_sunglasses",
    "mitchell_up_happy_sunglasses",
    "phoebe_left_angry_open",
    "sz24_left_neutral_sunglasses",
    "tammo_right_happy_open",
    "tammo_right_sad_open",
]
"""The sixteen moments of which the set, as published, has no sound picture."""


class Picture(NamedTuple):
    """A file of the set, and what its name says."""

    path: Path
    said: dict[str, str]


@datasets.register("cmu-faces")
@dataclass(frozen=True, kw_only=True)
class CmuFaces(PeopleLoader):
    """CMU Face Images, 128x120 grey pictures reduced to a square.

    File names say all: ``<person>_<pose>_<expression>_<eyes>.pgm``. The archive's copies at half and a quarter of the
    size (``_2``, ``_4``) and its damaged files (``.bad``) are passed over. For who it is, every person's pictures are
    divided; for the other labels the people are.
    """

    labels: Literal["identity", "expression", "pose", "sunglasses"] = option("identity", "What is learned.")

    card: ClassVar[DatasetCard] = DatasetCard(
        name="cmu-faces",
        title="CMU Face Images",
        description="624 grey photographs of 20 people, each in four poses and four expressions, with and without "
        "sunglasses. Small, real, and free to use.",
        license="CC BY 4.0",
        homepage="https://archive.ics.uci.edu/dataset/124",
        citation="T. Mitchell (1997). CMU Face Images. UCI Machine Learning Repository",
        people=True,
        layout="cmu_faces/faces/<person>/<person>_<pose>_<expression>_<eyes>.pgm",
        obtain="Get it from the UCI repository, number 124 (https://archive.ics.uci.edu/dataset/124), and unpack it.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the pictures and divide them.

        Raises:
            UsageError: The folder is missing, or holds no picture.
        """
        folder, found = self._folder(root), self._pictures(root, problems)
        images, rows = resident(folder, [picture.path for picture in found], Shape(1, self.size), problems)
        pictures = [found[row] for row in rows]
        names = sorted({picture.said["identity"] for picture in pictures})
        classes = tuple(names) if self.labels == "identity" else CLASSES[self.labels]
        whole = ImageSet(
            images=images,
            labels=np.array([classes.index(picture.said[self.labels]) for picture in pictures]),
            classes=classes,
            identities=np.array([names.index(picture.said["identity"]) for picture in pictures]),
            people=tuple(names),
            sources=tuple(below(folder, picture.path) for picture in pictures),
        )
        if self.labels == "identity":
            return self.within_person(whole, (0.1, 0.3))
        return self.by_person(whole, (0.1, 0.2, 0.2))

    def differences(self, root: Path | None) -> list[str]:
        """Pictures that are missing of the 624, and others that are there."""
        there = [picture.path.stem for picture in self._pictures(root, [])]
        grid = itertools.product(PEOPLE, CLASSES["pose"], CLASSES["expression"], CLASSES["sunglasses"])
        published = [name for name in map("_".join, grid) if name not in DAMAGED]
        return compared(there, published, str(self._folder(root)))

    def _folder(self, root: Path | None) -> Path:
        return self.folder(root, "cmu_faces", "cmu-faces", expects="faces") / "faces"

    def _pictures(self, root: Path | None, problems: list[Problem]) -> list[Picture]:
        """All full-size pictures, sorted by path; names outside the grammar are problems."""
        pictures = []
        folder = self._folder(root)
        for path in sorted(path for path in folder.glob("*/*") if path.suffix.lower() == ".pgm"):
            match = GRAMMAR.fullmatch(path.name)
            if match is None or match["identity"] != path.parent.name:
                where = (
                    f"{path} is no name of CMU Face Images: expected is {self.card.layout}, with poses "
                    f"{', '.join(CLASSES['pose'])}, expressions {', '.join(CLASSES['expression'])} and eyes "
                    f"{', '.join(CLASSES['sunglasses'])}"
                )
                problems.append(Problem("wrong name", where, "Rename or remove it."))
                continue
            if match["reduced"] is None:
                pictures.append(Picture(path, match.groupdict()))
        if not pictures:
            where = f"There is no picture below {folder}: expected is {self.card.layout}"
            raise problem_error("missing set", where, self.card.obtain)
        return pictures
