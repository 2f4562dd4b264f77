"""CMU Face Images (UCI repository 124): gray images of 20 people, 32 per person.

All of them are in this package at 32 pixels (`cmu_faces.npz`, see NOTICE); other sizes need the files.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forgetbench.datasets import datasets
from forgetbench.datasets._files import TargetShape, load_images, other_files, relative_name, walk_folder
from forgetbench.datasets._identity_splits import PeopleLoader
from forgetbench.datasets.problems import ImageSetError, Problem, diff_against_published, problem_error
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.options import option

CLASSES = {
    "expression": ("neutral", "happy", "sad", "angry"),
    "pose": ("straight", "left", "right", "up"),
    "sunglasses": ("open", "sunglasses"),
}
FILE_NAME = re.compile(
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
"""The people of the published image set."""
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
"""Images of which the published image set has only a damaged file."""


EMBEDDED = Path(__file__).parent / "cmu_faces.npz"
"""All images at 32 pixels, in the order of the files: images (624, 32, 32), and numbers of people and labels (624,)."""
EMBEDDED_SIZE = 32
EMBEDDED_SHA256 = "cd6647916e7c5ecb7994700d4cc4c6fcf9fa02bef9ec13ffcaf3cf7cc892ad75"


class NamedImage(NamedTuple):
    """An image file and the fields of its name."""

    path: Path
    fields: dict[str, str]


class LabeledImages(NamedTuple):
    """Images with all their labels."""

    images: NDArray[np.uint8]
    """(N, 1, H, W)."""
    fields: list[dict[str, str]]
    """The fields of each file's name; in the package a person is called by number."""
    sources: tuple[str, ...]
    """Names of the files; empty for the images of the package."""


@datasets.register("cmu-faces")
@dataclass(frozen=True, kw_only=True)
class CmuFaces(PeopleLoader):
    """CMU Face Images, 128x120 gray images stretched to a square.

    At 32 pixels the package has the images itself, unless the data folder has the files. In those, labels are in the
    names, ``<person>_<pose>_<expression>_<eyes>.pgm``; copies at half and a quarter of the size (``_2``, ``_4``) and
    damaged files (``.bad``) are ignored. People are called by number. With identities as labels, the images of every
    person are split; with other labels, the people are.
    """

    labels: Literal["identity", "expression", "pose", "sunglasses"] = option("identity", "The label to learn.")

    card: ClassVar[DatasetCard] = DatasetCard(
        name="cmu-faces",
        title="CMU Face Images",
        description="624 gray photographs of 20 people, each in four poses and four expressions, with and without "
        f"sunglasses. Small, real, and free to use. Included at 32 pixels, SHA-256 {EMBEDDED_SHA256}.",
        license="CC BY 4.0 (UCI repository); donor's page: free of charge for any educational purpose with attribution",
        homepage="https://archive.ics.uci.edu/dataset/124",
        citation="T. Mitchell (1997). CMU Face Images. UCI Machine Learning Repository",
        embedded=True,
        people=True,
        layout="cmu_faces/faces/<person>/<person>_<pose>_<expression>_<eyes>.pgm",
        obtain="Get it from the UCI repository, number 124 (https://archive.ics.uci.edu/dataset/124), and unpack it.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the images and split them.

        Raises:
            ImageSetError: The folder is missing, or contains no image.
        """
        images, fields, sources = self._embedded() if self._uses_package(root) else self._files(root, problems)
        names = sorted({one["identity"] for one in fields})
        classes = tuple(names) if self.labels == "identity" else CLASSES[self.labels]
        whole = ImageSet(
            images=images,
            labels=np.array([classes.index(one[self.labels]) for one in fields]),
            classes=classes,
            identities=np.array([names.index(one["identity"]) for one in fields]),
            people=tuple(names),
            sources=sources,
        )
        if self.labels == "identity":
            return self.split_within_person(whole, (0.1, 0.3))
        return self.split_by_person(whole, (0.1, 0.2, 0.2))

    def compare_with_published(self, root: Path | None) -> list[str]:
        """Report missing and additional images, compared with the 624 published ones."""
        if self._uses_package(root):
            return []
        names = [image.path.stem for image in self._find_images(root, [])]
        grid = itertools.product(PEOPLE, CLASSES["pose"], CLASSES["expression"], CLASSES["sunglasses"])
        published = [name for name in map("_".join, grid) if name not in DAMAGED]
        return diff_against_published(names, published, str(self._folder(root)))

    def _uses_package(self, root: Path | None) -> bool:
        """Check whether the images are those of the package: it has this size, and the data folder has no files."""
        if self.size != EMBEDDED_SIZE or not EMBEDDED.is_file():
            return False
        try:
            self._folder(root)
        except ImageSetError:
            return True
        return False

    def _embedded(self) -> LabeledImages:
        """Read the images of the package.

        Raises:
            ImageSetError: The file is damaged.
        """
        if hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() != EMBEDDED_SHA256:
            raise problem_error("damaged file", f"{EMBEDDED} is damaged", "Install ForgetBench again.")
        with np.load(EMBEDDED) as arrays:
            columns = [np.array(["", *names])[arrays[label] + 1] for label, names in CLASSES.items()]
            people = [_number(PEOPLE[person - 1]) for person in arrays["person"]]
            rows = zip(people, *columns, strict=True)
            fields = [dict(zip(("identity", *CLASSES), map(str, row), strict=True)) for row in rows]
            return LabeledImages(arrays["images"][:, None], fields, ())

    def _files(self, root: Path | None, problems: list[Problem]) -> LabeledImages:
        """Read the images of a folder.

        Raises:
            ImageSetError: The folder is missing, or contains no image.
        """
        folder, found = self._folder(root), self._find_images(root, problems)
        images, rows = load_images(folder, [image.path for image in found], TargetShape(1, self.size), problems)
        readable = [found[row] for row in rows]
        fields = [{**image.fields, "identity": _number(image.fields["identity"])} for image in readable]
        return LabeledImages(images, fields, tuple(relative_name(folder, image.path) for image in readable))

    def _folder(self, root: Path | None) -> Path:
        return self.find_folder(root, "cmu_faces", "cmu-faces", expects="faces") / "faces"

    def _find_images(self, root: Path | None, problems: list[Problem]) -> list[NamedImage]:
        """Find all full-size images, sorted by path; report wrong file names."""
        images = []
        folder = self._folder(root)
        contents = walk_folder(folder)
        inside = [path for path in contents.files if path.parent.parent == folder and path.suffix != ".bad"]
        paths = [path for path in inside if path.suffix.lower() == ".pgm"]
        problems += contents.problems + other_files(folder, inside, paths)
        for path in paths:
            match = FILE_NAME.fullmatch(path.name)
            if match is None or match["identity"] != path.parent.name:
                message = (
                    f"{path} is not a file name of CMU Face Images. Expected: {self.card.layout}, with poses "
                    f"{', '.join(CLASSES['pose'])}, expressions {', '.join(CLASSES['expression'])} and eyes "
                    f"{', '.join(CLASSES['sunglasses'])}"
                )
                problems.append(Problem("wrong name", message, "Rename or remove the file."))
            elif match["reduced"] is None:
                images.append(NamedImage(path, match.groupdict()))
        if not images:
            message = f"There is no image in {folder}. Expected: {self.card.layout}"
            raise problem_error("missing image set", message, self.card.obtain)
        return images


def _number(person: str) -> str:
    """Return what a person is called: the place among the published people, or the folder's name for anybody else."""
    return f"person-{PEOPLE.index(person) + 1:02}" if person in PEOPLE else person
