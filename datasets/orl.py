"""The ORL (AT&T) database of faces: 40 people in ten pictures each, grey."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import Shape, below, resident
from forgetbench.datasets._identity_splits import PeopleLoader
from forgetbench.datasets.problems import Problem, compared, problem_error
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition


@datasets.register("orl")
@dataclass(frozen=True, kw_only=True)
class Orl(PeopleLoader):
    """The ORL faces, 92x112 grey pictures squeezed to a square; the class is the person.

    Every person's ten pictures are divided: six to train on, one to validate, three to test.
    """

    card: ClassVar[DatasetCard] = DatasetCard(
        name="orl",
        title="ORL (AT&T) Database of Faces",
        description="400 grey photographs of 40 people, taken in Cambridge from 1992 to 1994; the class is the person.",
        license="free to use; credit Olivetti Research Laboratory",
        homepage="https://cam-orl.co.uk/facedatabase.html",
        citation="F. Samaria, A. Harter (1994). Parameterisation of a stochastic model for human face identification",
        people=True,
        layout="att_orl/att_faces/s<1..40>/<1..10>.pgm",
        obtain="Get 'The Database of Faces' from https://cam-orl.co.uk/facedatabase.html, and unpack it.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the pictures and divide each person's.

        Raises:
            UsageError: The folder is missing, or holds no picture.
        """
        folder, found = self._folder(root), self._pictures(root)
        pictures = resident(folder, found, Shape(1, self.size), problems)
        paths = [found[row] for row in pictures.rows]
        names = sorted({path.parent.name for path in paths}, key=_number)
        who = np.array([names.index(path.parent.name) for path in paths])
        sources = tuple(below(folder, path) for path in paths)
        whole = ImageSet(pictures.images, who, tuple(names), who, people=tuple(names), sources=sources)
        return self.within_person(whole, (0.1, 0.3))

    def differences(self, root: Path | None) -> list[str]:
        """Pictures that are missing of forty people's ten each, and others that are there."""
        there = [f"{path.parent.name}/{int(path.stem)}" for path in self._pictures(root)]
        published = [f"s{person}/{shot}" for person in range(1, 41) for shot in range(1, 11)]
        return compared(there, published, str(self._folder(root)))

    def _folder(self, root: Path | None) -> Path:
        return self.folder(root, "att_orl/att_faces", "att_faces", "orl", "ORL", expects="s1")

    def _pictures(self, root: Path | None) -> list[Path]:
        folder = self._folder(root)
        pictures = [
            path
            for path in folder.glob("s*/*")
            if path.suffix.lower() == ".pgm" and path.stem.isdecimal() and path.parent.name[1:].isdecimal()
        ]
        if not pictures:
            where = f"There is no picture below {folder}: expected is {self.card.layout}"
            raise problem_error("missing set", where, self.card.obtain)
        return sorted(pictures, key=lambda path: (_number(path.parent.name), int(path.stem)))


def _number(folder: str) -> int:
    return int(folder[1:])
