"""Pages of the past: what changed, and the best distance of a board over time."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from forgetbench.leaderboard.auth.dependencies import DatabaseDep
from forgetbench.leaderboard.boards import queries
from forgetbench.leaderboard.boards.view import PackHash
from forgetbench.leaderboard.db.models import utc_now
from forgetbench.leaderboard.render import history_page
from forgetbench.leaderboard.web.routes.pages import Content, respond, split_ending

router = APIRouter()
LogPage = Annotated[int, Query(ge=1, le=10_000)]


@router.get("/history")
@router.get("/history.{ending}")
def history(request: Request, database: DatabaseDep, page: LogPage = 1, ending: str = "") -> Response:
    """All boards with their best distance, and a log of changes."""
    with database.read_session() as session:

        def make() -> Content:
            context = history_page.history_context(session, page)
            return Content(context, lambda: history_page.log_tables(context["log"]))

        return respond(request, session, "history.html", ending, make)


@router.get("/history/{task:path}")
def board_history(
    request: Request, database: DatabaseDep, task: str, page: LogPage = 1, pack: PackHash = ""
) -> Response:
    """One board: its best distance over time, and a log of its changes."""
    with database.read_session() as session:
        task, ending = split_ending(task, partial(queries.board_exists, session))

        def make() -> Content:
            board = queries.get_board(session, task, pack or None)
            context = history_page.board_history_context(session, board, page)
            steps = history_page.steps_table(context["steps"])
            return Content(context, lambda: [steps, *history_page.log_tables(context["log"])])

        return respond(request, session, "history.html", ending, make, str(utc_now().date()))
