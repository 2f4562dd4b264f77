"""The results that ship with the package, as read-only boards of their own.

They were recorded on other originals and oracles than those of this server, so they are never in one order with rows of
its boards, and nothing can be submitted to them.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from forgetbench.leaderboard.errors import Link, Problem

if TYPE_CHECKING:
    from forgetbench.reproduction.reference_board import ReferenceBoard


@lru_cache(maxsize=1)
def shipped_tasks() -> tuple[str, ...]:
    """The tasks with shipped results, sorted."""
    from forgetbench.reproduction.reference_board import reference_tasks  # loads scipy

    return tuple(reference_tasks())


@lru_cache(maxsize=32)
def shipped_board(task: str) -> ReferenceBoard:
    """The shipped results of a task.

    Raises:
        Problem: 404, there are none.
    """
    from forgetbench.reproduction.reference_board import read_board

    if task not in shipped_tasks():
        detail = f"No results of {task[:100]!r} ship with the package."
        raise Problem(404, detail, links=[Link("all shipped results", "/shipped")])
    return read_board(task)


@lru_cache(maxsize=1)
def package_version() -> str:
    """Version of the package that the results came with."""
    return version("forgetbench")
