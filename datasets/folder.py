"""Anybody's own images: class folders, or a table of paths and labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets.base import generator, option
from forgetbench.datasets.files import Shape, files_of_rows, image_paths, read_table, resident
from forgetbench.datasets.images import DatasetCard, ImageSet, Partition
from forgetbench.datasets.people import PeopleLoader
from forgetbench.datasets.sampling import stratified_parts
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("train", "validation", "test", "unseen")


class Entry(NamedTuple):
    """One image of the folder; empty texts where nothing is known."""

    path: Path
    label: str
    identity: str = ""
    part: str = ""


@dataclass(frozen=True, kw_only=True)
class Folder(PeopleLoader):
    """Images in class folders, or listed in a table of path, label and, if known, identity and split.

    Without a split, images are divided at random: by person where identities are known and are not the labels,
    else by class.
    """

    path: str = option("", "The folder, below the data folder or absolute; none: the data folder itself.")
    table: str = option("", "The table in that folder; none: labels.csv, or class folders where that is missing.")
    grey: bool = option(False, "One channel instead of three.")
    fit: Literal["crop", "stretch"] = option(
        "crop", "How a picture of another shape becomes a square: 'crop' its middle, or 'stretch'."
    )
    validation: float = option(0.1, "Share of the images, or of the people, for validation.", gt=0, lt=0.5)
    test: float = option(0.2, "Share of images, or of people, to test on; as many people are unseen.", gt=0, lt=0.5)

    card: ClassVar[DatasetCard] = DatasetCard(
        name="folder",
        title="Your own images",
        description="Any images in class folders, or listed in a table with labels and, if known, people and parts.",
        licence="yours to know",
        layout="<class>/<image>, or {train,validation,test,unseen}/<class>/<image>, or labels.csv with the columns "
        "path, label[, identity][, split]",
        obtain="Put your images in a folder.",
    )

    def load(self, root: Path | None) -> Partition:
        """Read the images.

        Raises:
            UsageError: Folder, table or image are missing or wrong; the message names the row or the file.
        """
        folder = self._folder(root)
        entries = self._entries(folder)
        classes = _names([entry.label for entry in entries])
        if len(classes) < 2:
            raise UsageError(f"{folder} has one class only, {classes[0]!r}; two are needed.")
        known = [entry.identity for entry in entries if entry.identity]
        who = _names(known)
        whole = ImageSet(
            images=resident(folder, [entry.path for entry in entries], self._shape()),
            labels=_numbers([entry.label for entry in entries], classes),
            classes=classes,
            identities=_numbers([entry.identity for entry in entries], who) if who else None,
            people=who,
        )
        if any(entry.part for entry in entries):
            return self._as_given(whole, np.array([entry.part for entry in entries]), folder)
        if whole.identities is not None and not _same_people(whole):
            return self.by_person(whole, (self.validation, self.test, self.test))
        return self.within_person(whole, (self.validation, self.test))

    def _shape(self) -> Shape:
        return Shape(1 if self.grey else 3, self.size, self.fit)

    def _folder(self, root: Path | None) -> Path:
        folder = (root or Path()) / self.path
        if (root is None and not self.path) or not folder.is_dir() or not any(folder.iterdir()):
            found = f"{folder} is no folder with files" if root or self.path else "no folder was named"
            raise UsageError(
                f"Image set 'folder' needs images, and {found}. {self.card.obtain} Expected is {self.card.layout}; "
                "name the folder with --root, or with option path."
            )
        return folder

    def _table(self, folder: Path) -> Path:
        return folder / (self.table or "labels.csv")

    def _entries(self, folder: Path) -> list[Entry]:
        table = self._table(folder)
        entries = _of_table(table, folder) if self.table or table.is_file() else _of_folders(folder)
        if not entries:
            raise UsageError(f"There is no image below {folder}. Expected is {self.card.layout}.")
        return entries

    def _as_given(self, whole: ImageSet, parts: np.ndarray, folder: Path) -> Partition:
        rows = {part: np.flatnonzero(parts == part) for part in PARTS}
        for part in ("train", "test"):
            if not len(rows[part]):
                raise UsageError(f"{folder} has parts, but none of its images is in part {part!r}.")
        if not len(rows["validation"]):
            count = max(1, round(self.validation * len(rows["train"])))
            rng = generator("folder", "validation", self.seed)
            taken, left = stratified_parts(whole.labels[rows["train"]], [count, len(rows["train"]) - count], rng)
            rows["validation"], rows["train"] = rows["train"][taken], rows["train"][left]
        untaught = sorted(set(whole.labels.tolist()) - set(whole.labels[rows["train"]].tolist()))
        if untaught:
            names = ", ".join(whole.classes[label] for label in untaught)
            raise UsageError(f"{folder}: no training image shows {names}; every class needs some.")
        train, validation, test, unseen = (whole.take(rows[part]) for part in PARTS)
        return Partition("folder", train, validation, test, unseen if len(unseen) else None, self.card)


def _of_table(table: Path, folder: Path) -> list[Entry]:
    """The rows of a table; each names a file, a label, and a part that there is."""
    rows = read_table(table, ("path", "label"), ("identity", "split"))
    found = files_of_rows(table, rows, folder, "path")
    entries = []
    for row, file in zip(rows, found, strict=True):
        part, identity = row.values.get("split", ""), row.values.get("identity", "")
        if not row.values["label"]:
            raise UsageError(f"row {row.number} of {table} has no label.")
        if "split" in row.values and part not in PARTS:
            raise UsageError(f"row {row.number} of {table} has split {part!r}; it must be one of {', '.join(PARTS)}.")
        if "identity" in row.values and not identity:
            raise UsageError(f"row {row.number} of {table} has no identity; name everybody, or drop the column.")
        entries.append(Entry(Path(str(file.content)), row.values["label"], identity, part))
    return entries


def _of_folders(folder: Path) -> list[Entry]:
    """Images in class folders, which may lie in folders named after the parts."""
    parts = [name for name in PARTS if (folder / name).is_dir()] if (folder / "train").is_dir() else [""]
    entries = []
    for part in parts:
        base = folder / part
        for path in image_paths(base):
            inside = path.relative_to(base).parts
            if len(inside) < 2:
                raise UsageError(f"{path} lies in no class folder: put it in {base / '<class>'}.")
            entries.append(Entry(path, inside[0], part=part))
    return entries


def _names(values: Sequence[str]) -> tuple[str, ...]:
    """All different values, sorted; as numbers where all are numbers."""
    names = set(values)
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names))


def _numbers(values: Sequence[str], names: Sequence[str]) -> np.ndarray:
    number = {name: place for place, name in enumerate(names)}
    return np.array([number[value] for value in values], dtype=np.int64)


def _same_people(whole: ImageSet) -> bool:
    """Whether the labels are the people."""
    pairs = {(int(a), int(b)) for a, b in zip(whole.labels, whole.identities, strict=True)}  # type: ignore[arg-type]
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
