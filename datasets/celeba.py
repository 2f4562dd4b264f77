"""CelebA and MUCAC: images of celebrities with identities, labeled male, smiling and young."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import TargetShape, load_images, relative_name
from forgetbench.datasets._identity_splits import PeopleLoader, sample_validation_people
from forgetbench.datasets._sampling import connected_groups
from forgetbench.datasets._tables import category, read_table
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.problems import COPY_AGAIN, Problem, problem_error
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.options import option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


ATTRIBUTES = ("male", "smiling", "young")
CLASSES = {
    "attributes": ATTRIBUTES,
    "male": ("female", "male"),
    "smiling": ("not smiling", "smiling"),
    "young": ("not young", "young"),
}
IDENTITY_RANGES = {"test": (0, 190), "train": (190, 4855), "unseen": (4855, 6217)}
"""Part -> first identity and the one after the last, of MUCAC as published."""
FORGET_IDENTITIES = (190, 1250)
"""First identity of MUCAC's published forget set, and the one after the last."""
PUBLISHED = (30000, 6217)
"""Numbers of images and people of MUCAC as published."""
COLUMNS = ("Male", "Smiling", "Young")
TABLES = ("identity_CelebA", "list_attr_celeba")
FIX_ROW = f"Correct the row, or else: {COPY_AGAIN[0].lower()}{COPY_AGAIN[1:]}"


class Listing(NamedTuple):
    """Images with their labels, according to the tables."""

    folder: Path
    """Folder that contains all files."""
    tables: list[Path]
    paths: list[Path]
    people: NDArray[np.int64]
    attributes: NDArray[np.int64]
    """(N, 3): male, smiling, young."""


@dataclass(frozen=True, kw_only=True)
class AttributeLoader(PeopleLoader):
    """Base of image sets of people with the attributes male, smiling and young."""

    labels: Literal["attributes", "male", "smiling", "young"] = option(
        "attributes", "All three attributes at once, or one of them as two classes."
    )
    size: int = option(128, "Side of an image in pixels.", ge=8, le=512)

    @abstractmethod
    def _listing(self, root: Path | None, problems: list[Problem]) -> Listing:
        """Read the tables."""

    def _image_set(self, listing: Listing, problems: list[Problem]) -> ImageSet:
        images, rows = load_images(listing.folder, listing.paths, TargetShape(3, self.size, "crop"), problems)
        attributes = listing.attributes[rows]
        return ImageSet(
            images=images,
            labels=attributes if self.labels == "attributes" else attributes[:, ATTRIBUTES.index(self.labels)],
            classes=CLASSES[self.labels],
            identities=listing.people[rows],
            sources=tuple(relative_name(listing.folder, listing.paths[row]) for row in rows),
        )


@datasets.register("mucac")
@dataclass(frozen=True, kw_only=True)
class Mucac(AttributeLoader):
    """MUCAC: CelebA-HQ with identities (Choi and Na 2023).

    ``legacy`` is the published split by ranges of identity numbers, whose parts differ in distribution: test people
    have 10.9 images on average, unseen people 1.5. It was published without a validation set: some of the people who
    would be retained are used for validation, so that fewer images are retained than were published. ``person`` draws
    whole people at random.
    """

    split: Literal["legacy", "person"] = option("person", "As published by identity number, or by people at random.")
    validation: float = option(
        0.1, "Fraction of all people ('person'), or of the retained people, to validate on instead.", gt=0, lt=0.5
    )

    card: ClassVar[DatasetCard] = DatasetCard(
        name="mucac",
        title="MUCAC",
        description="CelebA-HQ: 30,000 face images of 6,217 celebrities, labeled male, smiling and young. It was "
        "published without a validation set: people who would be retained are used for validation, so that fewer are "
        "retained than were published.",
        license="CelebA terms: non-commercial research only, no redistribution",
        homepage="https://github.com/ndb796/MachineUnlearning",
        citation="D. Choi, D. Na (2023). Toward Machine Unlearning Benchmarks; T. Karras et al. (2018), CelebA-HQ",
        restricted=True,
        people=True,
        layout="CelebAMask-HQ/ (or mucac/) with CelebA-HQ-img/<i>.jpg, CelebA-HQ-identity.txt, CelebA-HQ-attribute.txt",
        obtain="Request CelebAMask-HQ at https://github.com/switchablenorms/CelebAMask-HQ; the tables are MUCAC's.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the tables and the images.

        Raises:
            ImageSetError: A table is missing, or its header is wrong.
        """
        whole = self._image_set(self._listing(root, problems), problems)
        if self.split == "person":
            return self.split_by_person(whole, (self.validation, 0.1, 0.1))
        identities = whole.identities
        assert identities is not None  # noqa: S101 (made with identities)
        rows = {
            name: np.flatnonzero((identities >= low) & (identities < high))
            for name, (low, high) in IDENTITY_RANGES.items()
        }
        forget = (identities >= FORGET_IDENTITIES[0]) & (identities < FORGET_IDENTITIES[1])
        excluded = forget | ~np.isin(np.arange(len(identities)), rows["train"])
        people = connected_groups(identities, whole.first_copy)
        rng = make_rng("mucac", "validation", self.seed)
        validation = sample_validation_people(people, excluded, self.validation, rng)
        train = np.setdiff1d(rows["train"], validation)
        return Partition(
            name="mucac",
            train=whole.take(train),
            validation=whole.take(validation),
            test=whole.take(rows["test"]),
            unseen=whole.take(rows["unseen"]),
            card=self.card,
            forget_lists={"published": np.flatnonzero(forget[train])},
        )

    def compare_with_published(self, root: Path | None) -> list[str]:
        """Report numbers of images and people that differ from the published ones."""
        listing = self._listing(root, [])
        counts = (("images", len(listing.paths)), ("people", len(np.unique(listing.people))))
        return [
            f"{listing.tables[0]} names {count:,} {what}; the published table names {published:,}"
            for (what, count), published in zip(counts, PUBLISHED, strict=True)
            if count != published
        ]

    def _listing(self, root: Path | None, problems: list[Problem]) -> Listing:
        folder = self.find_folder(root, "CelebAMask-HQ", "mucac", expects="CelebA-HQ-identity.txt")
        tables = [folder / "CelebA-HQ-identity.txt", folder / "CelebA-HQ-attribute.txt"]
        identities, attributes = read_identities(tables[0], problems), read_attributes(tables[1], problems)
        return join_tables(folder, tables, folder / "CelebA-HQ-img", identities, attributes, problems)


@datasets.register("celeba")
@dataclass(frozen=True, kw_only=True)
class Celeba(AttributeLoader):
    """CelebA with its own identity and attribute files, or a selection of it in one table.

    People with few images are left out; parts consist of whole people drawn at random.
    """

    pictures: int = option(10, "Least number of images of a person.", ge=1)
    validation: float = option(0.1, "Fraction of the people to validate on.", gt=0, lt=0.5)
    test: float = option(0.2, "Fraction of the people to test on; as many are unseen.", gt=0, lt=0.4)

    card: ClassVar[DatasetCard] = DatasetCard(
        name="celeba",
        title="CelebA",
        description="202,599 face images of 10,177 celebrities, labeled male, smiling and young (of 40 attributes).",
        license="CelebA terms: non-commercial research only, no redistribution",
        homepage="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        citation="Z. Liu, P. Luo, X. Wang, X. Tang (2015). Deep Learning Face Attributes in the Wild",
        restricted=True,
        people=True,
        layout="celeba/ with img_align_celeba/<i>.jpg, identity_CelebA.txt and list_attr_celeba.txt (or .csv); or "
        "<i>.jpg and labels.csv with the columns image, identity, Male, Smiling, Young",
        obtain="Request it at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the tables and the images.

        Raises:
            ImageSetError: A table is missing, its header is wrong, or no person has enough images.
        """
        whole = self._image_set(self._listing(root, problems), problems)
        return self.split_by_person(whole, (self.validation, self.test, self.test))

    def _listing(self, root: Path | None, problems: list[Problem]) -> Listing:
        for folder in () if root is None else (root / "celeba", root / "celeba299", root):
            table = folder / "labels.csv"
            if any(_table(folder, stem) for stem in TABLES):
                break
            if table.is_file():
                identities, attributes = read_selection(table, problems)
                return self._frequent_people(join_tables(folder, [table], folder, identities, attributes, problems))
        folder, tables = self._own_tables(root)
        identities, attributes = read_identities(tables[0], problems), read_attributes(tables[1], problems)
        images = folder / "img_align_celeba"
        if (images / images.name).is_dir():  # as Kaggle's archive is unpacked
            images = images / images.name
        return self._frequent_people(join_tables(folder, tables, images, identities, attributes, problems))

    def _own_tables(self, root: Path | None) -> tuple[Path, list[Path]]:
        """Return the folder with CelebA's tables of identities and attributes, as text or, from Kaggle, as CSV."""
        for folder in () if root is None else (root / "celeba", root):
            found = {stem: _table(folder, stem) for stem in TABLES}
            if all(found.values()):
                return folder, [table for table in found.values() if table]
            if found["list_attr_celeba"]:
                message = (
                    f"{folder} has {found['list_attr_celeba'].name}, but no identity_CelebA.txt, which says who is in "
                    "an image; Kaggle's copy of CelebA lacks it"
                )
                fix = f"Get identity_CelebA.txt (in Anno) from {self.card.homepage}, and put it there."
                raise problem_error("missing image set", message, fix)
            if found["identity_CelebA"]:
                raise self.missing_files(root, f"{folder} has no list_attr_celeba.txt or .csv")
        tables = [f"{stem}{suffix}" for suffix in (".txt", ".csv") for stem in TABLES]
        raise self.not_found(root, ("celeba",), tables)

    def _frequent_people(self, listing: Listing) -> Listing:
        """Return only people with enough images."""
        _, codes, counts = np.unique(listing.people, return_inverse=True, return_counts=True)
        rows = np.flatnonzero(counts[codes] >= self.pictures)
        if not len(rows):
            most = counts.max(initial=0)
            message = f"{self.option_owner}: no person has {self.pictures} images; the most is {most}"
            raise problem_error("too few images", message, "Reduce option pictures.")
        paths = [listing.paths[row] for row in rows]
        return listing._replace(paths=paths, people=listing.people[rows], attributes=listing.attributes[rows])


def read_identities(path: Path, problems: list[Problem]) -> dict[str, int]:
    """Read a table of rows ``<i>.jpg <identity>``, or the same with a comma and optionally a header.

    Args:
        path: The table.
        problems: List to which malformed and contradictory rows are appended.

    Returns:
        Image name -> identity.

    Raises:
        ImageSetError: The table cannot be read.
    """
    identities: dict[str, int] = {}
    lines = _read_lines(path)
    first = 2 if lines and path.suffix == ".csv" and not lines[0][-1].isdecimal() else 1
    for number, fields in enumerate(lines[first - 1 :], first):
        if len(fields) != 2 or not fields[1].isdecimal():
            message = f"row {number} of {path} is {' '.join(fields)!r}; expected is '<i>.jpg <identity>'"
            problems.append(_wrong_row(message))
        elif identities.setdefault(fields[0], int(fields[1])) != int(fields[1]):
            problems.append(_two_identities(path, number, fields[0], identities[fields[0]], fields[1]))
    return identities


def read_attributes(path: Path, problems: list[Problem]) -> dict[str, tuple[int, ...]]:
    """Read a table of attributes: a count, the names of the attributes, and rows of 1 and -1.

    CSV files, as Kaggle has them, have no count, and name the attributes after the column of the images.

    Args:
        path: The table.
        problems: List to which malformed rows are appended.

    Returns:
        Image name -> (male, smiling, young), 0 or 1 each.

    Raises:
        ImageSetError: The table cannot be read, or an attribute is missing.
    """
    lines = _read_lines(path)
    is_csv = bool(lines) and set(COLUMNS) <= set(lines[0])
    start = 1 if is_csv else 2
    names = lines[0][1:] if is_csv else lines[1] if len(lines) > 1 else []
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        message = f"{path} does not name {', '.join(missing)} in its first two lines"
        raise problem_error("wrong table", message, COPY_AGAIN)
    attributes = {}
    for number, fields in enumerate(lines[start:], start + 1):
        if len(fields) != len(names) + 1 or set(fields[1:]) - {"1", "-1"}:
            problems.append(_wrong_row(f"row {number} of {path} is not a name and {len(names)} values of 1 or -1"))
            continue
        attributes[fields[0]] = tuple(int(fields[1 + names.index(name)] == "1") for name in COLUMNS)
    count, rows = lines[0][0], len(lines) - start
    if not is_csv and (not count.isdecimal() or int(count) != rows):
        message = f"the first line of {path} says {count} rows, but there are {rows}"
        problems.append(Problem("wrong table", message, COPY_AGAIN))
    return attributes


def read_selection(path: Path, problems: list[Problem]) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Read identities and attributes from one table; images with no detected face or several are left out.

    Args:
        path: The table.
        problems: List to which malformed and contradictory rows are appended.

    Returns:
        Image name -> identity, and image name -> (male, smiling, young).

    Raises:
        ImageSetError: The table cannot be read, or a column is missing.
    """
    identities: dict[str, int] = {}
    attributes: dict[str, tuple[int, ...]] = {}
    for row in read_table(path, ("image", "identity", *COLUMNS), ("face_detected", "n_faces"), problems):
        if [category(row.values.get(name, "1")) for name in ("face_detected", "n_faces")] != ["1", "1"]:
            continue
        image, identity = row.values["image"], category(row.values["identity"])
        values = [category(row.values[name]) for name in COLUMNS]
        if not identity.isdecimal() or set(values) - {"0", "1"}:
            message = f"row {row.number} of {path}: identity must be a number, and {', '.join(COLUMNS)} 0 or 1"
            problems.append(_wrong_row(message))
        elif identities.setdefault(image, int(identity)) != int(identity):
            problems.append(_two_identities(path, row.number, image, identities[image], identity))
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
    """Join identities, attributes and files of images, in the order of their numbers.

    Args:
        folder: Folder that contains all files.
        tables: The tables, for messages.
        images: Folder of the images.
        identities: Image name -> identity.
        attributes: Image name -> attributes.
        problems: List to which images without attributes or file are appended.
    """
    names = sorted(identities, key=lambda name: (len(name), name))
    files = {path.name for path in images.iterdir()} if images.is_dir() else set()
    for name in names:
        if name not in attributes:
            message = f"{name} has an identity in {tables[0]} but no attributes"
            problems.append(Problem("missing attributes", message, f"Copy {tables[-1].name} again, or remove the row."))
        if name not in files:
            message = f"{tables[0]} names {name}, but {images / name} does not exist"
            problems.append(Problem("missing file", message, "Add the image, or remove its row."))
    names = [name for name in names if name in attributes and name in files]
    return Listing(
        folder=folder,
        tables=tables,
        paths=[images / name for name in names],
        people=np.array([identities[name] for name in names], dtype=np.int64),
        attributes=np.array([attributes[name] for name in names], dtype=np.int64).reshape(-1, len(COLUMNS)),
    )


def _table(folder: Path, stem: str) -> Path | None:
    """Return a table as text or CSV; None if there is neither."""
    return next((path for path in (folder / f"{stem}.txt", folder / f"{stem}.csv") if path.is_file()), None)


def _wrong_row(message: str) -> Problem:
    return Problem("wrong row", message, FIX_ROW)


def _two_identities(path: Path, number: int, image: str, first: int, second: str) -> Problem:
    message = f"row {number} of {path} gives {image} identity {second}; an earlier row gives it {first}"
    return Problem("image of two people", message, "Remove the wrong row.")


def _read_lines(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig").replace(",", " ")
        return [fields for line in text.splitlines() if (fields := line.split())]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not in UTF-8"
        raise problem_error("wrong table", f"{path} cannot be read as a table: {reason}", COPY_AGAIN) from error
