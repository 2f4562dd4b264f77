"""Which images a folder of one's own holds: by class folders, or by a table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from forgetbench.datasets.files import IMAGE_SUFFIXES, image_paths
from forgetbench.datasets.problems import Problem
from forgetbench.datasets.tables import files_of_rows, read_table

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
