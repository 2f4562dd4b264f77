"""How many requests an address and a token may make; counted in the database where several processes serve."""

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
    """Counters as rows; ``limits`` does the rest."""

    STORAGE_SCHEME = None

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database

    @property
    def base_exceptions(self) -> type[Exception]:
        """What may go wrong."""
        return SQLAlchemyError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, and return the count of the window."""
        now = time.time()
        insert = postgresql_insert if self.database.engine.dialect.name == "postgresql" else sqlite_insert
        with self.database.writing() as session:
            session.execute(delete(RateCount).where(RateCount.expires_at < now - 60))
            row = insert(RateCount).values(key=key, count=amount, expires_at=now + expiry)
            counted = row.on_conflict_do_update(
                index_elements=[RateCount.key], set_={"count": RateCount.count + amount}
            ).returning(RateCount.count)
            return int(session.execute(counted).scalar_one())

    def get(self, key: str) -> int:
        """The count of a window."""
        with self.database.reading() as session:
            return session.scalar(select(RateCount.count).where(RateCount.key == key)) or 0

    def get_expiry(self, key: str) -> float:
        """When a window ends."""
        with self.database.reading() as session:
            return session.scalar(select(RateCount.expires_at).where(RateCount.key == key)) or time.time()

    def check(self) -> bool:
        """Whether the database answers."""
        return self.get("") == 0

    def reset(self) -> int | None:
        """Forget all counts."""
        with self.database.writing() as session:
            session.execute(delete(RateCount))
        return None

    def clear(self, key: str) -> None:
        """Forget one count."""
        with self.database.writing() as session:
            session.execute(delete(RateCount).where(RateCount.key == key))


class Limits:
    """The limits of one application."""

    def __init__(self, settings: Settings, database: Database) -> None:
        shared = database.engine.dialect.name == "postgresql"
        self._reads = FixedWindowRateLimiter(MemoryStorage())
        self._writes = FixedWindowRateLimiter(DatabaseStorage(database) if shared else MemoryStorage())
        self._read = RateLimitItemPerMinute(settings.reads_per_minute)
        self._write = RateLimitItemPerMinute(settings.writes_per_minute)

    def read(self, *who: str) -> int | None:
        """Count a reading request for an address, and a token where there is one; seconds to wait after too many.

        These are counted in each process, for a count in the database would cost more than the page.
        """
        waits = (self._count(self._reads, self._read, name) for name in who)
        return next((wait for wait in waits if wait is not None), None)

    def write(self, *who: str) -> None:
        """Count a writing request for an address and a token.

        Raises:
            Problem: 429, there were too many.
        """
        for name in who:
            wait = self._count(self._writes, self._write, name)
            if wait is not None:
                raise Problem(429, "Too many requests; wait a little.", headers={"Retry-After": str(wait)})

    @staticmethod
    def _count(limiter: FixedWindowRateLimiter, item: RateLimitItemPerMinute, name: str) -> int | None:
        if limiter.hit(item, name):
            return None
        return max(1, int(limiter.get_window_stats(item, name).reset_time - time.time()) + 1)
