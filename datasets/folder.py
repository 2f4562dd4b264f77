"""Anybody's own images: class folders, or a table of paths and labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import IMAGE_SUFFIXES, Shape, below, image_paths, resident
from forgetbench.datasets._identity_splits import PeopleLoader, people_are_classes
from forgetbench.datasets._sampling import joined_groups, people_parts, stratified_parts, teach_every_class
from forgetbench.datasets._tables import files_of_rows, read_table
from forgetbench.datasets.base import generator, option
from forgetbench.datasets.problems import Problem, problem_error, too_few
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@datasets.register("folder")
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
        license="yours to know",
        layout="<class>/<image>, or {train,validation,test,unseen}/<class>/<image>, or labels.csv with the columns "
        "path, label[, identity][, split]",
        obtain="Put your images in a folder.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the images.

        Raises:
            UsageError: There is no folder, no image, or only one class.
        """
        folder = self._folder(root)
        entries = self._entries(folder, problems)
        pictures = resident(folder, [entry.path for entry in entries], self._shape(), problems)
        entries = [entries[row] for row in pictures.rows]
        classes = _names([entry.label for entry in entries])
        if len(classes) < 2:
            where = f"{folder} has one class only, {classes[0]!r}"
            raise problem_error("too few classes", where, "Add images of another class; two are needed at least.")
        who = _names([entry.identity for entry in entries if entry.identity])
        whole = ImageSet(
            images=pictures.images,
            labels=_numbers([entry.label for entry in entries], classes),
            classes=classes,
            identities=_numbers([entry.identity for entry in entries], who) if who else None,
            people=who,
            sources=tuple(below(folder, entry.path) for entry in entries),
        )
        if any(entry.part for entry in entries):
            return self._as_given(whole, np.array([entry.part for entry in entries]), folder, problems)
        if whole.identities is not None and not people_are_classes(whole):
            return self.by_person(whole, (self.validation, self.test, self.test))
        return self.within_person(whole, (self.validation, self.test))

    def _shape(self) -> Shape:
        return Shape(1 if self.grey else 3, self.size, self.fit)

    def _folder(self, root: Path | None) -> Path:
        folder = (root or Path()) / self.path
        if (root is None and not self.path) or not folder.is_dir() or not any(folder.iterdir()):
            found = f"{folder} is no folder with files" if root or self.path else "no folder was named"
            raise problem_error(
                "missing set",
                f"Image set 'folder' needs images, and {found}. Expected is {self.card.layout}",
                f"{self.card.obtain} Name it with --root, or with option path.",
            )
        return folder

    def _entries(self, folder: Path, problems: list[Problem]) -> list[Entry]:
        table = folder / (self.table or "labels.csv")
        if self.table or table.is_file():
            return entries_of_table(table, folder, problems)
        entries = entries_of_folders(folder, problems)
        if not entries:
            where = f"There is no image below {folder} in a class folder"
            raise problem_error("no image", where, f"Put images there: expected is {self.card.layout}.")
        return entries

    def _as_given(self, whole: ImageSet, parts: np.ndarray, folder: Path, problems: list[Problem]) -> Partition:
        rows = {part: np.flatnonzero(parts == part) for part in PARTS}
        for part in ("train", "test"):
            if not len(rows[part]):
                where = f"{folder} has parts, but none of its images is in part {part!r}"
                raise problem_error("missing part", where, f"Put images of every class into part {part!r}.")
        if not len(rows["validation"]):
            taken, left = self._validation(whole.take(rows["train"]))
            rows["validation"], rows["train"] = rows["train"][taken], rows["train"][left]
        untaught = sorted(set(whole.labels.tolist()) - set(whole.labels[rows["train"]].tolist()))
        problems += [too_few(whole.classes[label], 0) for label in untaught]
        train, validation, test, unseen = (whole.take(rows[part]) for part in PARTS)
        return Partition("folder", train, validation, test, unseen if len(unseen) else None, self.card)

    def _validation(self, train: ImageSet) -> list[np.ndarray]:
        """Rows for validation, and the others: of whole people where people are known and are not the labels."""
        rng = generator("folder", "validation", self.seed)
        if train.identities is None or people_are_classes(train):
            groups = train.first_copy
            count = max(1, round(self.validation * len(train)))
            parts = stratified_parts(train.labels, [count, len(train) - count], rng, groups)
        else:
            groups = joined_groups(train.identities, train.first_copy)
            try:
                parts = people_parts(groups, [max(1, round(self.validation * (int(groups.max()) + 1)))], rng)
            except UsageError as error:
                where = f"validation people come out of train: {str(error).rstrip('.')}"
                fix = "Name images for validation too, or train on more people."
                raise problem_error("too few people", where, fix) from None
        return teach_every_class(parts, train.labels, groups, train=1)


def _names(values: Sequence[str]) -> tuple[str, ...]:
    """All different values, sorted; as numbers where all are numbers."""
    names = set(values)
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names))


def _numbers(values: Sequence[str], names: Sequence[str]) -> np.ndarray:
    number = {name: place for place, name in enumerate(names)}
    return np.array([number[value] for value in values], dtype=np.int64)


PARTS = ("train", "validation", "test", "unseen")
PART_NAMES = {part: part for part in PARTS} | {"val": "validation", "valid": "validation"}
"""What people call the parts, in small letters."""
FORMATS = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))


class Entry(NamedTuple):
    """One image of the folder; empty texts where nothing is known."""

    path: Path
    label: str
    identity: str = ""
    part: str = ""


def entries_of_table(table: Path, folder: Path, problems: list[Problem]) -> list[Entry]:
    """The good rows of a table; each names a file, a label, and a part that there is.

    Args:
        table: The table.
        folder: What its paths are relative to.
        problems: Where everything is put that is wrong with other rows.

    Raises:
        FileProblems: There is no table, or it lacks a column.
    """
    rows = read_table(table, ("path", "label"), ("identity", "split"), problems)
    found = files_of_rows(table, rows, folder, "path", problems)
    entries = []
    for row, file in zip(rows, found, strict=True):
        part = PART_NAMES.get(row.values.get("split", "").lower(), "")
        wrong = []
        if not row.values["label"]:
            wrong.append(("has no label", "Write the class into column label, or drop the row."))
        if "split" in row.values and not part:
            said = f"has split {row.values['split']!r}; it must be one of {', '.join(PARTS)}"
            wrong.append((said, "Correct it, or drop column split: then images are divided at random."))
        if "identity" in row.values and not row.values["identity"]:
            wrong.append(("has no identity", "Name everybody, or drop column identity."))
        problems += [Problem("wrong row", f"row {row.number} of {table} {said}", fix) for said, fix in wrong]
        if file is not None and not wrong:
            entries.append(Entry(Path(str(file.content)), row.values["label"], row.values.get("identity", ""), part))
    return entries


def entries_of_folders(folder: Path, problems: list[Problem]) -> list[Entry]:
    """Images in class folders, which may lie in folders named after the parts.

    Args:
        folder: The folder.
        problems: Where everything is put that is passed over, or lies where nothing is expected.
    """
    entries = []
    for base, part in _bases(folder, problems):
        for path in image_paths(base):
            inside = path.relative_to(base).parts
            if len(inside) < 2:
                where, fix = f"{path} lies in no class folder", f"Move it into {base / '<class>'}, or take it out."
                problems.append(Problem("stray image", where, fix))
                continue
            entries.append(Entry(path, inside[0], part=part))
        problems += _passed_over(base)
    return entries


def _bases(folder: Path, problems: list[Problem]) -> list[tuple[Path, str]]:
    """The folders that hold class folders, with the parts that they are; the parts in their order."""
    folders = _folders(folder)
    parts = [(path, PART_NAMES[path.name.lower()]) for path in folders if path.name.lower() in PART_NAMES]
    if not any(part == "train" for _, part in parts):
        for path, _ in parts:
            where = f"{path} is taken for a class: it is named like a part, and there is no folder 'train' beside it"
            fix = "Name the folder of the training images 'train', or the class otherwise."
            problems.append(Problem("class named like a part", where, fix, serious=False))
        return [(folder, "")]
    named = {path for path, _ in parts}
    for path in folders:
        if path not in named and image_paths(path):
            names = ", ".join(PART_NAMES)
            where = f"{path} is passed over: beside 'train', folders are parts, and may be called {names}"
            fix = "Rename it, or move it into a part."
            problems.append(Problem("passed over", where, fix, serious=False))
    return sorted(parts, key=lambda found: (PARTS.index(found[1]), found[0]))


def _passed_over(base: Path) -> list[Problem]:
    """Class folders without images, and files in class folders that are of no format that is read."""
    problems = []
    suffixes: Counter[str] = Counter()
    for path in _folders(base):
        if not image_paths(path):
            fix = "Put images into it, or remove it; no class is made of it."
            problems.append(Problem("empty class folder", f"{path} holds no image", fix, serious=False))
        for file in path.rglob("*"):
            hidden = any(part.startswith(".") for part in file.relative_to(base).parts)
            if not hidden and file.suffix.lower() not in IMAGE_SUFFIXES and file.is_file():
                suffixes[file.suffix or "no suffix"] += 1
    if suffixes:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(suffixes.items()))
        where = f"files below {base} are passed over, since they are in no picture format that is read: {counts}"
        fix = f"Save pictures in one of {FORMATS}."
        problems.append(Problem("passed over", where, fix, serious=False))
    return problems


def _folders(base: Path) -> list[Path]:
    return sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))
