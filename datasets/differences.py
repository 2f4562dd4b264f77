"""How what is there differs from an image set as it was published, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHOWN = 12
"""So many names are shown of a longer list."""


def compared(there: Sequence[str], published: Iterable[str], where: str) -> list[str]:
    """What is missing of a published list of names, what is not of it, and what is there twice; a sentence each.

    Args:
        there: The names that were found.
        published: All names of the set as published, in the order in which they are shown.
        where: What names them, for the sentence.
    """
    wanted, found = dict.fromkeys(published), dict.fromkeys(there)
    kinds = (
        ("are missing", [name for name in wanted if name not in found]),
        ("are not of the published set", [name for name in found if name not in wanted]),
        ("are there more than once", [name for name in found if len(there) > len(found) and there.count(name) > 1]),
    )
    return [f"{where}: {len(names):,} pictures {what}: {_some(names)}" for what, names in kinds if names]


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
