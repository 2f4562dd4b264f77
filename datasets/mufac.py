"""MUFAC: Korean families over their lives, labeled with eight age classes (Choi and Na 2023)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import Shape, below, resident
from forgetbench.datasets._identity_splits import PeopleLoader, held_back
from forgetbench.datasets._perceptual_hash import first_of_each, perceptual_hashes
from forgetbench.datasets._sampling import joined_groups
from forgetbench.datasets._tables import files_of_rows, read_table
from forgetbench.datasets.base import generator, option
from forgetbench.datasets.problems import Problem
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
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
"""Rows of every table as published, and its SHA-256."""
FORGOTTEN = 1500
"""The first rows of the training table are the ones to forget, as published."""
NAME = re.compile(
    r"(?P<family_id>F\d{4})_AGE_(?P<person_id>[A-Z]+\d?)_(?P<age>\d+)_(?P<age_class>[a-h])(?P<shot>\d*)\.(?i:jpg)"
)


class Listing(NamedTuple):
    """All rows of the three tables, one after the other."""

    paths: list[Path]
    tables: NDArray[np.int64]
    """(N,): 0 train, 1 val, 2 test."""
    labels: NDArray[np.int64]
    people: NDArray[np.int64]
    """(N,): a family and the person's code in it."""
    names: tuple[str, ...]
    """Everybody's family and code, "F0001 D"."""

    def take(self, rows: NDArray[np.int64]) -> Listing:
        """Some rows."""
        paths = [self.paths[row] for row in rows]
        return Listing(paths, self.tables[rows], self.labels[rows], self.people[rows], self.names)


@datasets.register("mufac")
@dataclass(frozen=True, kw_only=True)
class Mufac(PeopleLoader):
    """MUFAC from its published tables and images, with three splits.

    - ``legacy``: as published. The first 1,500 training rows are the published forget list; the test set is all of the
      *val* table and the unseen set the *test* table. It leaks: 3,144 pictures are there more than once, filed under
      other families, some of them on both sides.
    - ``clean``: without repeated pictures, as LoTUS (Spartalis et al. 2025) cleaned it: of the published forget list go
      the pictures that are also retained, of val those in test, of test those in train, and then all repetitions.
    - ``person``: all tables together, repetitions dropped, people who share a picture joined into one, and the parts
      made of whole people drawn at random, so that nobody is on two sides and all parts are alike.

    The first two were published without a validation set. Theirs is all pictures of some people who would be retained
    and share no picture with what is forgotten, tested or unseen; they are held back from training, so that fewer
    pictures are retained than were published.
    """

    split: Literal["legacy", "clean", "person"] = option("person", "As published, without repetitions, or by people.")
    size: int = option(128, "Side of a picture, pixels; the files have 128.", ge=8, le=512)
    validation: float = option(
        0.1, "Share of all people ('person'), or of the retained people, to validate on instead.", gt=0, lt=0.5
    )

    card: ClassVar[DatasetCard] = DatasetCard(
        name="mufac",
        title="MUFAC",
        description="13,068 face pictures of 1,216 Koreans by their files' names, 820 once repeated pictures are "
        "joined; 3.7 of eight age classes for every person. As published there is no validation set: people who would "
        "be retained are held back for it, so that fewer are retained than were published.",
        license="AI-Hub terms: no redistribution; for research by those who were given access",
        homepage="https://github.com/ndb796/MachineUnlearning",
        citation="D. Choi, D. Na (2023). Toward Machine Unlearning Benchmarks: Forgetting the Personal Identities in "
        "Facial Recognition Systems",
        restricted=True,
        people=True,
        layout="custom_korean_family_dataset_resolution_128/ (or mufac/) with custom_{train,val,test}_dataset.csv and "
        "{train,val,test}_images/",
        obtain="Ask its authors (https://github.com/ndb796/MachineUnlearning); it may not be passed on by others.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the tables and the pictures.

        Raises:
            UsageError: A table is missing, or its head is wrong.
        """
        folder = self._folder(root)
        listing = _listing(folder, problems)
        images, read = resident(folder, listing.paths, Shape(3, self.size), problems)
        listing = listing.take(read)
        if self.split == "legacy":
            kept, who, names = np.ones(len(listing.paths), dtype=bool), listing.people, listing.names
        else:
            hashes = perceptual_hashes(folder, listing.paths)
            who = joined_groups(listing.people, np.unique(hashes, return_inverse=True)[1])
            names = _joined_names(listing, who)
            kept = first_of_each(hashes) if self.split == "person" else clean_rows(listing.tables, hashes)
        whole = ImageSet(
            images=images,
            labels=listing.labels,
            classes=AGE_CLASSES,
            identities=who,
            people=names,
            sources=tuple(below(folder, path) for path in listing.paths),
        )
        if self.split == "person":
            return self.by_person(whole, (self.validation, 0.15, 0.15), np.flatnonzero(kept))
        return self._as_published(whole, listing.tables, kept)

    def differences(self, root: Path | None) -> list[str]:
        """Tables that are not the published ones."""
        found = []
        for name, (wanted, sha256) in PUBLISHED.items():
            table = _table(self._folder(root), name)
            count = len(read_table(table, ("image_path",)))
            if count != wanted:
                found.append(f"{table} has {count:,} rows; as published, it has {wanted:,}")
            elif file_digest(table) != sha256:
                found.append(f"{table} has as many rows as the published table, but other contents")
        return found

    def _folder(self, root: Path | None) -> Path:
        names = ("custom_korean_family_dataset_resolution_128", "mufac")
        return self.folder(root, *names, expects="custom_train_dataset.csv")

    def _as_published(self, whole: ImageSet, tables: NDArray[np.int64], kept: NDArray[np.bool_]) -> Partition:
        train, test, unseen = (np.flatnonzero((tables == number) & kept) for number in range(3))
        assert whole.identities is not None  # noqa: S101 (made with them)
        people = joined_groups(whole.identities, whole.first_copy)
        staying = (tables > 0) | (np.arange(len(tables)) < FORGOTTEN)
        held = held_back(people, staying, self.validation, generator("mufac", "validation", self.seed))
        train, validation = np.setdiff1d(train, held), np.intersect1d(train, held)
        return Partition(
            name="mufac",
            train=whole.take(train),
            validation=whole.take(validation),
            test=whole.take(test),
            unseen=whole.take(unseen),
            card=self.card,
            forget_lists={"published": np.flatnonzero(train < FORGOTTEN)},
        )


def clean_rows(tables: NDArray[np.int64], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows LoTUS's cleaning keeps, (N,).

    Args:
        tables: (N,): 0 train, 1 val, 2 test, in this order.
        hashes: (N,): equal for the same picture.
    """
    forget = (tables == 0) & (np.arange(len(tables)) < FORGOTTEN)
    retain = (tables == 0) & ~forget
    kept = np.zeros(len(tables), dtype=bool)
    for part, other in ((forget, retain), (retain, None), (tables == 1, tables == 2), (tables == 2, tables == 0)):
        rows = np.flatnonzero(part if other is None else part & ~np.isin(hashes, hashes[other]))
        kept[rows[first_of_each(hashes[rows])]] = True
    return kept


def _table(folder: Path, name: str) -> Path:
    return folder / f"custom_{name}_dataset.csv"


def _listing(folder: Path, problems: list[Problem]) -> Listing:
    columns = ("family_id", "person_id", "age_class", "image_path")
    paths: list[Path] = []
    names: list[str] = []
    labels: list[int] = []
    tables: list[int] = []
    for number, name in enumerate(TABLES):
        table = _table(folder, name)
        rows = read_table(table, columns, (), problems)
        found = files_of_rows(table, rows, folder / f"{name}_images", "image_path", problems)
        for row, file in zip(rows, found, strict=True):
            match = NAME.fullmatch(row.values["image_path"])
            wrong = [column for column in columns[:3] if match is None or match[column] != row.values[column]]
            if wrong:
                where = (
                    f"row {row.number} of {table}: {', '.join(wrong)} and the file name {row.values['image_path']!r} "
                    "disagree; expected is F<family>_AGE_<person>_<age>_<class a to h><shot>.jpg"
                )
                fix = "Correct the row, or copy the table again from where it comes from."
                problems.append(Problem("wrong row", where, fix))
            if wrong or file is None:
                continue
            paths.append(Path(file.name))
            names.append(f"{row.values['family_id']} {row.values['person_id']}")
            labels.append(AGE_CLASSES.index(row.values["age_class"]))
            tables.append(number)
    known, who = np.unique(names, return_inverse=True)
    everybody = tuple(str(name) for name in known)
    return Listing(paths, np.array(tables), np.array(labels), who.astype(np.int64), everybody)


def _joined_names(listing: Listing, who: NDArray[np.int64]) -> tuple[str, ...]:
    """All the names of everybody, where people who share a picture are one: "F0002 D = F0031 D"."""
    names: list[list[str]] = [[] for _ in range(int(who.max()) + 1)]
    for person, number in sorted({*zip(listing.people.tolist(), who.tolist(), strict=True)}):
        names[number].append(listing.names[person])
    return tuple(" = ".join(some) for some in names)
