"""Rank intervals of single rows instead of tie groups."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("placings", "tie_group")


def downgrade() -> None:
    """Every row gets a number of its own, until the board is ranked again."""
    op.add_column("placings", sa.Column("tie_group", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE placings SET tie_group = position")
