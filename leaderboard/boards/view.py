"""What a reader asks of a board, all of it in the address: sorting, filters, columns, page."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

ColumnSet = Literal["ranking", "utility", "privacy", "erasure", "cost", "all"]
SortKey = Annotated[str, Field(pattern=r"^-?[a-z][a-z0-9.-]{0,63}$")]
FIXED_KEYS = ("rank", "method", "distance", "cost", "tier", "submitter", "date")
"""Sort keys besides the names of metrics."""


class View(BaseModel):
    """A view of a board. The same parameters mean the same for the page, the exports and the API."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sort: SortKey = "rank"
    """rank, method, distance, cost, tier, submitter, date, or a metric's name; a ``-`` before it turns it round."""
    q: Annotated[str, Field(max_length=100)] = ""
    """Only rows whose method, title, family or submitter contains this."""
    tier: Literal["all", "reproduced"] = "all"
    """Which tiers stand on the board and are ranked among each other."""
    family: Annotated[str, Field(max_length=200)] = ""
    """Only methods of this family."""
    retain: Literal["", "yes", "no"] = ""
    """Only methods that need retain data, or that do not."""
    budget: Literal["", "1", "5", "20", "100"] = ""
    """Only rows that cost at most this many per cent of retraining."""
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
        """Whether the order is turned round."""
        return self.sort.startswith("-")

    @property
    def filtered(self) -> bool:
        """Whether any filter is on."""
        return bool(self.q or self.family or self.retain or self.budget or self.complete or self.tier != "all")

    def query(self, **changes: object) -> str:
        """The query string of this view with changes; whatever is at its default is left out."""
        changed = type(self).model_validate({**self.model_dump(), **changes})
        return urlencode({name: _text(value) for name, value in changed.model_dump(exclude_defaults=True).items()})

    def link(self, **changes: object) -> str:
        """The query string as a link: ``?`` and what follows, back on the first page unless a page is given."""
        return "?" + self.query(**{"page": 1, **changes})

    def sort_link(self, key: str) -> str:
        """Link that sorts by a key; turns the order round where the view is sorted by it already."""
        return self.link(sort=f"-{key}" if self.sort == key else key)

    def aria_sort(self, key: str) -> str | None:
        """The value of ``aria-sort`` for a column; None for those that are not sorted."""
        if self.key != key:
            return None
        return "descending" if self.descending else "ascending"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
