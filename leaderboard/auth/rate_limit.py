"""Rate limits per address and per token, counted in the database where several web processes share a limit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, Storage
from limits.strategies import FixedWindowRateLimiter
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import SQLAlchemyError

from forgetbench.leaderboard.db.models import RateCount
from forgetbench.leaderboard.errors import Problem

if TYPE_CHECKING:
    from forgetbench.leaderboard.db.session import Database
    from forgetbench.leaderboard.settings import Settings


class DatabaseStorage(Storage):
    """Storage backend of ``limits`` whose counters are rows of the database."""

    STORAGE_SCHEME = None

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database

    @property
    def base_exceptions(self) -> type[Exception]:
        """Exceptions of the backend."""
        return SQLAlchemyError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Increment a counter, and return its value."""
        now = time.time()
        insert = postgresql_insert if self.database.engine.dialect.name == "postgresql" else sqlite_insert
        with self.database.write_session() as session:
            session.execute(delete(RateCount).where(RateCount.expires_at < now - 60))
            row = insert(RateCount).values(key=key, count=amount, expires_at=now + expiry)
            upsert = row.on_conflict_do_update(
                index_elements=[RateCount.key], set_={"count": RateCount.count + amount}
            ).returning(RateCount.count)
            return int(session.execute(upsert).scalar_one())

    def get(self, key: str) -> int:
        """Value of a counter."""
        with self.database.read_session() as session:
            return session.scalar(select(RateCount.count).where(RateCount.key == key)) or 0

    def get_expiry(self, key: str) -> float:
        """End of a counter's window, in seconds since 1970."""
        with self.database.read_session() as session:
            return session.scalar(select(RateCount.expires_at).where(RateCount.key == key)) or time.time()

    def check(self) -> bool:
        """Whether the database answers."""
        return self.get("") == 0

    def reset(self) -> int | None:
        """Delete all counters."""
        with self.database.write_session() as session:
            session.execute(delete(RateCount))
        return None

    def clear(self, key: str) -> None:
        """Delete one counter."""
        with self.database.write_session() as session:
            session.execute(delete(RateCount).where(RateCount.key == key))


class RateLimits:
    """Read and write limits of one application."""

    def __init__(self, settings: Settings, database: Database) -> None:
        shared = database.engine.dialect.name == "postgresql"
        self._read_limiter = FixedWindowRateLimiter(MemoryStorage())
        self._write_limiter = FixedWindowRateLimiter(DatabaseStorage(database) if shared else MemoryStorage())
        self._read_limit = RateLimitItemPerMinute(settings.reads_per_minute)
        self._write_limit = RateLimitItemPerMinute(settings.writes_per_minute)

    def count_read(self, *clients: str) -> None:
        """Count a read request of an address, and of a token if there is one.

        Reads are counted per process: a count in the database would cost more than most pages.

        Raises:
            Problem: 429, a client exceeded the limit.
        """
        self._count(self._read_limiter, self._read_limit, clients)

    def count_write(self, *clients: str) -> None:
        """Count a write request of an address and a token.

        Raises:
            Problem: 429, a client exceeded the limit.
        """
        self._count(self._write_limiter, self._write_limit, clients)

    @staticmethod
    def _count(limiter: FixedWindowRateLimiter, limit: RateLimitItemPerMinute, clients: tuple[str, ...]) -> None:
        for client in clients:
            if not limiter.hit(limit, client):
                seconds = max(1, int(limiter.get_window_stats(limit, client).reset_time - time.time()) + 1)
                detail = f"Too many requests; try again in {seconds} s."
                raise Problem(429, detail, headers={"Retry-After": str(seconds)})
