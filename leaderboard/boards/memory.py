"""What is read from the database once per revision of a board."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy.orm import Session

from forgetbench.leaderboard.db.models import Board

T = TypeVar("T")


class OncePerRevision(Generic[T]):
    """The results of a query that were used last, by database, board and revision; thread-safe.

    Args:
        limit: Results that are kept for each database.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, Lock()
        self._kept: WeakKeyDictionary[object, OrderedDict[Hashable, T]] = WeakKeyDictionary()

    def get(self, session: Session, board: Board, key: Hashable, read: Callable[[], T]) -> T:
        """The result of a query.

        Args:
            session: Where it is read.
            board: The board.
            key: What tells it from other results for this board.
            read: Reads it, where it is not known for the board's present revision.
        """
        complete = (board.id, board.revision, key)
        with self._lock:
            kept = self._kept.setdefault(session.get_bind(), OrderedDict())
            if complete in kept:
                kept.move_to_end(complete)
                return kept[complete]
        found = read()
        with self._lock:
            kept[complete] = found
            while len(kept) > self._limit:
                kept.popitem(last=False)
        return found
