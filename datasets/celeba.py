"""CelebA and MUCAC: celebrities with their identities, labelled male, smiling and young."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from forgetbench.datasets.base import generator, option
from forgetbench.datasets.celeba_tables import Listing, join_tables, read_attributes, read_identities, read_selection
from forgetbench.datasets.files import Shape, below, resident
from forgetbench.datasets.held_back import held_back
from forgetbench.datasets.images import DatasetCard, ImageSet, Partition
from forgetbench.datasets.people import PeopleLoader
from forgetbench.datasets.problems import Problem, problem_error
from forgetbench.datasets.sampling import joined_groups

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
