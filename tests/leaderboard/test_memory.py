"""Results of queries that are kept until a board's revision changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from forgetbench.leaderboard.boards.memory import OncePerRevision


class Engine:
    """A database."""


def session_of(engine: Engine) -> Any:
    return SimpleNamespace(get_bind=lambda: engine)


def board_of(number: int, revision: int) -> Any:
    return SimpleNamespace(id=number, revision=revision)


def test_result_is_read_once_for_each_revision_board_and_key() -> None:
    kept, reads, session = OncePerRevision[int](limit=10), list[int](), session_of(Engine())

    def read() -> int:
        reads.append(len(reads))
        return len(reads)

    wanted = [(board_of(1, 1), "rank"), (board_of(1, 2), "rank"), (board_of(2, 1), "rank"), (board_of(1, 2), "cost")]
    assert [kept.get(session, board, key, read) for board, key in wanted] == [1, 2, 3, 4]
    assert [kept.get(session, board, key, read) for board, key in wanted] == [1, 2, 3, 4]
    assert kept.get(session_of(Engine()), *wanted[0], read) == 5


def test_result_that_was_used_least_recently_is_dropped() -> None:
    kept, session, board = OncePerRevision[str](limit=2), session_of(Engine()), board_of(1, 1)
    read: list[str] = []

    def get(key: str) -> str:
        def read_it() -> str:
            read.append(key)
            return key

        return kept.get(session, board, key, read_it)

    assert [get(key) for key in "abacacb"] == list("abacacb")
    assert read == ["a", "b", "c", "b"]
