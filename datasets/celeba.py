"""CelebA and MUCAC: celebrities with their identities, labelled male, smiling and young."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets.base import generator, option
from forgetbench.datasets.files import FileProblems, Shape, read_table, resident
from forgetbench.datasets.held_back import held_back
from forgetbench.datasets.images import DatasetCard, ImageSet, Partition
from forgetbench.datasets.people import PeopleLoader
from forgetbench.datasets.sampling import joined_groups
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ATTRIBUTES = ("male", "smiling", "young")
COLUMNS = ("Male", "Smiling", "Young")
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


class Listing(NamedTuple):
    """Rows of the tables."""

    folder: Path
    """Below which everything lies that was read."""
    tables: list[Path]
    paths: list[Path]
    people: NDArray[np.int64]
    attributes: NDArray[np.int64]
    """(N, 3): male, smiling, young."""


@dataclass(frozen=True, kw_only=True)
class AttributeLoader(PeopleLoader):
    """Base of sets of people with the attributes male, smiling and young."""

    labels: Literal["attributes", "male", "smiling", "young"] = option(
        "attributes", "All three attributes at once, or one of them as two classes."
    )
    size: int = option(128, "Side of a picture, pixels.", ge=8, le=512)

    @abstractmethod
    def _listing(self, root: Path | None) -> Listing: ...

    def _image_set(self, listing: Listing) -> ImageSet:
        one = self.labels != "attributes"
        return ImageSet(
            images=resident(listing.folder, listing.paths, Shape(3, self.size, "crop")),
            labels=listing.attributes[:, ATTRIBUTES.index(self.labels)] if one else listing.attributes,
            classes=CLASSES[self.labels],
            identities=listing.people,
        )


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
        description="CelebA-HQ: 30,000 face pictures of 6,217 celebrities, labelled male, smiling and young. "
        "As published there is no validation set: people who would be retained are held back for it, so that fewer are "
        "retained than were published.",
        licence="CelebA terms: non-commercial research only, no redistribution",
        homepage="https://github.com/ndb796/MachineUnlearning",
        citation="D. Choi, D. Na (2023). Towards Machine Unlearning Benchmarks; T. Karras et al. (2018), CelebA-HQ",
        restricted=True,
        people=True,
        layout="CelebAMask-HQ/ (or mucac/) with CelebA-HQ-img/<i>.jpg, CelebA-HQ-identity.txt, CelebA-HQ-attribute.txt",
        obtain="Ask for CelebAMask-HQ at https://github.com/switchablenorms/CelebAMask-HQ; the two tables are MUCAC's.",
    )

    def load(self, root: Path | None) -> Partition:
        """Read the tables and the pictures.

        Raises:
            UsageError: Files are missing, a row is wrong, or a picture cannot be read.
        """
        whole = self._image_set(self._listing(root))
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
        listing = self._listing(root)
        counts = (("pictures", len(listing.paths)), ("people", len(np.unique(listing.people))))
        return [
            f"{listing.tables[0]} names {count:,} {what}; as published, it names {wanted:,}"
            for (what, count), wanted in zip(counts, PUBLISHED, strict=True)
            if count != wanted
        ]

    def _listing(self, root: Path | None) -> Listing:
        folder = self.folder(root, "CelebAMask-HQ", "mucac", expects="CelebA-HQ-identity.txt")
        tables = [folder / "CelebA-HQ-identity.txt", folder / "CelebA-HQ-attribute.txt"]
        identities, attributes = read_identities(tables[0]), read_attributes(tables[1])
        return join_tables(folder, tables, folder / "CelebA-HQ-img", identities, attributes)


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
        description="202,599 face pictures of 10,177 celebrities, labelled male, smiling and young (of 40 attributes).",
        licence="CelebA terms: non-commercial research only, no redistribution",
        homepage="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        citation="Z. Liu, P. Luo, X. Wang, X. Tang (2015). Deep Learning Face Attributes in the Wild",
        restricted=True,
        people=True,
        layout="celeba/ with img_align_celeba/<i>.jpg, identity_CelebA.txt and list_attr_celeba.txt; or <i>.jpg and "
        "labels.csv with the columns image, identity, Male, Smiling, Young",
        obtain="Ask for it at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.",
    )

    def load(self, root: Path | None) -> Partition:
        """Read the tables and the pictures.

        Raises:
            UsageError: Files are missing, a row is wrong, or a picture cannot be read.
        """
        return self.by_person(self._image_set(self._listing(root)), (self.validation, self.test, self.test))

    def _listing(self, root: Path | None) -> Listing:
        for folder in () if root is None else (root / "celeba", root / "celeba299", root):
            if (folder / "labels.csv").is_file() and not (folder / "identity_CelebA.txt").is_file():
                table = folder / "labels.csv"
                return self._frequent(join_tables(folder, [table], folder, *read_selection(table)))
        folder = self.folder(root, "celeba", expects="identity_CelebA.txt")
        tables = [folder / "identity_CelebA.txt", folder / "list_attr_celeba.txt"]
        identities, attributes = read_identities(tables[0]), read_attributes(tables[1])
        return self._frequent(join_tables(folder, tables, folder / "img_align_celeba", identities, attributes))

    def _frequent(self, listing: Listing) -> Listing:
        """Only people with enough pictures."""
        _, codes, counts = np.unique(listing.people, return_inverse=True, return_counts=True)
        kept = np.flatnonzero(counts[codes] >= self.pictures)
        if not len(kept):
            raise UsageError(f"{self.option_owner}: nobody has {self.pictures} pictures; the most is {counts.max()}.")
        paths = [listing.paths[row] for row in kept]
        return listing._replace(paths=paths, people=listing.people[kept], attributes=listing.attributes[kept])


def read_identities(path: Path) -> dict[str, int]:
    """Picture names to identities: rows ``<i>.jpg <identity>``.

    Raises:
        UsageError: A row is otherwise.
    """
    found = {}
    for number, fields in enumerate(_lines(path), 1):
        if len(fields) != 2 or not fields[1].isdecimal():
            raise UsageError(f"row {number} of {path} is {' '.join(fields)!r}; expected is '<i>.jpg <identity>'.")
        found[fields[0]] = int(fields[1])
    return found


def read_attributes(path: Path) -> dict[str, tuple[int, ...]]:
    """Picture names to (male, smiling, young): a count, the names of the attributes, and rows of 1 and -1.

    Raises:
        UsageError: An attribute is missing, or a row is otherwise.
    """
    lines = _lines(path)
    names = lines[1] if len(lines) > 1 else []
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise UsageError(f"{path} does not name {', '.join(missing)} in its second line.")
    found = {}
    for number, fields in enumerate(lines[2:], 3):
        if len(fields) != len(names) + 1 or set(fields[1:]) - {"1", "-1"}:
            raise UsageError(f"row {number} of {path} has not a name and {len(names)} values of 1 and -1.")
        found[fields[0]] = tuple(int(fields[1 + names.index(name)] == "1") for name in COLUMNS)
    if not lines[0][0].isdecimal() or int(lines[0][0]) != len(found):
        raise UsageError(f"{path} promises {lines[0][0]} rows in its first line and has {len(found)}; copy it again.")
    return found


def read_selection(path: Path) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Identities and attributes out of one table; pictures in which not exactly one face was found are passed over.

    Raises:
        UsageError: A column is missing, or a value is no number.
    """
    identities, attributes = {}, {}
    for row in read_table(path, ("image", "identity", *COLUMNS), ("face_detected", "n_faces")):
        if (row.values.get("face_detected", "1"), row.values.get("n_faces", "1")) != ("1", "1"):
            continue
        values = [row.values[name] for name in COLUMNS]
        if not row.values["identity"].isdecimal() or set(values) - {"0", "1"}:
            raise UsageError(f"row {row.number} of {path}: identity must be a number, {', '.join(COLUMNS)} 0 or 1.")
        identities[row.values["image"]] = int(row.values["identity"])
        attributes[row.values["image"]] = tuple(int(value) for value in values)
    return identities, attributes


def join_tables(
    folder: Path, tables: list[Path], images: Path, identities: dict[str, int], attributes: dict[str, tuple[int, ...]]
) -> Listing:
    """Pictures with identity, attributes and file, in the order of their numbers.

    Raises:
        FileProblems: Pictures have no attributes, or no file.
    """
    names = sorted(identities, key=lambda name: (len(name), name))
    there = {path.name for path in images.iterdir()} if images.is_dir() else set()
    without = [f"{name} has an identity in {tables[0]} but no attributes" for name in names if name not in attributes]
    missing = [f"{tables[0]} names {name}, and there is no {images / name}" for name in names if name not in there]
    problems = without + missing
    if problems:
        raise FileProblems(f"{len(problems)} pictures are incomplete:", problems)
    return Listing(
        folder=folder,
        tables=tables,
        paths=[images / name for name in names],
        people=np.array([identities[name] for name in names], dtype=np.int64),
        attributes=np.array([attributes[name] for name in names], dtype=np.int64),
    )


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a table: {error}") from error
