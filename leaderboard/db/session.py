"""The database: one engine, sessions that read, sessions that write, and migration to the newest schema.

SQLite runs with a write-ahead log, so that readers never wait for the writer; a writing session takes the write lock
when it begins, so that it never fails half-way for a lock. PostgreSQL is chosen by its URL.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from forgetbench.errors import ForgetBenchError, UsageError

if TYPE_CHECKING:
    from alembic.config import Config

LOCK_SECONDS = 30
"""How long a writer waits for another."""
MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x466F7267
"""Key of PostgreSQL's advisory lock: two processes that start at once migrate one after the other."""


def parse_url(url: str) -> URL:
    """The URL of a database that a leaderboard runs on.

    Raises:
        UsageError: It is no URL, or of another database.
    """
    how = "write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UsageError(f"The database is given by a URL, and this is none: {how}.") from None
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise UsageError(f"A leaderboard runs on SQLite or PostgreSQL, not on {parsed.get_backend_name()}: {how}.")
    return parsed


def make_engine(url: str, *, foreign_keys: bool = True) -> Engine:
    """An engine for a SQLite file or a PostgreSQL server.

    Args:
        url: SQLAlchemy URL.
        foreign_keys: Whether SQLite holds foreign keys; only migrations, which copy tables, turn it off.

    Raises:
        UsageError: The URL is none, its driver is not installed, or the file cannot be written.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        try:
            return create_engine(parsed, pool_size=10, max_overflow=20, pool_pre_ping=True, hide_parameters=True)
        except (ImportError, NoSuchModuleError) as error:
            raise UsageError(
                f"The driver of {parsed.drivername} is not installed ({error}): "
                "`pip install forgetbench[postgresql]`, and write postgresql+psycopg://USER@HOST/NAME."
            ) from error
    if parsed.database:
        _make_private(Path(parsed.database))
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


def _make_private(file: Path) -> None:
    """Make a database's file, which its owner alone may read: it holds what is not listed. SQLite's log follows it.

    Raises:
        UsageError: It cannot be made there.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as error:
        raise UsageError(f"The database {file} cannot be written: {error.strerror}.") from error
    with suppress(PermissionError):  # somebody else's, who lets us write
        file.chmod(0o600)


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
        """Bring the schema to a revision; does nothing where it is there.

        Raises:
            ForgetBenchError: The database does not answer, or its schema is of a newer version.
        """
        if revision == "head" and self.revision() == newest_revision():
            return  # as at most starts: alembic takes half a second to import
        from alembic import command
        from alembic.util.exc import CommandError

        try:
            with self._migrating() as config:
                command.upgrade(config, revision)
        except DBAPIError as error:
            raise ForgetBenchError(
                f"The database cannot be used: {' '.join(str(error.orig).split())}. Does it run, and is its URL right?"
            ) from error
        except CommandError as error:
            raise ForgetBenchError(
                f"The database's schema is none that this version knows ({error}); did a newer version make it?"
            ) from error

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
