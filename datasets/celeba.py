"""CelebA and MUCAC: celebrities with their identities, labeled male, smiling and young."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import Shape, below, resident
from forgetbench.datasets._identity_splits import PeopleLoader, held_back
from forgetbench.datasets._sampling import joined_groups
from forgetbench.datasets._tables import read_table
from forgetbench.datasets.base import generator, option
from forgetbench.datasets.problems import COPY_AGAIN, Problem, problem_error
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


ATTRIBUTES = ("male", "smiling", "young")
CLASSES = {
    "attributes": ATTRIBUTES,
    "male": ("female", "male"),
    "smiling": ("not smiling", "smiling"),
    "young": ("not young", "young"),
}
IDENTITY_RANGES = {"test": (0, 190), "train": (190, 4855), "unseen": (4855, 6217)}
"""MUCAC's published parts by identity number, the last one not included."""
PUBLISHED = (30000, 6217)
"""Pictures and people of MUCAC."""
FORGOTTEN = (190, 1250)
"""The identities that MUCAC forgets."""


@dataclass(frozen=True, kw_only=True)
class AttributeLoader(PeopleLoader):
    """Base of sets of people with the attributes male, smiling and young."""

    labels: Literal["attributes", "male", "smiling", "young"] = option(
        "attributes", "All three attributes at once, or one of them as two classes."
    )
    size: int = option(128, "Side of a picture, pixels.", ge=8, le=512)

    @abstractmethod
    def _listing(self, root: Path | None, problems: list[Problem]) -> Listing: ...

    def _image_set(self, listing: Listing, problems: list[Problem]) -> ImageSet:
        pictures = resident(listing.folder, listing.paths, Shape(3, self.size, "crop"), problems)
        attributes = listing.attributes[pictures.rows]
        return ImageSet(
            images=pictures.images,
            labels=attributes if self.labels == "attributes" else attributes[:, ATTRIBUTES.index(self.labels)],
            classes=CLASSES[self.labels],
            identities=listing.people[pictures.rows],
            sources=tuple(below(listing.folder, listing.paths[row]) for row in pictures.rows),
        )


@datasets.register("mucac")
@dataclass(frozen=True, kw_only=True)
class Mucac(AttributeLoader):
    """MUCAC: CelebA-HQ with identities (Choi and Na 2023).

    ``legacy`` is the published split by ranges of identity numbers, whose parts are not alike: test people have 10.9
    pictures on average, unseen people 1.5. It was published without a validation set: some of the retained people are
    held back for it, so that fewer pictures are retained than were published. ``person`` draws whole people at random.
    """

    split: Literal["legacy", "person"] = option("person", "As published by identity number, or by people at random.")
    validation: float = option(
        0.1, "Share of all people ('person'), or of the retained people, to validate on instead.", gt=0, lt=0.5
    )

    card: ClassVar[DatasetCard] = DatasetCard(
        name="mucac",
        title="MUCAC",
        description="CelebA-HQ: 30,000 face pictures of 6,217 celebrities, labeled male, smiling and young. "
        "As published there is no validation set: people who would be retained are held back for it, so that fewer are "
        "retained than were published.",
        license="CelebA terms: non-commercial research only, no redistribution",
        homepage="https://github.com/ndb796/MachineUnlearning",
        citation="D. Choi, D. Na (2023). Toward Machine Unlearning Benchmarks; T. Karras et al. (2018), CelebA-HQ",
        restricted=True,
        people=True,
        layout="CelebAMask-HQ/ (or mucac/) with CelebA-HQ-img/<i>.jpg, CelebA-HQ-identity.txt, CelebA-HQ-attribute.txt",
        obtain="Ask for CelebAMask-HQ at https://github.com/switchablenorms/CelebAMask-HQ; the two tables are MUCAC's.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the tables and the pictures.

        Raises:
            UsageError: A table is missing, or its head is wrong.
        """
        whole = self._image_set(self._listing(root, problems), problems)
        if self.split == "person":
            return self.by_person(whole, (self.validation, 0.1, 0.1))
        who = whole.identities
        assert who is not None  # noqa: S101 (made with them)
        rows = {name: np.flatnonzero((who >= low) & (who < high)) for name, (low, high) in IDENTITY_RANGES.items()}
        forgotten = (who >= FORGOTTEN[0]) & (who < FORGOTTEN[1])
        staying = forgotten | ~np.isin(np.arange(len(who)), rows["train"])
        people = joined_groups(who, whole.first_copy)
        held = held_back(people, staying, self.validation, generator("mucac", "validation", self.seed))
        train = np.setdiff1d(rows["train"], held)
        return Partition(
            name="mucac",
            train=whole.take(train),
            validation=whole.take(held),
            test=whole.take(rows["test"]),
            unseen=whole.take(rows["unseen"]),
            card=self.card,
            forget_lists={"published": np.flatnonzero(forgotten[train])},
        )

    def differences(self, root: Path | None) -> list[str]:
        """Numbers of pictures and people that are not the published ones."""
        listing = self._listing(root, [])
        counts = (("pictures", len(listing.paths)), ("people", len(np.unique(listing.people))))
        return [
            f"{listing.tables[0]} names {count:,} {what}; as published, it names {wanted:,}"
            for (what, count), wanted in zip(counts, PUBLISHED, strict=True)
            if count != wanted
        ]

    def _listing(self, root: Path | None, problems: list[Problem]) -> Listing:
        folder = self.folder(root, "CelebAMask-HQ", "mucac", expects="CelebA-HQ-identity.txt")
        tables = [folder / "CelebA-HQ-identity.txt", folder / "CelebA-HQ-attribute.txt"]
        said = read_identities(tables[0], problems), read_attributes(tables[1], problems)
        return join_tables(folder, tables, folder / "CelebA-HQ-img", *said, problems)


@datasets.register("celeba")
@dataclass(frozen=True, kw_only=True)
class Celeba(AttributeLoader):
    """CelebA with its own identity and attribute files, or a selection of it in one table.

    People with few pictures are left out; parts are made of whole people drawn at random.
    """

    pictures: int = option(10, "Fewest pictures of a person to be used.", ge=1)
    validation: float = option(0.1, "Share of the people to validate on.", gt=0, lt=0.5)
    test: float = option(0.2, "Share of the people to test on; as many are unseen.", gt=0, lt=0.4)

    card: ClassVar[DatasetCard] = DatasetCard(
        name="celeba",
        title="CelebA",
        description="202,599 face pictures of 10,177 celebrities, labeled male, smiling and young (of 40 attributes).",
        license="CelebA terms: non-commercial research only, no redistribution",
        homepage="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        citation="Z. Liu, P. Luo, X. Wang, X. Tang (2015). Deep Learning Face Attributes in the Wild",
        restricted=True,
        people=True,
        layout="celeba/ with img_align_celeba/<i>.jpg, identity_CelebA.txt and list_attr_celeba.txt; or <i>.jpg and "
        "labels.csv with the columns image, identity, Male, Smiling, Young",
        obtain="Ask for it at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the tables and the pictures.

        Raises:
            UsageError: A table is missing, or its head is wrong; or nobody has enough pictures.
        """
        whole = self._image_set(self._listing(root, problems), problems)
        return self.by_person(whole, (self.validation, self.test, self.test))

    def _listing(self, root: Path | None, problems: list[Problem]) -> Listing:
        for folder in () if root is None else (root / "celeba", root / "celeba299", root):
            if (folder / "labels.csv").is_file() and not (folder / "identity_CelebA.txt").is_file():
                table = folder / "labels.csv"
                return self._frequent(join_tables(folder, [table], folder, *read_selection(table, problems), problems))
        folder = self.folder(root, "celeba", expects="identity_CelebA.txt")
        tables = [folder / "identity_CelebA.txt", folder / "list_attr_celeba.txt"]
        said = read_identities(tables[0], problems), read_attributes(tables[1], problems)
        return self._frequent(join_tables(folder, tables, folder / "img_align_celeba", *said, problems))

    def _frequent(self, listing: Listing) -> Listing:
        """Only people with enough pictures."""
        _, codes, counts = np.unique(listing.people, return_inverse=True, return_counts=True)
        kept = np.flatnonzero(counts[codes] >= self.pictures)
        if not len(kept):
            most = counts.max(initial=0)
            where = f"{self.option_owner}: nobody has {self.pictures} pictures; the most is {most}"
            raise problem_error("too few images", where, "Lower option pictures.")
        paths = [listing.paths[row] for row in kept]
        return listing._replace(paths=paths, people=listing.people[kept], attributes=listing.attributes[kept])


COLUMNS = ("Male", "Smiling", "Young")
FIX_ROW = f"Correct the row; or else: {COPY_AGAIN[0].lower()}{COPY_AGAIN[1:]}"


class Listing(NamedTuple):
    """Rows of the tables."""

    folder: Path
    """Below which everything lies that was read."""
    tables: list[Path]
    paths: list[Path]
    people: NDArray[np.int64]
    attributes: NDArray[np.int64]
    """(N, 3): male, smiling, young."""


def read_identities(path: Path, problems: list[Problem]) -> dict[str, int]:
    """Picture names to identities: rows ``<i>.jpg <identity>``.

    Args:
        path: The table.
        problems: Where rows are put that are otherwise, or that contradict an earlier one.

    Raises:
        FileProblems: The table cannot be read.
    """
    found: dict[str, int] = {}
    for number, fields in enumerate(_lines(path), 1):
        if len(fields) != 2 or not fields[1].isdecimal():
            where = f"row {number} of {path} is {' '.join(fields)!r}; expected is '<i>.jpg <identity>'"
            problems.append(_wrong_row(where))
        elif found.setdefault(fields[0], int(fields[1])) != int(fields[1]):
            problems.append(_two_people(path, number, fields[0], found[fields[0]], fields[1]))
    return found


def read_attributes(path: Path, problems: list[Problem]) -> dict[str, tuple[int, ...]]:
    """Picture names to (male, smiling, young): a count, the names of the attributes, and rows of 1 and -1.

    Args:
        path: The table.
        problems: Where rows are put that are otherwise.

    Raises:
        FileProblems: The table cannot be read, or an attribute is missing.
    """
    lines = _lines(path)
    names = lines[1] if len(lines) > 1 else []
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        where = f"{path} does not name {', '.join(missing)} in its second line"
        raise problem_error("wrong table", where, COPY_AGAIN)
    found = {}
    for number, fields in enumerate(lines[2:], 3):
        if len(fields) != len(names) + 1 or set(fields[1:]) - {"1", "-1"}:
            problems.append(_wrong_row(f"row {number} of {path} has not a name and {len(names)} values of 1 and -1"))
            continue
        found[fields[0]] = tuple(int(fields[1 + names.index(name)] == "1") for name in COLUMNS)
    promised, rows = lines[0][0], len(lines) - 2
    if not promised.isdecimal() or int(promised) != rows:
        where = f"{path} promises {promised} rows in its first line and has {rows}"
        problems.append(Problem("wrong table", where, COPY_AGAIN))
    return found


def read_selection(path: Path, problems: list[Problem]) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Identities and attributes out of one table; pictures in which not exactly one face was found are passed over.

    Args:
        path: The table.
        problems: Where rows are put in which a value is no number, or that contradict an earlier one.

    Raises:
        FileProblems: The table cannot be read, or a column is missing.
    """
    identities: dict[str, int] = {}
    attributes: dict[str, tuple[int, ...]] = {}
    for row in read_table(path, ("image", "identity", *COLUMNS), ("face_detected", "n_faces"), problems):
        if (row.values.get("face_detected", "1"), row.values.get("n_faces", "1")) != ("1", "1"):
            continue
        image, who = row.values["image"], row.values["identity"]
        values = [row.values[name] for name in COLUMNS]
        if not who.isdecimal() or set(values) - {"0", "1"}:
            where = f"row {row.number} of {path}: identity must be a number, {', '.join(COLUMNS)} 0 or 1"
            problems.append(_wrong_row(where))
        elif identities.setdefault(image, int(who)) != int(who):
            problems.append(_two_people(path, row.number, image, identities[image], who))
        else:
            attributes[image] = tuple(int(value) for value in values)
    return identities, attributes


def join_tables(
    folder: Path,
    tables: list[Path],
    images: Path,
    identities: Mapping[str, int],
    attributes: Mapping[str, tuple[int, ...]],
    problems: list[Problem],
) -> Listing:
    """Pictures with identity, attributes and file, in the order of their numbers.

    Args:
        folder: Below which everything lies.
        tables: The tables, for messages.
        images: The folder of the pictures.
        identities: Picture names to identities.
        attributes: Picture names to attributes.
        problems: Where pictures are put that have no attributes, or no file.
    """
    names = sorted(identities, key=lambda name: (len(name), name))
    there = {path.name for path in images.iterdir()} if images.is_dir() else set()
    for name in names:
        if name not in attributes:
            where = f"{name} has an identity in {tables[0]} but no attributes"
            problems.append(Problem("missing attributes", where, f"Copy {tables[-1].name} again, or drop its row."))
        if name not in there:
            where = f"{tables[0]} names {name}, and there is no {images / name}"
            problems.append(Problem("missing file", where, "Put the picture there, or take its row out."))
    names = [name for name in names if name in attributes and name in there]
    return Listing(
        folder=folder,
        tables=tables,
        paths=[images / name for name in names],
        people=np.array([identities[name] for name in names], dtype=np.int64),
        attributes=np.array([attributes[name] for name in names], dtype=np.int64).reshape(-1, len(COLUMNS)),
    )


def _wrong_row(where: str) -> Problem:
    return Problem("wrong row", where, FIX_ROW)


def _two_people(path: Path, number: int, image: str, first: int, second: str) -> Problem:
    where = f"row {number} of {path} gives {image} identity {second}; an earlier row gives it {first}"
    return Problem("picture of two people", where, "Keep the row that is right.")


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not in UTF-8"
        raise problem_error("wrong table", f"{path} cannot be read as a table: {reason}", COPY_AGAIN) from error
