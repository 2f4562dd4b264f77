"""The tables of CelebA and of MUCAC: who is seen, and with what attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from forgetbench.datasets.problems import COPY_AGAIN, Problem, problem_error
from forgetbench.datasets.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

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
