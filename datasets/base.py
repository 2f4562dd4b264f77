"""Base classes of loaders, and random generators seeded by names."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from forgetbench.datasets.problems import ImageSetError, Problem, problem_error, problems_from_error
from forgetbench.datasets.types import DatasetCard, Partition
from forgetbench.errors import ForgetBenchError
from forgetbench.options import Options


class LoadReport(NamedTuple):
    """Result of reading an image set as far as possible."""

    partition: Partition | None
    """The readable images; None if too little is readable to make a partition."""
    problems: list[Problem]
    """Everything that is wrong with the files."""


class Loader(Options, ABC):
    """An image set with its options: how it is read, split and labeled.

    A loader is a frozen, keyword-only dataclass. Its options are declared by :func:`forgetbench.options.option`, and
    ``card`` describes the image set.
    """

    card: ClassVar[DatasetCard]

    def __init_subclass__(cls, **keywords: object) -> None:
        super().__init_subclass__(**keywords)
        if "card" in vars(cls):
            cls.option_owner = f"image set {cls.card.name!r}"

    @abstractmethod
    def load(self, root: Path | None) -> Partition:
        """Read or generate the images.

        Args:
            root: The data folder; None if the user named none. Embedded image sets ignore it.

        Raises:
            UsageError: Files are missing or wrong; the message says which files, what is expected and where to get
                them.
        """

    def compare_with_published(self, root: Path | None) -> list[str]:  # noqa: ARG002 (base: nothing is published)
        """Return how readable files differ from the published image set, one sentence without full stop per difference.

        Args:
            root: The data folder.
        """
        return []

    def examine(self, root: Path | None) -> LoadReport:
        """Read what can be read, and report everything that is wrong with the rest.

        Args:
            root: The data folder.
        """
        try:
            return LoadReport(self.load(root), [])
        except ForgetBenchError as error:
            return LoadReport(None, problems_from_error(error))

    def find_folder(self, root: Path | None, *names: str, expects: str) -> Path:
        """Return the first of ``root/name`` and ``root`` itself that contains an expected file or folder.

        Args:
            root: The data folder, or the folder of the image set.
            names: Names of the image set's folder in the data folder.
            expects: File or folder that identifies the image set.

        Raises:
            ImageSetError: No data folder was named, or no folder contains what is expected.
        """
        for candidate in () if root is None else (*(root / name for name in names), root):
            if (candidate / expects).exists() or (candidate / expects).is_symlink():  # a broken link is reported later
                return candidate
        raise self.not_found(root, names, (expects,))

    def not_found(self, root: Path | None, names: Sequence[str], expects: Sequence[str]) -> ImageSetError:
        """Return the error for files that are not where they are expected; it says if they are a little deeper.

        Args:
            root: The data folder.
            names: Names of the image set's folder in the data folder.
            expects: Files or folders that identify the image set, any of them.
        """
        if root is None:
            return self.missing_files(root, "")
        folders = [root / name for name in names] + [root] + [root / Path(name).parts[0] for name in names]
        deeper = next(filter(None, (_find_deeper(folders, name) for name in expects)), None)
        reason = f"{expects[0]!r} is neither in {root} nor in {root / names[0]}"
        return self.missing_files(root, reason, f"It is in {deeper}: name that folder with --root." if deeper else "")

    def missing_files(self, root: Path | None, reason: str, fix: str = "") -> ImageSetError:
        """Return the error for missing files: what is missing, what is expected, and where to get it.

        Args:
            root: The data folder.
            reason: What is missing.
            fix: The way on; where to get the files if it is empty.
        """
        reason = reason if root is not None else "no data folder was named"
        return problem_error(
            "missing image set",
            f"Image set {self.card.name!r} needs files, but {reason}. Expected: {self.card.layout}",
            fix or f"{self.card.obtain} Then name the data folder with --root.",
        )


def _find_deeper(folders: Sequence[Path], expects: str) -> Path | None:
    """Find a file or folder one or two levels deeper: archives are often unpacked into a folder of their name."""
    for folder in folders:
        level = [folder]
        for _ in range(2):
            level = [inner for outer in level for inner in _subfolders(outer)]
            found = next((inner for inner in level if (inner / expects).exists()), None)
            if found is not None:
                return found
    return None


def _subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted; without a call of the file system for each file."""
    try:
        return sorted(folder / entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []


class FileLoader(Loader):
    """Base of loaders that read many files; they skip unreadable ones to report all problems at once."""

    @abstractmethod
    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read what can be read.

        Args:
            root: The data folder.
            problems: List to which everything that is wrong is appended.

        Raises:
            ForgetBenchError: Too little is readable to make a partition.
        """

    def load(self, root: Path | None) -> Partition:
        """Read the images; what is passed over is in the partition's ``notes``.

        Args:
            root: The data folder.

        Raises:
            ImageSetError: Files or rows are missing or wrong; it contains all problems.
        """
        partition, problems = self.examine(root)
        serious = [problem for problem in problems if problem.serious]
        if partition is None or serious:
            head = f"{self.option_owner} has {len(serious)} problems; `forgetbench data check` shows how to fix them:"
            raise ImageSetError(head if len(serious) > 1 else "", serious)
        return replace(partition, notes=tuple(f"{one.message}. {one.fix}" for one in problems))

    def examine(self, root: Path | None) -> LoadReport:
        """Read what can be read, and report everything that is wrong with the rest.

        Args:
            root: The data folder.
        """
        problems: list[Problem] = []
        try:
            return LoadReport(self.read(root, problems), problems)
        except ForgetBenchError as error:
            return LoadReport(None, problems + problems_from_error(error))


def make_rng(*names: str | int) -> np.random.Generator:
    """Return a random generator seeded by a list of names; the same in all processes and on all machines.

    Draw only uniform doubles from it, as :func:`forgetbench.datasets._sampling.random_order` does: numpy keeps their
    stream unchanged between releases.
    """
    words = hashlib.sha256(json.dumps(names).encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(words, "big"))))
