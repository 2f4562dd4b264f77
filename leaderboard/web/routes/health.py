"""Health routes: whether the process runs, and whether it can answer requests."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.db import failures, queue
from forgetbench.leaderboard.errors import Problem, ProblemDocument
from forgetbench.leaderboard.render.schemas import Health

router = APIRouter()


@router.get("/health", response_model_exclude_none=True)
def health() -> Health:
    """The process is running."""
    return Health(status="ok")


@router.get("/ready", responses={503: {"model": ProblemDocument, "description": "Not ready"}})
def ready(database: DatabaseDep, settings: SettingsDep, response: Response) -> Health:
    """The database answers and has the tables of this version, and the disk has space.

    The site stays ready without a scoring worker, because pages do not need one: see `scoring`.
    """
    try:
        with database.read_session() as session:
            session.execute(text("SELECT 1 FROM boards LIMIT 1"))
            warning = queue.worker_warning(session, settings.lease_seconds)
    except SQLAlchemyError as error:
        raise Problem(503, "The database does not answer.") from error
    if (free := failures.free_bytes(settings.server_folder)) < settings.min_free_bytes:
        detail = f"The disk of the server's folder is full: {free / 2**20:.0f} MiB are free."
        raise Problem(503, detail, headers={"Retry-After": str(failures.FULL_RETRY_SECONDS)})
    response.headers["Cache-Control"] = "no-store"
    return Health(status="ready", scoring=warning or "ok")
