"""Methods by boards: one row per method, one cell per board, from this server's entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from forgetbench.leaderboard.boards.queries import Row, current_boards, row_columns
from forgetbench.leaderboard.db.models import Board, Entry, Placing
from forgetbench.leaderboard.db.states import PUBLIC_STATES

Short = Annotated[str, Field(max_length=100)]


class MatrixView(BaseModel):
    """Filters and sorting of the front page, all of it in the query string."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sort: Annotated[str, Field(max_length=300)] = "place"
    """``place`` for the median place, ``method``, or the name of a task."""
    tier: Literal["all", "ranked"] = "all"
    """Only verified and reference rows with ``ranked``."""
    variant: Literal["best", "defaults", "tuned"] = "best"
    """Which row of a method is shown: that with the best place, with default hyper-parameters, or a tuned one."""
    budget: Literal["", "1", "5", "20", "100"] = ""
    """Only rows that cost at most this percentage of retraining."""
    images: Short = ""
    """Only tasks with this image set."""
    network: Short = ""
    """Only tasks with this network."""
    track: Literal["", "match-oracle", "erase", "corrective"] = ""
    """Only tasks of this track; by default those of all tracks but correction."""

    @property
    def filtered(self) -> bool:
        """Whether any filter is set."""
        return bool(self.model_dump(exclude_defaults=True, exclude={"sort"}))

    def link(self, **changes: object) -> str:
        """The query string of this view with changes, as a link that starts with ``?``."""
        changed = type(self).model_validate({**self.model_dump(), **changes})
        return "?" + urlencode(changed.model_dump(exclude_defaults=True))

    def aria_sort(self, key: str) -> str | None:
        """Value of ``aria-sort`` for a column."""
        return "ascending" if self.sort == key else None

    def shows(self, task: str, track: str) -> bool:
        """Whether the filters let a task through. A task is named image set, network, and what is forgotten.

        Tasks of correction have another goal than all others, so that no median includes both: they have to be chosen.
        """
        images, network = parts_of(task)
        chosen = track == self.track or (not self.track and track != "corrective")
        return chosen and self.images in {"", images} and self.network in {"", network}


def parts_of(task: str) -> tuple[str, str]:
    """Image set and network of a task, from its name."""
    images, _, rest = task.partition("/")
    return images, rest.partition("/")[0]


@dataclass(frozen=True)
class BoardRows:
    """A board, its reference rows, and one row of each method."""

    board: Board
    references: Sequence[Row]
    rows: Sequence[Row]


def matrix_rows(session: Session, view: MatrixView, method: str = "") -> list[BoardRows]:
    """One row of each method on each current board that passes the filters: verified before claimed, then by place.

    Sentinels are left out. One query, whatever the number of boards and methods; with a name, of that method only.
    """
    boards = {board.id: board for board in current_boards(session) if view.shows(board.task, board.track)}
    order = (Entry.tier == "claimed", Placing.position.is_(None), Placing.position, Entry.distance.is_(None))
    number = (
        func.row_number()
        .over(partition_by=(Entry.board_id, Entry.method), order_by=(*order, Entry.distance, Entry.id))
        .label("number")
    )
    chosen = (
        select(Entry.id, number)
        .outerjoin(Placing, Placing.entry_id == Entry.id)
        .where(Entry.board_id.in_(boards), Entry.state.in_(PUBLIC_STATES), ~Entry.baseline, ~Entry.sentinel)
    )
    if method:
        chosen = chosen.where(Entry.method == method.replace("\0", ""))
    if view.tier == "ranked":
        chosen = chosen.where(Entry.tier != "claimed")
    if view.budget:
        chosen = chosen.where(Entry.budget <= int(view.budget))
    if view.variant != "best":
        is_default = Entry.label == Entry.method
        chosen = chosen.where(is_default if view.variant == "defaults" else ~is_default)
    first = chosen.subquery()
    query = (
        select(Entry, Placing)
        .outerjoin(Placing, Placing.entry_id == Entry.id)
        .where(
            Entry.id.in_(select(first.c.id).where(first.c.number == 1))
            | (Entry.baseline & Entry.board_id.in_(boards) & Entry.state.in_(PUBLIC_STATES))
        )
        .options(row_columns())
    )
    references: dict[int, list[Row]] = {board_id: [] for board_id in boards}
    rows: dict[int, list[Row]] = {board_id: [] for board_id in boards}
    for entry, placing in session.execute(query):
        (references if entry.baseline else rows)[entry.board_id].append(Row(entry, {}, placing))
    return [BoardRows(board, references[board.id], rows[board.id]) for board in boards.values()]
