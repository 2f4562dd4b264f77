"""The order of a board's rows, and cursors into it: the place behind one row, wherever the others go meanwhile."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select
from sqlalchemy.orm import aliased

from forgetbench.leaderboard.boards.view import View
from forgetbench.leaderboard.db.models import Board, Entry, MetricValue, Placing
from forgetbench.leaderboard.errors import FieldError, Problem

TEXTS = ("method", "submitter", "tier")
"""Sort keys that are text; ``date`` is a time, all others are numbers."""


class _Place(BaseModel):
    """A row's place: what it is sorted by. A stranger may send anything as one."""

    model_config = ConfigDict(extra="forbid")

    sort: str
    section: Annotated[int, Field(ge=0, le=2)]
    key: Annotated[float, Field(allow_inf_nan=False)] | Annotated[str, Field(pattern=r"^[^\x00]*$")] | None
    position: Annotated[int, Field(ge=0, lt=2**31)] | None
    id: Annotated[str, Field(pattern=r"^[a-z0-9]{1,32}$")]


@dataclass(frozen=True)
class Order:
    """Ranked rows, then others, then those with own originals; in each by the view's key, missing last."""

    view: View
    query: Select[Any]
    """Ids in that order, and behind each what a cursor holds."""
    section: ColumnElement[int]
    key: ColumnElement[Any]
    position: ColumnElement[Any]

    def cursor(self, row: Sequence[Any]) -> str:
        """The place behind a row of the query."""
        identity, section, key, position = row
        value = key.isoformat() if isinstance(key, datetime) else key
        place = _Place(sort=self.view.sort, section=section, key=value, position=position, id=identity)
        return base64.urlsafe_b64encode(place.model_dump_json().encode()).decode().rstrip("=")

    def behind(self, cursor: str) -> ColumnElement[bool]:
        """Which rows stand behind a cursor.

        Raises:
            Problem: 422, it is no cursor of this sort.
        """
        try:
            text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            place = _Place.model_validate_json(text)
            key = self._typed(place.key)
        except (ValueError, binascii.Error, ValidationError) as error:
            raise _not_ours() from error
        if place.sort != self.view.sort:
            raise _not_ours()
        last = self._after(self.position, place.position, Entry.id > place.id)
        in_section = self._after(self.key, key, last, descending=self.view.descending)
        return or_(self.section > place.section, and_(self.section == place.section, in_section))

    def _typed(self, key: float | str | None) -> float | str | datetime | None:
        if key is None or isinstance(key, str) == (self.view.key in {*TEXTS, "date"}):
            return datetime.fromisoformat(str(key)) if key is not None and self.view.key == "date" else key
        raise ValueError("a number for a text, or a text for a number")

    @staticmethod
    def _after(
        column: ColumnElement[Any], value: Any, equal: ColumnElement[bool], *, descending: bool = False
    ) -> ColumnElement[bool]:
        """Rows behind a value of one column, missing last; where it is the same, ``equal`` decides."""
        if value is None:
            return and_(column.is_(None), equal)
        beyond = column < value if descending else column > value
        return or_(beyond, column.is_(None), and_(column == value, equal))


def order_of(board: Board, view: View) -> Order:
    """The order of a board's rows in a view."""
    place = aliased(Placing, name="place")
    on_place = (place.entry_id == Entry.id) & (place.scope == view.tier)
    position = cast("ColumnElement[Any]", place.position)
    section = case((Entry.changes_training, 2), (position.is_(None), 1), else_=0)
    fixed: dict[str, ColumnElement[Any]] = {
        "rank": position,
        "method": func.lower(Entry.label),
        "distance": cast("ColumnElement[Any]", Entry.distance),
        "cost": cast("ColumnElement[Any]", Entry.cost),
        "tier": cast("ColumnElement[Any]", Entry.tier),
        "submitter": func.lower(Entry.submitter),
        "date": cast("ColumnElement[Any]", Entry.received_at),
    }
    value = aliased(MetricValue)
    key = fixed.get(view.key, cast("ColumnElement[Any]", value.value))
    query = select(Entry.id, section, key, position).outerjoin(place, on_place)
    if view.key not in fixed:
        on = (value.entry_id == Entry.id) & (value.metric == view.key) & (value.board_id == board.id)
        query = query.outerjoin(value, on)
    missing, unplaced = (case((column.is_(None), 1), else_=0) for column in (key, position))
    turned = key.desc() if view.descending else key.asc()
    return Order(view, query.order_by(section, missing, turned, unplaced, position, Entry.id), section, key, position)


def _not_ours() -> Problem:
    return Problem(422, "The cursor is not one of ours.", [FieldError(field="cursor", message="take it from `next`")])
