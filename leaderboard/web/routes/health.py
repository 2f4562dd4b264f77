"""Whether the process runs, and whether it can answer."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.db import queue as jobs
from forgetbench.leaderboard.errors import Problem, ProblemDocument
from forgetbench.leaderboard.render.schemas import Health

router = APIRouter()


@router.get("/health", response_model_exclude_none=True)
def health() -> Health:
    """The process runs."""
    return Health(status="ok")


@router.get("/ready", responses={503: {"model": ProblemDocument, "description": "Not ready"}})
def ready(database: DatabaseDep, settings: SettingsDep, response: Response) -> Health:
    """The database answers, with the tables that this version needs.

    A scoring process that is gone does not make the site unready, for pages are served without one: `scoring` says so.
    """
    try:
        with database.reading() as session:
            session.execute(text("SELECT 1 FROM boards LIMIT 1"))
            scoring = jobs.trouble(session, settings.lease_seconds)
    except SQLAlchemyError as error:
        raise Problem(503, "The database does not answer.") from error
    response.headers["Cache-Control"] = "no-store"
    return Health(status="ready", scoring=scoring or "ok")
