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

from forgetbench.leaderboard.auth.openid import Provider
from forgetbench.leaderboard.auth.rate_limit import RateLimits
from forgetbench.leaderboard.db.session import Database, prepare_server
from forgetbench.leaderboard.render.templates import Pages
from forgetbench.leaderboard.render.vega import start_engine
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web import openapi
from forgetbench.leaderboard.web.caching import Cache, salt_of
from forgetbench.leaderboard.web.errors import add_error_handlers
from forgetbench.leaderboard.web.middleware import AccessLog, Head, ReadLimit, RootPath, SecurityHeaders, TrustedHost
from forgetbench.leaderboard.web.routes import (
    api,
    assets,
    attacks,
    boards,
    entries,
    feeds,
    health,
    history,
    hosts,
    pages,
    sign_in,
    submissions,
)

THREADS = 16
"""Requests that run at the same time; more would wait for each other, and each holds a connection."""
STABILITY = """\
Everything under /api/v1 stays as it is: fields are added, never renamed or removed, and no answer changes its meaning.
A change that breaks a client gets a new prefix, and /api/v1 continues for a year in parallel. Errors are problem
documents (RFC 9457). Cursors and ids are opaque.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for one database and one folder.

    Raises:
        UsageError: People are to sign in, and the packages for it are not installed.
    """
    chosen = settings or Settings()
    database = Database(chosen.database, chosen.lock_seconds)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        await run_in_threadpool(prepare_server, chosen, database)
        await run_in_threadpool(start_engine)  # now, so that no request waits for it
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
    app.state.pages, app.state.limits = Pages(chosen), RateLimits(chosen, database)
    app.state.provider = Provider(chosen) if chosen.oidc_issuer else None
    app.state.salt = salt_of(app.version, app.state.pages, chosen)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_middleware(Head)
    app.add_middleware(ReadLimit, limits=app.state.limits)
    app.add_middleware(TrustedHost, public_url=str(chosen.public_url) if chosen.public_url else None)
    app.add_middleware(RootPath, root=chosen.root_path)
    app.add_middleware(AccessLog)
    app.add_middleware(SecurityHeaders)
    add_error_handlers(app)
    app.include_router(api.router)
    app.include_router(submissions.router)
    app.include_router(attacks.router)
    app.include_router(health.router)
    for page in (boards, entries, history, pages, hosts, sign_in, assets):
        app.include_router(page.router, include_in_schema=False)
    app.include_router(feeds.router, include_in_schema=False)
    openapi.describe_errors(app)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    return app
