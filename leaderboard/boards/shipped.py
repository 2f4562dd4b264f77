"""The results that ship with the package, as read-only boards of their own.

They were recorded on other originals and oracles than those of this server, so they are never in one order with rows of
its boards, and nothing can be submitted to them.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version

from forgetbench.leaderboard.errors import Link, Problem
from forgetbench.reproduction.reference_file import ReferenceBoard, read_board, reference_tasks


@lru_cache(maxsize=1)
def shipped_tasks() -> tuple[str, ...]:
    """The tasks with shipped results, sorted."""
    return tuple(reference_tasks())


@lru_cache(maxsize=64)
def shipped_board(task: str) -> ReferenceBoard:
    """The shipped results of a task.

    Raises:
        Problem: 404, there are none.
    """
    if task not in shipped_tasks():
        detail = f"No results of {task[:100]!r} ship with the package."
        raise Problem(404, detail, links=[Link("all shipped results", "/shipped")])
    return read_board(task)


def shipped_boards() -> list[ReferenceBoard]:
    """All shipped results, by task."""
    return [shipped_board(task) for task in shipped_tasks()]


def is_shipped(name: str) -> bool:
    """Whether a method of that name has shipped results."""
    return any(
        row.label.partition(":")[0] == name for board in shipped_boards() for row in board.rows[board.references :]
    )


@lru_cache(maxsize=1)
def package_version() -> str:
    """Version of the package that the results came with."""
    return version("forgetbench")
