"""View of a board: sorting, filters, columns and page, all of it in the query string."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

from forgetbench.errors import described_pattern

ColumnSet = Literal["ranking", "utility", "privacy", "erasure", "cost", "all"]
PageColumnSet = Literal["summary", "ranking", "utility", "privacy", "erasure", "cost", "all"]
SUMMARY = "summary"
"""The column set of pages without metrics."""
PackHash = Annotated[
    str,
    Field(pattern=described_pattern("^([0-9a-f]{8,64})?$", "8 to 64 hexadecimal digits of a hash, or empty")),
]
"""Start of a pack's hash; "" for the pack of the current board."""
AxisKey = Annotated[
    str, Field(pattern=described_pattern(r"^([a-z][a-z0-9.-]{0,63})?$", "the name of a metric, or empty"))
]
SortKey = Annotated[
    str,
    Field(
        pattern=described_pattern(
            r"^-?[a-z][a-z0-9.-]{0,63}$", "the name of a column, with a - before it to reverse the order"
        )
    ),
]
FIXED_KEYS = (
    "rank",
    "method",
    "distance",
    "verdict",
    "forgotten",
    "harm",
    "cost",
    "tier",
    "submitter",
    "date",
    "attack",
)
"""Sort keys in addition to the names of metrics."""


class View(BaseModel):
    """View of a board, with the same parameters for the page, the exports and the API."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)

    sort: SortKey = "rank"
    """rank, method, distance, verdict, forgotten, harm, cost, tier, submitter, date, attack (the worst one that the
    board's runner repeated), or a metric's name; a ``-`` before it reverses the order."""
    q: Annotated[str, Field(max_length=100)] = ""
    """Only rows whose method, title, family or submitter contains this text."""
    tier: Literal["all", "ranked", "claimed"] = "all"
    """Only verified and reference rows (``ranked``), or only claimed ones, which have places among themselves."""
    family: Annotated[str, Field(max_length=200)] = ""
    """Only methods of this family."""
    retain: Literal["", "yes", "no"] = ""
    """Only methods that need retain data, or that do not."""
    budget: Literal["", "1", "5", "20", "100"] = ""
    """Only rows that cost at most this percentage of retraining."""
    complete: bool = False
    """Only rows with a value in every column shown."""
    columns: ColumnSet = "ranking"
    """Which metrics are shown."""
    page: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Page of the board, from 1."""

    @property
    def key(self) -> str:
        """The sort key without its sign."""
        return self.sort.removeprefix("-")

    @property
    def descending(self) -> bool:
        """Whether the order is reversed."""
        return self.sort.startswith("-")

    @property
    def filtered(self) -> bool:
        """Whether any filter is set."""
        return bool(self.q or self.family or self.retain or self.budget or self.complete or self.tier != "all")

    def query(self, **changes: object) -> str:
        """The query string of this view with changes, without parameters at their defaults."""
        values = {**vars(self), **changes}
        return urlencode(
            {
                field.alias or name: _text(values[name])
                for name, field in type(self).model_fields.items()
                if values[name] != field.default
            }
        )

    def link(self, **changes: object) -> str:
        """The query string as a link that starts with ``?``; goes to the first page unless a page is given."""
        return "?" + self.query(**{"page": 1, **changes})

    def sort_link(self, key: str) -> str:
        """Link that sorts by a key; reverses the order if the view is sorted by it already."""
        return self.link(sort=f"-{key}" if self.sort == key else key)

    def aria_sort(self, key: str) -> str | None:
        """Value of ``aria-sort`` for a column; None for columns that the view is not sorted by."""
        if self.key != key:
            return None
        return "descending" if self.descending else "ascending"


class PageView(View):
    """View of a board's page, with its charts."""

    columns: PageColumnSet = "summary"  # type: ignore[assignment]  # one more than files and the API have
    """Which metrics are shown; by default none: the summary is in words and in the strip of distances."""

    pack: PackHash = ""
    """Start of a pack's hash, for a superseded board."""
    as_of: date | None = Field(default=None, alias="as-of")
    """Shows the places at the end of that day (UTC), such as 2026-11-30; then only ``theme`` applies of the others."""
    x: AxisKey = ""
    """What the first chart shows from left to right: distance, cost, or a metric's name; cost by default."""
    y: AxisKey = ""
    """What it shows from bottom to top; distance by default."""
    theme: Literal["light", "dark"] = "light"
    """Colors of the chart as a file."""

    @property
    def has_charts(self) -> bool:
        """Whether the page has the charts. They show all rows, so that filtered and later pages link to them."""
        return bool(self.x or self.y) or not (self.filtered or self.page > 1)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
