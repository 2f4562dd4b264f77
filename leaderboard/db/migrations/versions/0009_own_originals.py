"""Verified rows whose method trains its own originals have a ranking of their own."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OLD = "scope IN ('ranked', 'claimed')"
NEW = "scope IN ('ranked', 'claimed', 'own originals')"


def upgrade() -> None:
    _replace(NEW)


def downgrade() -> None:
    op.execute("DELETE FROM placings WHERE scope = 'own originals'")
    _replace(OLD)


def _replace(condition: str) -> None:
    with op.batch_alter_table("placings") as batch:
        batch.drop_constraint(op.f("ck_placings_scope"), type_="check")
        batch.create_check_constraint(op.f("ck_placings_scope"), condition)
