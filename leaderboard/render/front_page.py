"""The front page: variables of its template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from sqlalchemy.orm import Session

from forgetbench.leaderboard.boards.matrix import MatrixView, matrix_rows
from forgetbench.leaderboard.boards.queries import current_boards
from forgetbench.leaderboard.boards.shipped import package_version
from forgetbench.leaderboard.render.matrix import Matrix, choices, server_matrix, shipped_matrix
from forgetbench.reproduction.reference_file import ReferenceBoard
from forgetbench.tasks.task import Task


class FrontPage(TypedDict):
    """Variables of the template."""

    view: MatrixView
    matrix: Matrix | None
    """This server's boards; None where it has none."""
    shipped: Matrix | None
    """The results that ship with the package; None where none are shown."""
    summary_line: str
    version: str
    image_sets: list[str]
    networks: list[str]
    tasks: Sequence[Task]
    """Tasks for which a board can be created without a download; empty where there is a board."""


def front_page(session: Session, view: MatrixView, shipped: Sequence[ReferenceBoard]) -> FrontPage:
    """What the front page shows.

    Args:
        session: Where to read.
        view: Filters and sorting.
        shipped: Results that ship with the package.
    """
    own = [board.task for board in current_boards(session)]
    matrix = server_matrix(matrix_rows(session, view), view) if own else None
    other = shipped_matrix(shipped, view) if shipped and view.tier == "all" else None
    image_sets, networks = choices([*own, *(board.task for board in shipped)])
    own_words, shipped_words = (found.headline if found else "" for found in (matrix, other))
    if own_words and shipped_words:
        shipped_words = f"On the boards that ship with the package: {shipped_words}"
    return {
        "view": view,
        "matrix": matrix,
        "shipped": other,
        "summary_line": " ".join(filter(None, (own_words, shipped_words))),
        "version": package_version(),
        "image_sets": image_sets,
        "networks": networks,
        "tasks": (),
    }
