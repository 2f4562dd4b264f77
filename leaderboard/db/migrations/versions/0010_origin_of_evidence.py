"""Where evidence comes from: sketches that find copies, suspended places, and fingerprints of methods."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

FINGERPRINT = {
    "sqlite": "COALESCE(json_extract(manifest, '$.method.fingerprint'), "
    "json_extract(manifest, '$.method.source_sha256'))",
    "postgresql": "COALESCE(manifest->'method'->>'fingerprint', manifest->'method'->>'source_sha256')",
}
"""Database -> the fingerprint in an entry's manifest; versions before 0.2 called it ``source_sha256``."""


def upgrade() -> None:
    with op.batch_alter_table("entries") as batch:
        batch.add_column(sa.Column("suspended", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch.add_column(sa.Column("fingerprint", sa.String(length=80), nullable=True))
        batch.add_column(sa.Column("registered", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(f"UPDATE entries SET fingerprint = {FINGERPRINT[op.get_bind().dialect.name]}")  # noqa: S608 - constants
    with op.batch_alter_table("scores") as batch:
        batch.add_column(sa.Column("sketch", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("scores") as batch:
        batch.drop_column("sketch")
    with op.batch_alter_table("entries") as batch:
        for name in ("registered", "fingerprint", "suspended"):
            batch.drop_column(name)
