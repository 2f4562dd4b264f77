"""Verdicts, *forgotten* and *harm* of entries; the column ``verifications.verdict`` is called ``outcome``.

Entries keep their scores of protocol 1 until the scoring worker has computed them again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OUTCOMES = "IN ('received', 'reproduced', 'not reproduced', 'failed')"
NUMBERS = ("forgotten", "forgotten_low", "forgotten_high", "harm", "harm_low", "harm_high")


def upgrade() -> None:
    _rename("verdict", "outcome")
    with op.batch_alter_table("entries") as batch:
        batch.add_column(sa.Column("verdict", sa.String(length=32), nullable=True))
        for name in NUMBERS:
            batch.add_column(sa.Column(name, sa.Double(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("entries") as batch:
        for name in reversed(NUMBERS):
            batch.drop_column(name)
        batch.drop_column("verdict")
    _rename("outcome", "verdict")


def _rename(old: str, new: str) -> None:
    """Rename the column of outcomes and its constraint."""
    with op.batch_alter_table("verifications") as batch:
        batch.drop_constraint(op.f(f"ck_verifications_{old}"), type_="check")
        batch.alter_column(old, new_column_name=new)
    with op.batch_alter_table("verifications") as batch:
        batch.create_check_constraint(op.f(f"ck_verifications_{new}"), f"{new} {OUTCOMES}")
