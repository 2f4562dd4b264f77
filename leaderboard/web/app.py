"""The web application: made by a function, so that importing it does nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from forgetbench.errors import UsageError
from forgetbench.leaderboard import errors as problems
from forgetbench.leaderboard.auth.rate_limit import Limits
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.logging import AccessLog
from forgetbench.leaderboard.render.templates import Pages
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web import openapi
from forgetbench.leaderboard.web.caching import Cache, salt_of
from forgetbench.leaderboard.web.middleware import Head, ReadLimit, SecurityHeaders
from forgetbench.leaderboard.web.routes import api, feeds, health
from forgetbench.leaderboard.web.routes import boards as pages
from forgetbench.leaderboard.web.routes import pages as reading
from forgetbench.leaderboard.web.routes import submissions as writing

THREADS = 16
"""Requests at work at once; more would only wait for each other, and each holds a connection."""
STABILITY = """\
Everything under /api/v1 stays as it is: fields are added, never renamed or removed, and no answer changes its meaning.
A change that breaks a client gets a new prefix, and /api/v1 goes on for a year beside it. Errors are problem documents
(RFC 9457). Cursors and ids are opaque.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for one database and one folder."""
    chosen = settings or Settings()
    database = Database(chosen.database)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        await run_in_threadpool(prepare, chosen, database)
        yield
        await run_in_threadpool(database.close)

    app = FastAPI(
        title=f"{chosen.site_title} leaderboard",
        version=version("forgetbench"),
        description=STABILITY,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        lifespan=lifespan,
    )
    app.state.settings, app.state.database, app.state.cache = chosen, database, Cache()
    app.state.pages, app.state.limits = Pages(chosen), Limits(chosen, database)
    app.state.salt = salt_of(app.version, app.state.pages, chosen)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_middleware(Head)
    app.add_middleware(ReadLimit, limits=app.state.limits)
    app.add_middleware(AccessLog)
    app.add_middleware(SecurityHeaders)
    problems.install(app)
    app.include_router(api.router)
    app.include_router(writing.router)
    app.include_router(health.router)
    app.include_router(pages.router, include_in_schema=False)
    app.include_router(reading.router, include_in_schema=False)
    app.include_router(feeds.router, include_in_schema=False)
    openapi.install(app)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    return app


def prepare(settings: Settings, database: Database) -> None:
    """Make the folders, which their owner alone may read, and bring the database's schema up to date.

    Raises:
        ForgetBenchError: A folder cannot be made, or the database cannot be used.
    """
    try:
        settings.server_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (settings.evidence, settings.incoming, settings.packs):
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.stat().st_mode & 0o077:  # made by an older version; the folder around them may be the operator's
                folder.chmod(0o700)
    except OSError as error:
        raise UsageError(f"{settings.server_folder} is no folder for a server: {error.strerror}.") from error
    database.upgrade()
