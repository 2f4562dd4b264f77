"""Alembic's environment: the connection comes from ``Database``; there is no alembic.ini."""

from __future__ import annotations

from alembic import context

from forgetbench.leaderboard.db.models import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
