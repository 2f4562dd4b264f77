"""Sealed boards; tiers that rank apart; baselines as a column; the count of reproductions.

Rows of earlier versions were scored from what their submitters uploaded, so all of them become claims.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OLD_OWNER = "(tier = 'reference') = (token_id IS NULL)"
NEW_OWNER = "baseline = (token_id IS NULL) AND (tier = 'reference' OR NOT baseline)"
OLD_TIERS = "tier IN ('reference', 'recomputed', 'reproduced')"
NEW_TIERS = "tier IN ('claimed', 'verified', 'reference')"
OLD_SCOPES = "scope IN ('all', 'reproduced')"
NEW_SCOPES = "scope IN ('ranked', 'claimed')"
COUNT = (
    "UPDATE entries SET reproductions = (SELECT COUNT(DISTINCT token_id) FROM verifications "
    "WHERE entry_id = entries.id AND outcome = 'reproduced' AND NOT identical)"
)


def upgrade() -> None:
    with op.batch_alter_table("boards") as batch:
        batch.add_column(sa.Column("round", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("salt", sa.Text(), nullable=True))
        batch.add_column(sa.Column("revealed_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("scores") as batch:
        batch.add_column(sa.Column("public", sa.JSON(), nullable=True))
    with op.batch_alter_table("entries") as batch:
        batch.drop_constraint(op.f("ck_entries_owner"), type_="check")
        batch.drop_constraint(op.f("ck_entries_tier"), type_="check")
        batch.add_column(sa.Column("baseline", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch.add_column(sa.Column("reproductions", sa.Integer(), server_default="0", nullable=False))
    entries = sa.table("entries", sa.column("tier"), sa.column("baseline", sa.Boolean))
    op.execute(sa.update(entries).where(entries.c.tier == "reference").values(baseline=True))
    op.execute("UPDATE entries SET tier = 'claimed' WHERE tier <> 'reference'")
    op.execute(COUNT)
    with op.batch_alter_table("entries") as batch:
        batch.create_check_constraint(op.f("ck_entries_owner"), NEW_OWNER)
        batch.create_check_constraint(op.f("ck_entries_tier"), NEW_TIERS)
    _replace_scopes(NEW_SCOPES, {"all": "claimed"})


def downgrade() -> None:
    _replace_scopes(OLD_SCOPES, {"ranked": "all", "claimed": "all"})
    with op.batch_alter_table("entries") as batch:
        batch.drop_constraint(op.f("ck_entries_owner"), type_="check")
        batch.drop_constraint(op.f("ck_entries_tier"), type_="check")
    op.execute("UPDATE entries SET tier = 'recomputed' WHERE token_id IS NOT NULL")
    op.execute("UPDATE entries SET tier = 'reproduced' WHERE token_id IS NOT NULL AND reproductions > 0")
    with op.batch_alter_table("entries") as batch:
        batch.drop_column("reproductions")
        batch.drop_column("baseline")
        batch.create_check_constraint(op.f("ck_entries_owner"), OLD_OWNER)
        batch.create_check_constraint(op.f("ck_entries_tier"), OLD_TIERS)
    with op.batch_alter_table("scores") as batch:
        batch.drop_column("public")
    with op.batch_alter_table("boards") as batch:
        batch.drop_column("revealed_at")
        batch.drop_column("salt")
        batch.drop_column("round")


def _replace_scopes(scopes: str, names: dict[str, str]) -> None:
    """Rename the rankings of placings; placings in others are removed until the board is ranked again."""
    with op.batch_alter_table("placings") as batch:
        batch.drop_constraint(op.f("ck_placings_scope"), type_="check")
    placings = sa.table("placings", sa.column("scope", sa.String))
    op.execute(sa.delete(placings).where(placings.c.scope.not_in(names)))
    for before, after in names.items():
        op.execute(sa.update(placings).where(placings.c.scope == before).values(scope=after))
    with op.batch_alter_table("placings") as batch:
        batch.create_check_constraint(op.f("ck_placings_scope"), scopes)
