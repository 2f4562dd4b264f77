"""Entries of different boards next to each other: only what can be compared across boards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from forgetbench.leaderboard.boards import compare
from forgetbench.leaderboard.boards.entries import EntryDetail
from forgetbench.leaderboard.boards.queries import summary_of
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render.rows import ShownRow, row_of


class ComparedEntry(NamedTuple):
    """An entry next to those of other boards."""

    detail: EntryDetail
    row: ShownRow
    limit: float | None
    """Below this distance, rows of its board are indistinguishable from retraining."""


def across_context(details: Sequence[EntryDetail]) -> dict[str, object]:
    """Variables of the template.

    Raises:
        Problem: 422, these are not two to six entries.
    """
    if not compare.MIN_ENTRIES <= len(details) <= compare.MAX_ENTRIES:
        allowed = f"{compare.MIN_ENTRIES} to {compare.MAX_ENTRIES}"
        raise Problem(422, f"Choose {allowed} entries to compare; {len(details)} were chosen.")
    columns = [
        ComparedEntry(detail, row_of(detail.row), summary_of(detail.board, detail.entry.tier).get("family_limit"))
        for detail in details
    ]
    return {"comparison": None, "board": None, "columns": columns}
