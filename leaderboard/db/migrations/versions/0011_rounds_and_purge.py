"""Rounds, teams, invitations, purged entries, past placings, notices, and indexes for boards of many rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

OLD_STATES = "state IN ('received', 'scoring', 'listed', 'rejected', 'flagged', 'quarantined', 'withdrawn')"
NEW_STATES = OLD_STATES.replace("'listed'", "'accepted', 'listed'").replace("'withdrawn'", "'withdrawn', 'purged'")
OLD_OVERVIEW = ["board_id", "state", "tier", "status", "family"]
NEW_OVERVIEW = [
    *("board_id", "state", "baseline", "tier", "status", "family", "changes_training", "needs_retain", "budget"),
    *("id", "search_text"),
]
SCOPES = "scope IN ('ranked', 'claimed', 'own originals')"
SQLITE_UNCHANGED = " AND ".join(
    [f"NEW.{name} IS OLD.{name}" for name in ("id", "entry_id", "at", "before", "after")]
    + [f"(NEW.{name} IS OLD.{name} OR NEW.{name} = 'erased')" for name in ("actor", "reason")]
)
POSTGRESQL_UNCHANGED = SQLITE_UNCHANGED.replace(" IS ", " IS NOT DISTINCT FROM ")
SQLITE_TRIGGER = (
    "CREATE TRIGGER events_UPDATE BEFORE UPDATE ON events {condition} "
    "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
)
POSTGRESQL_FUNCTION = (
    "CREATE OR REPLACE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN {condition} RAISE EXCEPTION 'events are append-only'; END $$"
)


def upgrade() -> None:
    with op.batch_alter_table("boards") as batch:
        for name in ("opens_at", "closes_at", "reveals_at", "finals_at"):
            batch.add_column(sa.Column(name, sa.DateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("visibility", sa.String(length=16), server_default="public", nullable=False))
        batch.add_column(sa.Column("team_submissions", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("final_only", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch.create_check_constraint(op.f("ck_boards_visibility"), "visibility IN ('public', 'own', 'accepted')")
    with op.batch_alter_table("tokens") as batch:
        batch.add_column(sa.Column("team", sa.Text(), nullable=True))
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("team", sa.Text(), nullable=True),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("token_days", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitations")),
    )
    op.create_table(
        "sent_notices",
        sa.Column("item", sa.String(length=64), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("item", name=op.f("pk_sent_notices")),
    )
    op.create_table(
        "past_placings",
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("board_id", sa.Integer(), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("low", sa.Integer(), nullable=True),
        sa.Column("high", sa.Integer(), nullable=True),
        sa.Column("distance", sa.Double(), nullable=True),
        sa.Column("verdict", sa.String(length=32), nullable=True),
        sa.CheckConstraint(SCOPES, name=op.f("ck_past_placings_scope")),
        sa.ForeignKeyConstraint(["board_id"], ["boards.id"], name=op.f("fk_past_placings_board_id_boards")),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_past_placings_entry_id_entries")),
        sa.PrimaryKeyConstraint("entry_id", "day", name=op.f("pk_past_placings")),
    )
    op.create_index("ix_past_placings_board_id_day", "past_placings", ["board_id", "day"])
    op.execute("UPDATE entries SET search_text = substr(search_text, 1, 400)")
    with op.batch_alter_table("entries") as batch:
        batch.drop_constraint(op.f("ck_entries_state"), type_="check")
        batch.create_check_constraint(op.f("ck_entries_state"), NEW_STATES)
        batch.drop_index("ix_entries_overview")
        batch.create_index("ix_entries_overview", NEW_OVERVIEW)
        batch.create_index(
            "ix_entries_baseline",
            ["board_id"],
            sqlite_where=sa.text("baseline = 1"),
            postgresql_where=sa.text("baseline"),
        )
    op.create_index("ix_metric_values_sort", "metric_values", ["board_id", "metric", "entry_id", "value"])
    op.create_index("ix_placings_entry_id_position", "placings", ["entry_id", "position"])
    _replace_trigger(
        f"WHEN NOT ({SQLITE_UNCHANGED})", f"IF TG_OP = 'UPDATE' AND {POSTGRESQL_UNCHANGED} THEN RETURN NEW; END IF;"
    )


def downgrade() -> None:
    _replace_trigger("", "")
    op.drop_index("ix_placings_entry_id_position", "placings")
    op.drop_index("ix_metric_values_sort", "metric_values")
    op.execute("UPDATE entries SET state = 'withdrawn' WHERE state = 'purged'")
    op.execute("UPDATE entries SET state = 'quarantined' WHERE state = 'accepted'")
    with op.batch_alter_table("entries") as batch:
        batch.drop_index(
            "ix_entries_baseline", sqlite_where=sa.text("baseline = 1"), postgresql_where=sa.text("baseline")
        )
        batch.drop_index("ix_entries_overview")
        batch.create_index("ix_entries_overview", OLD_OVERVIEW)
        batch.drop_constraint(op.f("ck_entries_state"), type_="check")
        batch.create_check_constraint(op.f("ck_entries_state"), OLD_STATES)
    op.drop_table("past_placings")
    op.drop_table("sent_notices")
    op.drop_table("invitations")
    with op.batch_alter_table("tokens") as batch:
        batch.drop_column("team")
    with op.batch_alter_table("boards") as batch:
        batch.drop_constraint(op.f("ck_boards_visibility"), type_="check")
        for name in (
            *("final_only", "team_submissions", "visibility"),
            *("finals_at", "reveals_at", "closes_at", "opens_at"),
        ):
            batch.drop_column(name)


def _replace_trigger(sqlite: str, postgresql: str) -> None:
    """Let only the erasure of texts through, or nothing."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRESQL_FUNCTION.format(condition=postgresql))
    else:
        op.execute("DROP TRIGGER events_UPDATE")
        op.execute(SQLITE_TRIGGER.format(condition=sqlite))
