"""Attacks on entries: evidence of anybody with a token, and of the board's runner."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STATES = "state IN ('received', 'claimed', 'repeated', 'failed')"


def upgrade() -> None:
    op.create_table(
        "known_attacks",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("token_id", sa.String(length=16), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("runner", sa.Boolean(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("flops", sa.Double(), nullable=True),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("z", sa.Double(), nullable=True),
        sa.Column("outside", sa.Boolean(), nullable=True),
        sa.Column("recoverable", sa.Boolean(), nullable=True),
        sa.Column("card", sa.JSON(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.CheckConstraint(STATES, name=op.f("ck_known_attacks_state")),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_known_attacks_entry_id_entries")),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name=op.f("fk_known_attacks_token_id_tokens")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_known_attacks")),
    )
    op.create_index("ix_known_attacks_entry_id", "known_attacks", ["entry_id"])


def downgrade() -> None:
    op.drop_table("known_attacks")
