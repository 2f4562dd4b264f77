"""MUFAC: Korean families, photographed over their lives, labeled with eight age classes (Choi and Na 2023)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import TargetShape, load_images, relative_name
from forgetbench.datasets._identity_splits import PeopleLoader, sample_validation_people
from forgetbench.datasets._perceptual_hash import first_occurrences, perceptual_hashes
from forgetbench.datasets._sampling import connected_groups
from forgetbench.datasets._tables import read_table, resolve_files
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.problems import Problem
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.options import option
from forgetbench.store import file_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

AGE_CLASSES = tuple("abcdefgh")
TABLES = ("train", "val", "test")
PUBLISHED = {
    "train": (10025, "3e0bac40b917eb56a685bcf89519bb25fba5d8aea4094a0e57694d698beead3c"),
    "val": (1539, "3fe21d26438d675d46a23b7db0dd9504ec7f9aee6242953ba72ce44d8b8a445d"),
    "test": (1504, "b4289c2a802f7c76ada89386fbfcbd0a03f669e85996c3408b462c290c785164"),
}
"""Table -> number of rows and SHA-256, as published."""
FORGET_ROWS = 1500
"""The published forget set is the first 1,500 rows of the training table."""
FILE_NAME = re.compile(
    r"(?P<family_id>F\d{4})_AGE_(?P<person_id>[A-Z]+\d?)_(?P<age>\d+)_(?P<age_class>[a-h])(?P<shot>\d*)\.(?i:jpg)"
)


class Listing(NamedTuple):
    """All rows of the three tables, one table after the other."""

    paths: list[Path]
    tables: NDArray[np.int64]
    """(N,): 0 train, 1 val, 2 test."""
    labels: NDArray[np.int64]
    people: NDArray[np.int64]
    """(N,): number of a family and a person in it."""
    names: tuple[str, ...]
    """Family and person of every number: "F0001 D"."""

    def take(self, rows: NDArray[np.int64]) -> Listing:
        """Return some rows."""
        paths = [self.paths[row] for row in rows]
        return Listing(paths, self.tables[rows], self.labels[rows], self.people[rows], self.names)


@datasets.register("mufac")
@dataclass(frozen=True, kw_only=True)
class Mufac(PeopleLoader):
    """MUFAC from its published tables and images, with three splits.

    - ``legacy``: as published. The forget set is the first 1,500 training rows, the test set the *val* table, and the
      unseen set the *test* table. It leaks: 3,144 images are there more than once, in different families, and some of
      them on both sides of the split.
    - ``clean``: without repeated images, as cleaned by LoTUS (Spartalis et al. 2025). Images are removed from the
      forget set if they are also retained, from val if they are in test, and from test if they are in train; then all
      repetitions are removed.
    - ``person``: all tables together, without repetitions. People who share an image count as one person, and parts
      consist of whole people drawn at random, so that no person is in two parts and all parts have the same
      distribution.

    The first two were published without a validation set. Here it consists of all images of some people who would be
    retained and share no image with the forget, test or unseen images. These people are not trained on, so that fewer
    images are retained than were published.
    """

    split: Literal["legacy", "clean", "person"] = option("person", "As published, without repetitions, or by person.")
    size: int = option(128, "Side of an image in pixels; the files have 128.", ge=8, le=512)
    validation: float = option(
        0.1, "Fraction of all people ('person'), or of the retained people, to validate on instead.", gt=0, lt=0.5
    )

    card: ClassVar[DatasetCard] = DatasetCard(
        name="mufac",
        title="MUFAC",
        description="13,068 face images of 1,216 Koreans according to the file names, or of 820 once people who share "
        "an image are joined; each person is in 3.7 of eight age classes on average. It was published without a "
        "validation set: people who would be retained are used for validation, so that fewer are retained than were "
        "published.",
        license="AI-Hub terms: no redistribution; for research by people who were given access",
        homepage="https://github.com/ndb796/MachineUnlearning",
        citation="D. Choi, D. Na (2023). Toward Machine Unlearning Benchmarks: Forgetting the Personal Identities in "
        "Facial Recognition Systems",
        restricted=True,
        people=True,
        layout="custom_korean_family_dataset_resolution_128/ (or mufac/) with custom_{train,val,test}_dataset.csv and "
        "{train,val,test}_images/",
        obtain="Request it from its authors (https://github.com/ndb796/MachineUnlearning): only they may share it.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the tables and the images.

        Raises:
            ImageSetError: A table is missing, or its header is wrong.
        """
        folder = self._folder(root)
        listing = _read_tables(folder, problems)
        images, readable = load_images(folder, listing.paths, TargetShape(3, self.size), problems)
        listing = listing.take(readable)
        if self.split == "legacy":
            selected, people, names = np.ones(len(listing.paths), dtype=bool), listing.people, listing.names
        else:
            hashes = perceptual_hashes(folder, listing.paths)
            people = connected_groups(listing.people, np.unique(hashes, return_inverse=True)[1])
            names = _joined_names(listing, people)
            clean = self.split == "clean"
            selected = clean_rows(listing.tables, hashes) if clean else first_occurrences(hashes)
        whole = ImageSet(
            images=images,
            labels=listing.labels,
            classes=AGE_CLASSES,
            identities=people,
            people=names,
            sources=tuple(relative_name(folder, path) for path in listing.paths),
        )
        if self.split == "person":
            return self.split_by_person(whole, (self.validation, 0.15, 0.15), np.flatnonzero(selected))
        return self._published_split(whole, listing.tables, selected)

    def compare_with_published(self, root: Path | None) -> list[str]:
        """Report tables that differ from the published ones."""
        differences = []
        for name, (published_count, sha256) in PUBLISHED.items():
            table = _table_path(self._folder(root), name)
            count = len(read_table(table, ("image_path",)))
            if count != published_count:
                differences.append(f"{table} has {count:,} rows; the published table has {published_count:,}")
            elif file_digest(table) != sha256:
                differences.append(f"{table} has as many rows as the published table, but different contents")
        return differences

    def _folder(self, root: Path | None) -> Path:
        names = ("custom_korean_family_dataset_resolution_128", "mufac")
        return self.find_folder(root, *names, expects="custom_train_dataset.csv")

    def _published_split(self, whole: ImageSet, tables: NDArray[np.int64], selected: NDArray[np.bool_]) -> Partition:
        train, test, unseen = (np.flatnonzero((tables == number) & selected) for number in range(3))
        assert whole.identities is not None  # noqa: S101 (made with identities)
        people = connected_groups(whole.identities, whole.first_copy)
        excluded = (tables > 0) | (np.arange(len(tables)) < FORGET_ROWS)
        rng = make_rng("mufac", "validation", self.seed)
        drawn = sample_validation_people(people, excluded, self.validation, rng)
        train, validation = np.setdiff1d(train, drawn), np.intersect1d(train, drawn)
        return Partition(
            name="mufac",
            train=whole.take(train),
            validation=whole.take(validation),
            test=whole.take(test),
            unseen=whole.take(unseen),
            card=self.card,
            forget_lists={"published": np.flatnonzero(train < FORGET_ROWS)},
        )


def clean_rows(tables: NDArray[np.int64], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark the rows that remain after LoTUS's cleaning, (N,).

    Args:
        tables: (N,): 0 train, 1 val, 2 test, in this order.
        hashes: (N,): equal for the same image.
    """
    forget = (tables == 0) & (np.arange(len(tables)) < FORGET_ROWS)
    retain = (tables == 0) & ~forget
    selected = np.zeros(len(tables), dtype=bool)
    for part, other in ((forget, retain), (retain, None), (tables == 1, tables == 2), (tables == 2, tables == 0)):
        rows = np.flatnonzero(part if other is None else part & ~np.isin(hashes, hashes[other]))
        selected[rows[first_occurrences(hashes[rows])]] = True
    return selected


def _table_path(folder: Path, name: str) -> Path:
    return folder / f"custom_{name}_dataset.csv"


def _read_tables(folder: Path, problems: list[Problem]) -> Listing:
    columns = ("family_id", "person_id", "age_class", "image_path")
    paths: list[Path] = []
    names: list[str] = []
    labels: list[int] = []
    tables: list[int] = []
    for number, name in enumerate(TABLES):
        table = _table_path(folder, name)
        rows = read_table(table, columns, (), problems)
        files = resolve_files(table, rows, folder / f"{name}_images", "image_path", problems)
        for row, file in zip(rows, files, strict=True):
            match = FILE_NAME.fullmatch(row.values["image_path"])
            wrong = [column for column in columns[:3] if match is None or match[column] != row.values[column]]
            if wrong:
                message = (
                    f"row {row.number} of {table}: {', '.join(wrong)} and the file name {row.values['image_path']!r} "
                    "disagree. Expected: F<family>_AGE_<person>_<age>_<class a to h><shot>.jpg"
                )
                fix = "Correct the row, or copy the table from its source again."
                problems.append(Problem("wrong row", message, fix))
            if wrong or file is None:
                continue
            paths.append(Path(file.name))
            names.append(f"{row.values['family_id']} {row.values['person_id']}")
            labels.append(AGE_CLASSES.index(row.values["age_class"]))
            tables.append(number)
    people, numbers = np.unique(names, return_inverse=True)
    people_names = tuple(str(name) for name in people)
    return Listing(paths, np.array(tables), np.array(labels), numbers.astype(np.int64), people_names)


def _joined_names(listing: Listing, people: NDArray[np.int64]) -> tuple[str, ...]:
    """Name people after all their families, once people who share an image are joined: "F0002 D = F0031 D"."""
    names: list[list[str]] = [[] for _ in range(int(people.max()) + 1)]
    for number, joined in sorted({*zip(listing.people.tolist(), people.tolist(), strict=True)}):
        names[joined].append(listing.names[number])
    return tuple(" = ".join(parts) for parts in names)
