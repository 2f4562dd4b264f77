"""Alarms for moderators, flags of identical verifications, and heartbeats of scoring workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

QUEUED = (
    "UPDATE entries SET queued = {true} WHERE tier <> 'reference' AND (state IN ('flagged', 'quarantined') "
    "OR (state = 'listed' AND CAST(flags AS TEXT) LIKE '%suspicious%'))"
)
ALARMS = (
    """UPDATE entries SET alarms = '["suspicious: lira.forget or js is below the band of the oracles"]' """
    "WHERE tier <> 'reference' AND CAST(flags AS TEXT) LIKE '%suspicious%'"
)


def upgrade() -> None:
    op.create_table(
        "scoring_processes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_scoring_processes")),
    )
    with op.batch_alter_table("verifications") as batch:
        batch.add_column(sa.Column("identical", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch.add_column(sa.Column("note", sa.Text(), nullable=True))
    with op.batch_alter_table("entries") as batch:
        batch.add_column(sa.Column("alarms", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("queued", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch.create_index(
            "ix_entries_queued", ["queued"], sqlite_where=sa.text("queued = 1"), postgresql_where=sa.text("queued")
        )
    true = "true" if op.get_bind().dialect.name == "postgresql" else "1"
    op.execute(ALARMS)
    op.execute(QUEUED.format(true=true))


def downgrade() -> None:
    with op.batch_alter_table("entries") as batch:
        batch.drop_index("ix_entries_queued")
        batch.drop_column("queued")
        batch.drop_column("alarms")
    with op.batch_alter_table("verifications") as batch:
        batch.drop_column("note")
        batch.drop_column("identical")
    op.drop_table("scoring_processes")
