"""What a scorecard says of the distance and of recalibration, as a column of entries; their manifests come last."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

BEFORE = (
    *("id", "board_id", "token_id", "submitter", "state", "tier", "baseline", "reproductions", "note", "received_at"),
    *("listed_at", "method", "label", "family", "needs_retain", "changes_training", "sentinel", "fingerprint"),
    *("registered", "manifest_sha256", "status", "reasons", "flags", "distance", "distance_low", "distance_high"),
    *("verdict", "forgotten", "forgotten_low", "forgotten_high", "harm", "harm_low", "harm_high", "cost", "budget"),
    *("cost_class", "outcome", "within_band", "alarms", "suspended", "queued", "search_text"),
)
"""The columns before ``manifest``: SQLite reads a large column to come to those behind it."""


def upgrade() -> None:
    copies = op.get_bind().dialect.name == "sqlite"  # elsewhere a table keeps the order of its columns
    order: list[tuple[str, ...]] = [(*BEFORE, "manifest")]
    with op.batch_alter_table("entries", recreate="always" if copies else "never", partial_reordering=order) as batch:
        batch.add_column(sa.Column("outcome", sa.JSON(), nullable=True))
    connection = op.get_bind()
    entries = sa.table("entries", sa.column("id"), sa.column("outcome", sa.JSON))
    scores = sa.table("scores", sa.column("entry_id"), sa.column("brief", sa.JSON))
    for entry_id in connection.scalars(sa.select(scores.c.entry_id)).all():  # one by one: scorecards are large
        brief = connection.scalar(sa.select(scores.c.brief).where(scores.c.entry_id == entry_id))
        update = sa.update(entries).where(entries.c.id == entry_id)
        connection.execute(update.values(outcome=_outcome(brief)))


def downgrade() -> None:
    with op.batch_alter_table("entries") as batch:
        batch.drop_column("outcome")


def _outcome(card: Any) -> dict[str, Any]:
    """The outcome in a stored scorecard, which an earlier protocol may have made."""
    kept = card.get("recalibration") or {}
    return {
        "decided_by": (card.get("distance") or {}).get("metric") or "",
        "tested": kept.get("recoverable") is not None,
        "recoverable": bool(kept.get("recoverable")),
        "recovered": (kept.get("recovered") or {}).get("value"),
        "reason": kept.get("reason") or "",
        "p": kept.get("p"),
    }
