"""The page of results that ship with the package: variables of its template."""

from __future__ import annotations

from collections import Counter

from forgetbench.leaderboard.boards.directory import shipped_specs
from forgetbench.leaderboard.render.rows import headline, shipped_table
from forgetbench.reproduction.reference_file import ReferenceBoard


def shipped_context(board: ReferenceBoard) -> dict[str, object]:
    """What the page of a task shows."""
    table = shipped_table(board)
    verdicts = Counter((row.verdict, row.caveat) for row in table.ranked if row.place and row.verdict)
    return {
        "board": board,
        "table": table,
        "headline": headline(verdicts),
        "titles": {name: spec["title"] for name, spec in shipped_specs().items()},
    }
