"""Database engine, read and write sessions, and schema migration, for SQLite and PostgreSQL.

SQLite uses a write-ahead log, so that readers never wait for the writer. A write session takes the write lock when it
begins, so that it never fails half-way on a lock.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from forgetbench.errors import ForgetBenchError, UsageError

if TYPE_CHECKING:
    from alembic.config import Config

    from forgetbench.leaderboard.settings import Settings

LOCK_SECONDS = 30
"""Longest wait for another writer."""
MAPPED_BYTES = 2**30
"""Largest part of an SQLite file that connections read through one mapping, in place of a cache for each."""
MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x466F7267
"""Key of PostgreSQL's advisory lock: processes that start at the same time migrate one after the other."""


def parse_url(url: str) -> URL:
    """Parse and check a database URL.

    Raises:
        UsageError: The URL is malformed, or the database is neither SQLite nor PostgreSQL.
    """
    forms = "write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UsageError(f"Malformed database URL: {forms}.") from None
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise UsageError(f"A leaderboard runs on SQLite or PostgreSQL, not on {parsed.get_backend_name()}: {forms}.")
    return parsed


def make_engine(url: str, *, foreign_keys: bool = True, lock_seconds: float = LOCK_SECONDS) -> Engine:
    """Make an engine for a SQLite file or a PostgreSQL server.

    Args:
        url: SQLAlchemy URL.
        foreign_keys: Whether SQLite enforces foreign keys; only migrations, which copy tables, turn this off.
        lock_seconds: Longest wait for another writer of an SQLite file.

    Raises:
        UsageError: The URL is malformed, its driver is not installed, or the file is not writable.
    """
    parsed = parse_url(url)
    # pages read many small JSON columns, on which json.loads spends twice as long
    create = partial(create_engine, parsed, pool_size=10, hide_parameters=True, json_deserializer=from_json)
    if parsed.get_backend_name() != "sqlite":
        try:
            return create(max_overflow=20, pool_pre_ping=True)
        except (ImportError, NoSuchModuleError) as error:
            raise UsageError(
                f"The driver of {parsed.drivername} is not installed ({error}): "
                "`pip install forgetbench[postgresql]`, and write postgresql+psycopg://USER@HOST/NAME."
            ) from error
    if parsed.database:
        _create_private_file(Path(parsed.database))
    engine = create(max_overflow=40, connect_args={"timeout": lock_seconds})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin in _begin below, not implicitly in the driver
        _enable_wal(connection)
        for pragma in (
            "synchronous=FULL",
            f"foreign_keys={'ON' if foreign_keys else 'OFF'}",
            "cache_size=-2000",
            f"mmap_size={MAPPED_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if not options.get("writes", False):
            connection.exec_driver_sql("BEGIN")
            return
        if options.get("waits", True):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        connection.exec_driver_sql("PRAGMA busy_timeout=0")
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={int(lock_seconds * 1000)}")

    return engine


def _create_private_file(file: Path) -> None:
    """Create a database file that only its owner may read, because it holds unlisted entries.

    SQLite creates its log with the same permissions.

    Raises:
        UsageError: The file is not writable.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as error:
        raise UsageError(f"The database {file} cannot be written: {error.strerror}.") from error
    with suppress(PermissionError):  # the file has another owner, who lets us write
        file.chmod(0o600)


def _enable_wal(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log; if two processes do so at once, SQLite refuses one of them without waiting."""
    deadline = time.monotonic() + LOCK_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def latest_revision() -> str:
    """The schema revision of this version; names of migration files begin with it."""
    return max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


class Database:
    """A database: sessions and schema migration.

    Args:
        url: SQLAlchemy URL.
        lock_seconds: Longest wait for another writer of an SQLite file.
    """

    def __init__(self, url: str, lock_seconds: float = LOCK_SECONDS) -> None:
        self.url = url
        self.engine = make_engine(url, lock_seconds=lock_seconds)
        self._writer = self.engine.execution_options(writes=True)

    @contextmanager
    def read_session(self) -> Iterator[Session]:
        """Open a session on a consistent snapshot of the database; nothing is committed."""
        with Session(self.engine, autoflush=False) as session:
            yield session

    @contextmanager
    def write_session(self, *, waits: bool = True) -> Iterator[Session]:
        """Open a session that commits when the block ends, and rolls back on an exception.

        Args:
            waits: Whether to wait for another writer of an SQLite file, rather than to fail at once.
        """
        with Session(self._writer.execution_options(waits=waits)) as session, session.begin():
            yield session

    @contextmanager
    def erasing_session(self) -> Iterator[Session]:
        """Open a write session after which an SQLite file holds nothing of what it deleted or replaced."""
        is_sqlite = self.engine.dialect.name == "sqlite"
        with self.write_session() as session:
            if is_sqlite:
                session.execute(text("PRAGMA secure_delete=ON"))
            yield session
        if is_sqlite:
            with self.engine.connect() as connection:
                connection.rollback()  # a checkpoint runs outside of transactions
                connection.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def upgrade(self, revision: str = "head") -> None:
        """Upgrade the schema to a revision, if necessary.

        Raises:
            ForgetBenchError: The database does not answer, or a newer version created its schema.
        """
        if revision == "head" and self.revision() == latest_revision():
            return  # the usual case at a start: importing alembic takes half a second
        self._check_migratable()
        from alembic import command
        from alembic.util.exc import CommandError

        try:
            with self._migration_config() as config:
                command.upgrade(config, revision)
        except DBAPIError as error:
            raise ForgetBenchError(
                f"Cannot use the database: {' '.join(str(error.orig).split())}. Check that it is running and that the "
                "URL is correct."
            ) from error
        except CommandError as error:
            raise ForgetBenchError(
                f"Unknown database schema ({error}); it was probably created by a newer version of forgetbench. "
                "Upgrade forgetbench."
            ) from error

    def _check_migratable(self) -> None:
        """Refuse a database whose tables no migration made.

        Raises:
            ForgetBenchError: It has tables of a leaderboard, and no revision.
        """
        if self.revision() is not None:
            return
        try:
            tables = set(inspect(self.engine).get_table_names()) & {"boards", "entries", "tokens"}
        except DBAPIError:
            return  # it does not answer, which the migration explains
        if tables:
            raise ForgetBenchError(
                f"The database of this server ({self.engine.url.render_as_string()}) was not made by a release of "
                f"forgetbench: it has the tables {', '.join(sorted(tables))} and no revision. Start with an empty "
                "folder, given by --data, and build the boards again with `forgetbench pack build TASK --install`."
            )

    def downgrade(self, revision: str = "base") -> None:
        """Downgrade the schema to a revision."""
        from alembic import command

        with self._migration_config() as config:
            command.downgrade(config, revision)

    def check(self) -> None:
        """Raise an error if models and migrations differ (``alembic check``)."""
        from alembic import command

        with self._migration_config() as config:
            command.check(config)

    def revision(self) -> str | None:
        """The schema's revision; None for an empty or unreachable database."""
        try:
            with self.engine.connect() as connection:
                return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except DBAPIError:
            return None

    @contextmanager
    def _migration_config(self) -> Iterator[Config]:
        """Alembic configuration with a connection that holds the migration lock."""
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
        """Close all connections."""
        self.engine.dispose()


def prepare_server(settings: Settings, database: Database) -> None:
    """Create the server's folders, readable by their owner only, and upgrade the schema.

    Raises:
        ForgetBenchError: A folder cannot be created, or the database is not usable.
    """
    try:
        settings.server_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (settings.evidence, settings.incoming, settings.packs):
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.stat().st_mode & 0o077:  # from an older version; the parent may belong to the operator
                folder.chmod(0o700)
    except OSError as error:
        raise UsageError(f"Cannot use {settings.server_folder} as the server's folder: {error.strerror}.") from error
    database.upgrade()


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Open the server's database, with folders and schema prepared, and close it afterwards.

    Raises:
        ForgetBenchError: A folder cannot be created, or the database is not usable.
    """
    database = Database(settings.database)
    try:
        prepare_server(settings, database)
        yield database
    finally:
        database.close()
