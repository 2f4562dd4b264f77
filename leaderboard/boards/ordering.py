"""Order of a board's rows, and cursors: positions after a row that stay valid while other rows move."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import ColumnElement, Select, and_, bindparam, case, func, or_, select
from sqlalchemy.orm import aliased

from forgetbench.errors import described_pattern
from forgetbench.leaderboard.boards.view import View
from forgetbench.leaderboard.db.models import Entry, KnownAttack, MetricValue, Placing
from forgetbench.leaderboard.errors import FieldError, Problem

TEXTS = ("method", "submitter", "tier", "verdict")
"""Sort keys that are text; ``date`` is a time, all others are numbers."""

CLAIMED_SECTION = 3
"""First section of the claimed rows."""


class _Cursor(BaseModel):
    """The sort values of a row. Validated strictly, because clients send it back."""

    model_config = ConfigDict(extra="forbid")

    sort: str
    section: Annotated[int, Field(ge=0, le=5)]
    key: (
        Annotated[float, Field(allow_inf_nan=False)]
        | Annotated[str, Field(pattern=described_pattern(r"^[^\x00]*$", "text without a null character"))]
        | None
    )
    position: Annotated[int, Field(ge=0, lt=2**31)] | None
    id: Annotated[str, Field(pattern=described_pattern(r"^[a-z0-9]{1,32}$", "the id of an entry"))]


@dataclass(frozen=True)
class Order:
    """Ranked rows, then others, then rows with their own originals, then the same of claimed rows.

    In each section rows are sorted by the view's key, missing values last: no sort shows a claim above a verified row.
    """

    sort: str
    """Sort key of the view."""
    query: Select[Any]
    """Ids in that order, each followed by the values of its cursor; has the parameter ``board``, a board's id."""
    section: ColumnElement[int]
    key: ColumnElement[Any]
    position: ColumnElement[Any]

    def cursor(self, row: Sequence[Any]) -> str:
        """The cursor after a row of the query."""
        entry_id, section, key, position = row
        value = key.isoformat() if isinstance(key, datetime) else key
        cursor = _Cursor(sort=self.sort, section=section, key=value, position=position, id=entry_id)
        return base64.urlsafe_b64encode(cursor.model_dump_json().encode()).decode().rstrip("=")

    def after(self, cursor: str) -> ColumnElement[bool]:
        """Condition for the rows after a cursor.

        Raises:
            Problem: 422, the cursor is not valid for this sort.
        """
        try:
            text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            last = _Cursor.model_validate_json(text)
            key = self._typed(last.key)
        except (ValueError, binascii.Error, ValidationError) as error:
            raise _invalid_cursor() from error
        if last.sort != self.sort:
            raise _invalid_cursor()
        same_key = self._after(self.position, last.position, Entry.id > last.id)
        in_section = self._after(self.key, key, same_key, descending=View(sort=self.sort).descending)
        return or_(self.section > last.section, and_(self.section == last.section, in_section))

    def _typed(self, key: float | str | None) -> float | str | datetime | None:
        if key is None or isinstance(key, str) == (View(sort=self.sort).key in {*TEXTS, "date"}):
            is_date = key is not None and View(sort=self.sort).key == "date"
            return datetime.fromisoformat(str(key)) if is_date else key
        raise ValueError("the sort value has the wrong type")

    @staticmethod
    def _after(
        column: ColumnElement[Any], value: Any, equal: ColumnElement[bool], *, descending: bool = False
    ) -> ColumnElement[bool]:
        """Rows after a value of one column, missing values last; among equal values ``equal`` decides."""
        if value is None:
            return and_(column.is_(None), equal)
        beyond = column < value if descending else column > value
        return or_(beyond, column.is_(None), and_(column == value, equal))


def order_of(sort: str) -> Order:
    """The order of a board's rows by the sort key of a view."""
    view = View(sort=sort)
    placing = aliased(Placing, name="place")
    on_placing = placing.entry_id == Entry.id  # an entry has a place in the ranking of its tiers only
    position = cast("ColumnElement[Any]", placing.position)
    claimed = case((Entry.tier == "claimed", CLAIMED_SECTION), else_=0)
    section = claimed + case((Entry.changes_training, 2), (position.is_(None), 1), else_=0)
    fixed: dict[str, ColumnElement[Any]] = {
        "rank": position,
        "method": func.lower(Entry.label),
        "distance": cast("ColumnElement[Any]", Entry.distance),
        "verdict": cast("ColumnElement[Any]", Entry.verdict),
        "forgotten": cast("ColumnElement[Any]", Entry.forgotten),
        "harm": cast("ColumnElement[Any]", Entry.harm),
        "cost": cast("ColumnElement[Any]", Entry.cost),
        "tier": cast("ColumnElement[Any]", Entry.tier),
        "submitter": func.lower(Entry.submitter),
        "date": cast("ColumnElement[Any]", Entry.received_at),
        "attack": _worst_attack(),
    }
    value = aliased(MetricValue)
    key = fixed.get(view.key, cast("ColumnElement[Any]", value.value))
    query = select(Entry.id, section, key, position).outerjoin(placing, on_placing)
    if view.key not in fixed:
        on = (value.entry_id == Entry.id) & (value.metric == view.key) & (value.board_id == bindparam("board"))
        query = query.outerjoin(value, on)
    missing, unranked = (case((column.is_(None), 1), else_=0) for column in (key, position))
    directed = key.desc() if view.descending else key.asc()
    query = query.order_by(section, missing, directed, unranked, position, Entry.id)
    return Order(sort, query, section, key, position)


def _worst_attack() -> ColumnElement[Any]:
    """The largest z of an attack that the board's runner repeated on an entry; claims do not sort."""
    repeated = (KnownAttack.entry_id == Entry.id) & (KnownAttack.state == "repeated")
    return select(func.max(KnownAttack.z)).where(repeated).correlate(Entry).scalar_subquery()


def _invalid_cursor() -> Problem:
    error = FieldError(field="cursor", message="Use the value of `next` from a response with the same sort.")
    return Problem(422, "The cursor is not valid.", [error])
