"""Pictures of a board's public draws, for pages: contact sheets and the forget set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from forgetbench.evidence.display import (
    PEOPLE_COUNTS,
    SHEETS,
    enlarged,
    pictures,
    png,
    read_display,
    sheet,
    sheet_classes,
)

_EXAMPLE = re.compile(r"d(\d{1,4})-(\d{1,7})")


class Sheet(NamedTuple):
    """A contact sheet."""

    name: str
    """Subset."""
    words: str
    """What it shows."""
    text: str
    """The same for those who cannot see it."""
    width: int
    height: int


class TaskDisplay(NamedTuple):
    """What a bundle's pictures and people say of its public draws."""

    classes: Sequence[str]
    """Names of the classes or attributes."""
    sheets: list[Sheet]
    drawn: frozenset[str]
    """Draws whose forget set has pictures."""
    people: tuple[int, int] | None
    """Numbers of people in the forget set and among what is kept; None for images without known people."""

    def class_name(self, number: int | None) -> str:
        """Name of a class; "" for attributes."""
        return self.classes[number] if number is not None and number < len(self.classes) else ""


def display_of(folder: Path, classes: Sequence[str]) -> TaskDisplay:
    """What a bundle's folder has to show.

    Args:
        folder: The bundle of public draws.
        classes: Names of its classes or attributes.
    """
    arrays = read_display(folder)
    sheets = []
    for name, words in SHEETS.items():
        if sheet(name) not in arrays:
            continue
        numbers = [int(number) for number in arrays.get(sheet_classes(name), ())]
        named = Counter(classes[number] for number in numbers if number < len(classes))
        parts = ", ".join(f"{count} of class {label}" for label, count in named.items())
        height, width = arrays[sheet(name)].shape[:2]
        sheets.append(Sheet(name, words, f"Examples of {words}{': ' + parts if parts else ''}", width, height))
    drawn = frozenset(name for name in arrays if name.startswith("forget-d"))
    counts = arrays.get(PEOPLE_COUNTS)
    return TaskDisplay(classes, sheets, drawn, (int(counts[0]), int(counts[1])) if counts is not None else None)


def picture(folder: Path, name: str) -> bytes | None:
    """A picture as PNG: a contact sheet by its subset, or ``d0-17`` for row 17 of the forget set of draw 0.

    None if there is no such picture.
    """
    arrays = read_display(folder)
    if name in SHEETS:
        return png(arrays[sheet(name)]) if sheet(name) in arrays else None
    found = _EXAMPLE.fullmatch(name)
    images = arrays.get(pictures(int(found[1]))) if found else None
    if found is None or images is None or int(found[2]) >= len(images):
        return None
    return png(enlarged(images[int(found[2])]))
