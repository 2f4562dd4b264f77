"""Runs of submitted methods by the board's own runner, and heartbeats of runners."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "board_runs",
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("code", sa.JSON(), nullable=False),
        sa.Column("progress", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("runner", sa.Text(), nullable=True),
        sa.Column("cost", sa.JSON(), nullable=True),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'running', 'done', 'failed')", name=op.f("ck_board_runs_state")),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_board_runs_entry_id_entries")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_board_runs")),
    )
    with op.batch_alter_table("entries") as batch:
        batch.add_column(sa.Column("cost_class", sa.String(length=32), nullable=True))
    with op.batch_alter_table("scoring_processes") as batch:
        batch.add_column(sa.Column("runs_methods", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("scoring_processes") as batch:
        batch.drop_column("runs_methods")
    with op.batch_alter_table("entries") as batch:
        batch.drop_column("cost_class")
    op.drop_table("board_runs")
