"""Empty databases for tests, on SQLite or on a PostgreSQL server that the tests start."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from forgetbench.leaderboard.settings import Settings

POSTGRESQL_PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
"""Folder of the PostgreSQL programs; None if it is not installed."""


class PostgresServer:
    """A PostgreSQL server in a temporary folder; as root it runs as the user postgres."""

    def __init__(self) -> None:
        self.user = "postgres" if os.geteuid() == 0 else None
        self.created: list[str] = []
        memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes the folder private, and a socket's path must be short
        self.folder = Path(tempfile.mkdtemp(prefix="forgetbench-pg-", dir=memory if memory.is_dir() else None))
        if self.user:
            shutil.chown(self.folder, self.user)
        self._call("initdb", "-D", self._data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=300"
        log = str(self.folder / "log")
        self._call("pg_ctl", "-D", self._data, "-w", "-t", "300", "-l", log, "-o", options, "start")

    def crash(self) -> None:
        """Stop the server as a failure would: without a checkpoint."""
        self._call("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def remove(self) -> None:
        """Stop the server, and delete its folder."""
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, template: str = "template1") -> str:
        """Create a database as a copy of another; returns its URL."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self._execute(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        self.created.append(name)
        return f"postgresql+psycopg://tester@/{name}?host={self.folder}"

    def drop_since(self, count: int) -> None:
        """Drop all databases but the first ``count``."""
        while len(self.created) > count:
            self._execute(f"DROP DATABASE {self.created.pop()} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(f"host={self.folder} user=tester dbname=postgres", autocommit=True) as connection:
            connection.execute(statement)

    def _call(self, program: str, *arguments: str) -> None:
        assert POSTGRESQL_PROGRAMS is not None
        command = [str(POSTGRESQL_PROGRAMS / program), *arguments]
        subprocess.run(command, user=self.user, check=True, stdout=subprocess.DEVNULL)


class Databases:
    """Creates databases, and copies of them: SQLite files, or databases of a PostgreSQL server."""

    def __init__(self, server: PostgresServer | None) -> None:
        self.server = server

    @contextmanager
    def dropped_after(self) -> Iterator[None]:
        """Drop what is created in the block: hundreds of databases would fill the memory that holds them."""
        count = len(self.server.created) if self.server else 0
        yield
        if self.server:
            self.server.drop_since(count)

    def new_url(self) -> str:
        """URL of a new database; "" for a SQLite file in the server's folder."""
        return self.server.create() if self.server else ""

    def copy(self, settings: Settings, folder: Path) -> Settings:
        """Copy a leaderboard: its folder and its database."""
        shutil.copytree(settings.server_folder, folder)
        url = self.server.create(str(make_url(settings.database_url).database)) if self.server else ""
        return Settings(server_folder=folder, database_url=url)
