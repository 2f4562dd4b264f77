"""The page of a method: its profile over tasks, with default and with tuned hyper-parameters."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from sqlalchemy.orm import Session

from forgetbench.leaderboard.boards.matrix import MatrixView, matrix_rows
from forgetbench.leaderboard.render.rows import Axis, ShownRow, axis_of, row_of, shipped_row
from forgetbench.registry import declarations
from forgetbench.reproduction.reference_file import ReferenceBoard


class Profile(NamedTuple):
    """A method on one task."""

    task: str
    title: str
    url: str
    """Address of the board."""
    axis: Axis
    """The axis of that board: distances on different boards cannot be compared."""
    default: ShownRow | None
    """Its row with default hyper-parameters."""
    tuned: ShownRow | None
    """Its best row with other hyper-parameters."""

    @property
    def rows(self) -> list[ShownRow]:
        """The rows that there are."""
        return [row for row in (self.default, self.tuned) if row is not None]


@cache
def summaries() -> dict[str, str]:
    """Method of the package -> the first line of its file, which says what it does.

    Methods are not imported, because they load torch. Files that define several methods are left out.
    """
    modules = {name: address.partition(":")[0] for _, name, address in declarations("forgetbench.methods")}
    counts = Counter(modules.values())
    found = {}
    for name, module in modules.items():
        spec = find_spec(module) if counts[module] == 1 else None
        if spec is not None and spec.origin is not None:
            text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
            found[name] = (text or "").partition("\n")[0]
    return found


def server_profiles(session: Session, method: str) -> list[Profile]:
    """A method on this server's boards."""
    both = [matrix_rows(session, MatrixView(variant=variant), method) for variant in ("defaults", "tuned")]
    profiles = []
    for defaults, tuned in zip(*both, strict=True):
        board = defaults.board
        rows = [row_of(item.rows[0]) if item.rows else None for item in (defaults, tuned)]
        references = [row_of(row) for row in defaults.references]
        limit = (board.summary or {}).get("family_limit")
        if any(rows):
            axis = axis_of([*references, *filter(None, rows)], limit)
            profiles.append(Profile(board.task, board.title, f"/boards/{quote(board.task)}", axis, rows[0], rows[1]))
    return profiles


def shipped_profiles(boards: Iterable[ReferenceBoard], method: str) -> list[Profile]:
    """A method in the results that ship with the package."""
    profiles = []
    for board in boards:
        shown = [shipped_row(row, baseline=place < board.references) for place, row in enumerate(board.rows)]
        own = [row for row in shown[board.references :] if row.method == method]
        default = _first(row for row in own if row.label == method)
        tuned = _first(row for row in own if row.label != method)
        if own:
            axis = axis_of([*shown[: board.references], *own], board.family_limit)
            url = f"/shipped/{quote(board.task)}"
            profiles.append(Profile(board.task, board.title, url, axis, default, tuned))
    return profiles


def _first(rows: Iterable[ShownRow]) -> ShownRow | None:
    """The first row with a place, else the first."""
    found: Sequence[ShownRow] = list(rows)
    return next((row for row in found if row.place), found[0] if found else None)
