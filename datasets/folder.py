"""Image sets of the user: class folders, or a table of paths and labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._files import (
    FolderContents,
    TargetShape,
    ignored_formats,
    is_image,
    load_images,
    relative_name,
    walk_folder,
)
from forgetbench.datasets._identity_splits import PeopleLoader, identities_are_classes
from forgetbench.datasets._sampling import (
    connected_groups,
    ensure_train_covers_classes,
    split_by_group,
    stratified_split,
)
from forgetbench.datasets._tables import category, is_missing, read_table, resolve_files
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.problems import (
    ImageSetError,
    Problem,
    problem_error,
    similar_names,
    summarize_names,
    too_few_images,
)
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.options import option

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("train", "validation", "test", "unseen")
PART_NAMES = {part: part for part in PARTS} | {"val": "validation", "valid": "validation"}
"""Accepted name, in lower case -> part."""
_NO_CLASS_FOLDER = "no class folder"
"""Kind of problem: a folder has images, but none in a class folder."""


class Entry(NamedTuple):
    """One image of the folder; empty texts are unknown."""

    path: Path
    label: str
    identity: str = ""
    part: str = ""


@datasets.register("folder")
@dataclass(frozen=True, kw_only=True)
class Folder(PeopleLoader):
    """Images in class folders, or listed in a table of path, label and optionally identity and split.

    Without a given split, images are split at random: by person if identities are known and are not the labels, and
    otherwise by class.
    """

    path: str = option("", "The folder, in the data folder or absolute; none: the data folder itself.")
    table: str = option("", "The table in that folder; none: labels.csv, or class folders if it does not exist.")
    gray: bool = option(False, "One channel instead of three.", aliases=("grey",))
    fit: Literal["crop", "stretch"] = option(
        "crop", "How an image of another shape becomes a square: 'crop' to its middle, or 'stretch'."
    )
    validation: float = option(0.1, "Fraction of the images, or of the people, for validation.", gt=0, lt=0.5)
    test: float = option(
        0.2, "Fraction of the images, or of the people, to test on; as many people are unseen.", gt=0, lt=0.5
    )

    card: ClassVar[DatasetCard] = DatasetCard(
        name="folder",
        title="Your own images",
        description="Any images in class folders, or listed in a table with labels and optionally people and parts.",
        license="the terms of your images",
        layout="<class>/<image>, or {train,validation,test,unseen}/<class>/<image>, or labels.csv with the columns "
        "path, label[, identity][, split]",
        obtain="Put your images into a folder.",
    )

    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read the images.

        Raises:
            ImageSetError: There is no folder, no image, or only one class.
        """
        folder = self._folder(root)
        entries = self._entries(folder, problems)
        shape = TargetShape(1 if self.gray else 3, self.size, self.fit)
        images, rows = load_images(folder, [entry.path for entry in entries], shape, problems)
        entries = [entries[row] for row in rows]
        classes = _sorted_names([entry.label for entry in entries])
        if len(classes) < 2:
            message = f"{folder} has only one class, {classes[0]!r}"
            inner = "" if self._table(folder) else _folder_inside(folder / classes[0])
            fix = inner or "Add images of another class; at least two are needed."
            raise problem_error("too few classes", message, fix)
        people = _sorted_names([entry.identity for entry in entries if entry.identity])
        problems += similar_names("class", classes) + similar_names("person", people)
        whole = ImageSet(
            images=images,
            labels=_positions([entry.label for entry in entries], classes),
            classes=classes,
            identities=_positions([entry.identity for entry in entries], people) if people else None,
            people=people,
            sources=tuple(relative_name(folder, entry.path) for entry in entries),
        )
        if any(entry.part for entry in entries):
            return self._given_split(whole, np.array([entry.part for entry in entries]), folder, problems)
        if whole.identities is not None and not identities_are_classes(whole):
            return self.split_by_person(whole, (self.validation, self.test, self.test))
        return self.split_within_person(whole, (self.validation, self.test))

    def _folder(self, root: Path | None) -> Path:
        folder = (root or Path()) / self.path
        if (root is None and not self.path) or not folder.is_dir() or not any(folder.iterdir()):
            reason = f"{folder} is not a folder with files" if root or self.path else "no folder was named"
            raise problem_error(
                "missing image set",
                f"Image set 'folder' needs images, but {reason}. Expected: {self.card.layout}",
                f"{self.card.obtain} Name it with --root, or with option path.",
            )
        return folder

    def _table(self, folder: Path) -> Path | None:
        """Return the table, or None for class folders."""
        table = folder / (self.table or "labels.csv")
        return table if self.table or table.is_file() else None

    def _entries(self, folder: Path, problems: list[Problem]) -> list[Entry]:
        table = self._table(folder)
        if table is not None:
            return self._entries_from_table(table, folder, problems)
        entries = entries_from_folders(folder, problems)
        if not entries:
            _raise_missing_class_folders(problems)
            message = f"{folder} contains no image in a class folder"
            raise problem_error("no image", message, f"Put images there. Expected: {self.card.layout}.")
        return entries

    def _entries_from_table(self, table: Path, folder: Path, problems: list[Problem]) -> list[Entry]:
        """Read a table; if none of it is usable and it may be foreign to the class folders next to it, say so."""
        before = len(problems)
        try:
            entries = entries_from_table(table, folder, problems)
        except ImageSetError as error:
            problems[before:] = [*problems[before:], *error.problems]
            entries = []
        if entries:
            return entries
        found, problems[before:] = problems[before:], []
        classes = [] if self.table else sorted({entry.label for entry in entries_from_folders(folder, [])})
        if len(classes) < 2:
            raise ImageSetError("", found)
        message = f"{table} is read because of its name, and {found[0].message}"
        names = summarize_names(classes, limit=3)
        fix = f"Rename it to read the class folders instead ({names}), or correct it: {found[0].fix}"
        raise problem_error("wrong table", message, fix)

    def _given_split(self, whole: ImageSet, parts: np.ndarray, folder: Path, problems: list[Problem]) -> Partition:
        rows = {part: np.flatnonzero(parts == part) for part in PARTS}
        missing = [repr(part) for part in ("train", "test") if not len(rows[part])]
        if missing:
            _raise_missing_class_folders(problems)
            message = f"{folder} has parts, but none of its images is in part {' or in part '.join(missing)}"
            fix = f"Put images of every class into part {' and into part '.join(missing)}."
            raise problem_error("missing part", message, fix)
        if not len(rows["validation"]) and len(rows["train"]) < 2:
            message = f"{folder} has one training image, and no image in part 'validation', which is taken from train"
            raise problem_error("too few images", message, "Add images to part 'train'.")
        if not len(rows["validation"]):
            validation_rows, train_rows = self._split_validation(whole.take(rows["train"]))
            rows["validation"], rows["train"] = rows["train"][validation_rows], rows["train"][train_rows]
        untrained = sorted(set(whole.labels.tolist()) - set(whole.labels[rows["train"]].tolist()))
        problems += [too_few_images(whole.classes[label], 0) for label in untrained]
        train, validation, test, unseen = (whole.take(rows[part]) for part in PARTS)
        return Partition("folder", train, validation, test, unseen if len(unseen) else None, self.card)

    def _split_validation(self, train: ImageSet) -> list[np.ndarray]:
        """Return rows for validation and the remaining ones; of whole people if people are known and not the labels."""
        rng = make_rng("folder", "validation", self.seed)
        if train.identities is None or identities_are_classes(train):
            groups = train.first_copy
            count = max(1, round(self.validation * len(train)))
            parts = stratified_split(train.labels, [count, len(train) - count], rng, groups)
        else:
            groups = connected_groups(train.identities, train.first_copy)
            try:
                parts = split_by_group(groups, [max(1, round(self.validation * (int(groups.max()) + 1)))], rng)
            except UsageError as error:
                message = f"validation people are taken from train: {str(error).rstrip('.')}"
                fix = "Assign images to validation in the table, or add people to train."
                raise problem_error("too few people", message, fix) from None
        return ensure_train_covers_classes(parts, train.labels, groups, train=1)


def _sorted_names(values: Sequence[str]) -> tuple[str, ...]:
    """Return all different values, sorted; as numbers if all are numbers."""
    names = set(values)
    return tuple(sorted(sorted(names), key=int) if all(name.isdecimal() for name in names) else sorted(names))


def _positions(values: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return the position of every value in a list of names."""
    position = {name: number for number, name in enumerate(names)}
    return np.array([position[value] for value in values], dtype=np.int64)


def entries_from_table(table: Path, folder: Path, problems: list[Problem]) -> list[Entry]:
    """Read the rows of a table that name an existing file, a label, and a known part.

    Args:
        table: The table.
        folder: Folder that its paths are relative to.
        problems: List to which other rows are appended.

    Raises:
        ImageSetError: The table is missing, or lacks a column.
    """
    rows = read_table(table, ("path", "label"), ("identity", "split"), problems)
    files = resolve_files(table, rows, folder, "path", problems)
    entries = []
    first: dict[Path, tuple[int, str]] = {}
    for row, file in zip(rows, files, strict=True):
        part = PART_NAMES.get(row.values.get("split", "").lower(), "")
        wrong = []
        if is_missing(row.values["label"]):
            what = f"has no label{_shown(row.values['label'])}"
            wrong.append((what, "Write the class into column label, or remove the row."))
        if "split" in row.values and not part:
            what = f"has split {row.values['split']!r}; it must be one of {', '.join(PARTS)}"
            wrong.append((what, "Correct it, or remove column split: images are then split at random."))
        identity = row.values.get("identity", "")
        if "identity" in row.values and is_missing(identity):
            what = f"has no identity{_shown(identity)}"
            wrong.append((what, "Give every row an identity, or remove column identity."))
        problems += [Problem("wrong row", f"row {row.number} of {table} {what}", fix) for what, fix in wrong]
        if file is not None and not wrong:
            path, label = Path(str(file.content)), category(row.values["label"])
            number, other = first.setdefault(path, (row.number, label))
            if number != row.number:
                message = f"row {row.number} of {table} names {path} again, after row {number}"
                message += f", with label {label!r} instead of {other!r}" if label != other else ""
                problems.append(Problem("repeated row", message, "Remove one of the rows.", serious=label != other))
            entries.append(Entry(path, label, category(identity), part))
    return entries


def _shown(value: str) -> str:
    return f" but {value!r}" if value else ""


def entries_from_folders(folder: Path, problems: list[Problem]) -> list[Entry]:
    """Find images in class folders, which can be in folders named after the parts.

    Args:
        folder: The folder.
        problems: List to which ignored and misplaced files are appended.
    """
    entries = []
    contents = walk_folder(folder)
    problems += contents.problems
    for base, part in _part_folders(folder, contents, problems):
        files = [path for path in contents.files if path.parts[: len(base.parts)] == base.parts]
        images = [path for path in files if is_image(path)]
        entries += [Entry(path, path.relative_to(base).parts[0], part=part) for path in images if path.parent != base]
        problems += _stray_images(base, [path for path in images if path.parent == base], len(images), part)
        problems += _empty_class_folders(base, contents) + ignored_formats(base, files)
    return entries


def _raise_missing_class_folders(problems: list[Problem]) -> None:
    """Raise the problems of images without class folders, if there are any, instead of what follows from them."""
    misplaced = [problem for problem in problems if problem.kind == _NO_CLASS_FOLDER]
    if misplaced:
        problems[:] = [problem for problem in problems if problem.kind != _NO_CLASS_FOLDER]
        raise ImageSetError("", misplaced)


def _stray_images(base: Path, strays: Sequence[Path], total: int, part: str) -> list[Problem]:
    """Report images next to class folders; one problem if there are only such images.

    Args:
        base: The folder that contains the class folders.
        strays: Images in that folder itself.
        total: Number of all images in it, at any depth.
        part: The part that the folder is; "" if it is the image set.
    """
    if strays and len(strays) == total:
        message = f"{base} has {total:,} images but no class folders"
        fix = f"Move them into class folders, {base / '<class>'}."
        if not part:
            parent = (base if base.name not in ("", "..") else base.resolve()).parent
            fix = f"If it is a class, name its parent: --root {parent} or option path. Otherwise, move the images into "
            fix += "class folders."
        return [Problem(_NO_CLASS_FOLDER, message, fix)]
    fix = f"Move it into {base / '<class>'}, or remove it."
    return [Problem("stray image", f"{path} is not in a class folder", fix) for path in strays]


def _part_folders(folder: Path, contents: FolderContents, problems: list[Problem]) -> list[tuple[Path, str]]:
    """Return the folders that contain class folders with the parts that they are, in the order of the parts."""
    folders = [path for path in contents.folders if path.parent == folder]
    parts = [(path, PART_NAMES[path.name.lower()]) for path in folders if path.name.lower() in PART_NAMES]
    if not any(part == "train" for _, part in parts):
        if len(parts) > 1 and {path for path, _ in parts} >= contents.folders_with_images & set(folders):
            names = summarize_names(path.name for path, _ in parts)
            message = f"{folder} contains only folders that look like parts ({names}), but no folder 'train'"
            fix = "Add a folder 'train' with images of every class; if the folders are classes, rename them."
            problems.append(Problem("missing part", message, fix))
            return [(folder, "")]
        for path, _ in parts:
            message = f"{path} is read as a class: it has the name of a part, but there is no folder 'train' next to it"
            fix = "Name the folder of the training images 'train', or rename the class."
            problems.append(Problem("class named like a part", message, fix, serious=False))
        return [(folder, "")]
    part_paths = {path for path, _ in parts}
    for path in folders:
        if path not in part_paths and path in contents.folders_with_images:
            message = f"{path} is ignored: next to 'train', folders must be parts, named {', '.join(PART_NAMES)}"
            fix = "Rename it, or move it into a part."
            problems.append(Problem("ignored", message, fix, serious=False))
    return sorted(parts, key=lambda entry: (PARTS.index(entry[1]), entry[0]))


def _empty_class_folders(base: Path, contents: FolderContents) -> list[Problem]:
    """Report class folders without images."""
    fix = "Put images into it, or remove it; it does not become a class."
    return [
        Problem("empty class folder", f"{path} contains no image", fix, serious=False)
        for path in contents.folders
        if path.parent == base and path not in contents.folders_with_images
    ]


def _folder_inside(folder: Path) -> str:
    """Return the fix for a folder that is itself a folder of classes or of parts; empty if it is not one."""
    contents = walk_folder(folder)
    names = [path.name for path in contents.folders if path.parent == folder and path in contents.folders_with_images]
    what = f"That folder contains {summarize_names(names, limit=5)}"
    parts = {PART_NAMES[name.lower()] for name in names if name.lower() in PART_NAMES}
    if "train" in parts or len(parts) == len(names) > 0:
        missing = [part for part in ("train", "test") if part not in parts]
        also = f", and add images of every class in a folder {' and a folder '.join(map(repr, missing))}"
        return (
            f"{what}, which look like parts: the images are one level too deep. Name {folder} with --root or option "
            f"path{also if missing else ''}."
        )
    if len(names) < 2:
        return ""
    return (
        f"{what}: the images are one level too deep. If these are the classes, name {folder} with --root or option "
        "path."
    )
