"""The database: one engine, sessions that read, sessions that write, and migration to the newest schema.

SQLite runs with a write-ahead log, so that readers never wait for the writer; a writing session takes the write lock
when it begins, so that it never fails half-way for a lock. PostgreSQL is chosen by its URL.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from alembic.config import Config

LOCK_SECONDS = 30
"""How long a writer waits for another."""
MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x466F7267
"""Key of PostgreSQL's advisory lock: two processes that start at once migrate one after the other."""


def make_engine(url: str, *, foreign_keys: bool = True) -> Engine:
    """An engine for a SQLite file or a PostgreSQL server.

    Args:
        url: SQLAlchemy URL.
        foreign_keys: Whether SQLite holds foreign keys; only migrations, which copy tables, turn it off.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_size=10, max_overflow=20, pool_pre_ping=True, hide_parameters=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed, pool_size=10, max_overflow=40, connect_args={"timeout": LOCK_SECONDS}, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin below, and not when the driver thinks best
        _keep_a_log(connection)
        for pragma in (
            "synchronous=FULL",
            f"foreign_keys={'ON' if foreign_keys else 'OFF'}",
            "cache_size=-2000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _keep_a_log(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on; where two processes do so at once, SQLite refuses one of them without waiting."""
    until = time.monotonic() + LOCK_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def newest_revision() -> str:
    """The revision that this version needs: migrations are files that begin with their number."""
    return max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


class Database:
    """Sessions on one database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = make_engine(url)
        self._writer = self.engine.execution_options(writes=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one state of the database and changes nothing."""
        with Session(self.engine, autoflush=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session whose changes are kept, all of them, when the block ends without an error."""
        with Session(self._writer) as session, session.begin():
            yield session

    def upgrade(self, revision: str = "head") -> None:
        """Bring the schema to a revision; does nothing where it is there."""
        if revision == "head" and self.revision() == newest_revision():
            return  # as at most starts: alembic takes half a second to import
        from alembic import command

        with self._migrating() as config:
            command.upgrade(config, revision)

    def downgrade(self, revision: str = "base") -> None:
        """Take the schema back to a revision."""
        from alembic import command

        with self._migrating() as config:
            command.downgrade(config, revision)

    def check(self) -> None:
        """Raise if models and migrations differ (``alembic check``)."""
        from alembic import command

        with self._migrating() as config:
            command.check(config)

    def revision(self) -> str | None:
        """The schema's revision; None where there is none yet."""
        try:
            with self.engine.connect() as connection:
                return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except DBAPIError:
            return None

    @contextmanager
    def _migrating(self) -> Iterator[Config]:
        from alembic.config import Config

        engine = make_engine(self.url, foreign_keys=False)
        try:
            with engine.execution_options(writes=True).begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
                config = Config()
                config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
                config.attributes["connection"] = connection
                yield config
        finally:
            engine.dispose()

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()
