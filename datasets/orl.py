"""ORL (AT&T) Database of Faces: 40 people with ten gray images each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import TargetShape, load_images, other_files, relative_name, walk_folder
from forgetbench.datasets._identity_splits import PeopleLoader
from forgetbench.datasets.problems import Problem, diff_against_published, problem_error
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition


@datasets.register("orl")
@dataclass(frozen=True, kw_only=True)
class Orl(PeopleLoader):
    """The ORL faces, 92x112 gray images stretched to a square; the class is the person.

    The ten images of every person are split: six for training, one for validation, three for testing.
    """

    card: ClassVar[DatasetCard] = DatasetCard(
        name="orl",
        title="ORL (AT&T) Database of Faces",
        description="400 gray photographs of 40 people, taken in Cambridge from 1992 to 1994; the class is the person.",
        license="free to use; credit Olivetti Research Laboratory",
        homepage="https://cam-orl.co.uk/facedatabase.html",
        citation="F. Samaria, A. Harter (1994). Parameterisation of a stochastic model for human face identification",
        people=True,
        layout="att_orl/att_faces/s<1..40>/<1..10>.pgm",
        obtain="Get 'The Database of Faces' from https://cam-orl.co.uk/facedatabase.html, and unpack it.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the images and split those of every person.

        Raises:
            ImageSetError: The folder is missing, or contains no image.
        """
        folder, found = self._folder(root), self._find_images(root, problems)
        images, rows = load_images(folder, found, TargetShape(1, self.size), problems)
        paths = [found[row] for row in rows]
        names = sorted({path.parent.name for path in paths}, key=_person_number)
        identities = np.array([names.index(path.parent.name) for path in paths])
        sources = tuple(relative_name(folder, path) for path in paths)
        whole = ImageSet(images, identities, tuple(names), identities, people=tuple(names), sources=sources)
        return self.split_within_person(whole, (0.1, 0.3))

    def compare_with_published(self, root: Path | None) -> list[str]:
        """Report missing and additional images, compared with ten images of each of 40 people."""
        names = [f"{path.parent.name}/{int(path.stem)}" for path in self._find_images(root, [])]
        published = [f"s{person}/{shot}" for person in range(1, 41) for shot in range(1, 11)]
        return diff_against_published(names, published, str(self._folder(root)))

    def _folder(self, root: Path | None) -> Path:
        return self.find_folder(root, "att_orl/att_faces", "att_faces", "orl", "ORL", expects="s1")

    def _find_images(self, root: Path | None, problems: list[Problem]) -> list[Path]:
        """Find all images of people; report links and other files in their folders that are passed over."""
        folder = self._folder(root)
        contents = walk_folder(folder)
        inside = [path for path in contents.files if path.parent.parent == folder and _is_person(path.parent.name)]
        paths = [path for path in inside if path.suffix.lower() == ".pgm" and path.stem.isdecimal()]
        problems += contents.problems + other_files(folder, inside, paths)
        if not paths:
            message = f"There is no image in {folder}. Expected: {self.card.layout}"
            raise problem_error("missing image set", message, self.card.obtain)
        return sorted(paths, key=lambda path: (_person_number(path.parent.name), int(path.stem)))


def _is_person(folder: str) -> bool:
    return folder.startswith("s") and folder[1:].isdecimal()


def _person_number(folder: str) -> int:
    return int(folder[1:])
