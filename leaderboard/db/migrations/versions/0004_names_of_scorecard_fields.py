"""Current names of the fields of stored scorecards, and of the column ``entries.within_band``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NAMES = {"informational": "unranked_reason", "inside": "within_band", "pseudo": "pseudo_values"}
"""Old name of a field -> new name; no metric has one of these names."""
SCORECARDS = (("scores", "entry_id", "card"), ("scores", "entry_id", "brief"), ("verifications", "id", "card"))
"""Table, primary key and column of every stored scorecard."""


def upgrade() -> None:
    op.execute("ALTER TABLE entries RENAME COLUMN inside TO within_band")
    _rename_fields(NAMES)


def downgrade() -> None:
    op.execute("ALTER TABLE entries RENAME COLUMN within_band TO inside")
    _rename_fields({new: old for old, new in NAMES.items()})


def _rename_fields(names: Mapping[str, str]) -> None:
    connection = op.get_bind()
    for table_name, key_name, column_name in SCORECARDS:
        table = sa.table(table_name, sa.column(key_name), sa.column(column_name, sa.JSON))
        key, column = table.c[key_name], table.c[column_name]
        for row_id in connection.scalars(sa.select(key)).all():  # one by one, because scorecards are large
            card = connection.scalar(sa.select(column).where(key == row_id))
            if card is not None:
                connection.execute(sa.update(table).where(key == row_id).values({column: _renamed(card, names)}))


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(name, name): _renamed(item, names) for name, item in value.items()}
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value
