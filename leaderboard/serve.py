"""Running the leaderboard: the web process, and the scoring process beside it."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType

import uvicorn

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leaderboard import logging as logs
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.boards import queries as boards
from forgetbench.leaderboard.db.models import Board, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import reference as packs
from forgetbench.leaderboard.web.app import create_app, prepare
from forgetbench.leaderboard.worker.supervisor import STOP_SECONDS, ScoringProcess


def serve(settings: Settings, host: str = "127.0.0.1", port: int = 8000, *, with_worker: bool = True) -> None:
    """Serve the site until told to stop (SIGINT, SIGTERM); requests under way are answered first.

    Args:
        settings: Where everything is.
        host: Address to listen on.
        port: Port to listen on.
        with_worker: Start a scoring process beside the web process, and stop it with it.

    Raises:
        ForgetBenchError: The port is taken, or the server could not start.
    """
    logs.configure(settings.log_level)
    database = _opened(settings)
    database.close()
    worker = ScoringProcess(settings) if with_worker else None
    try:
        config = uvicorn.Config(
            create_app(settings),
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(STOP_SECONDS),
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies,
        )
        server = uvicorn.Server(config)
        with _signals_end_quietly():
            server.run()
        if not server.started:
            raise ForgetBenchError(f"The server could not listen on {host}:{port}; is the port taken? Choose another.")
    except SystemExit as error:
        raise ForgetBenchError(
            f"The server could not listen on {host}:{port}; is the port taken? Choose another with --port."
        ) from error
    finally:
        if worker is not None:
            worker.stop()


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Uvicorn raises the signal that stopped it once more when it is done; here it has done its work by then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, lambda *_: None) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def run_worker(settings: Settings, *, parent: int | None = None) -> None:
    """Score submissions until told to stop (SIGINT, SIGTERM); the job at hand is finished first.

    Args:
        settings: Where everything is.
        parent: Process to stop with: a worker that `serve` started does not outlive it.
    """
    from forgetbench.leaderboard.worker.worker import Worker

    logs.configure(settings.log_level)
    database = _opened(settings)
    worker = Worker(settings, database, parent=parent)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        worker.run()
    finally:
        database.close()


def create_token(
    settings: Settings,
    name: str,
    scopes: Iterable[str] = ("submit",),
    *,
    days: int | None = None,
    daily_submissions: int | None = None,
) -> str:
    """Make a token; it is shown this once.

    Args:
        settings: Where the database is.
        name: Who gets it; shown as the submitter.
        scopes: What it may do: submit, verify, moderate.
        days: Days until it expires; None: never.
        daily_submissions: A quota of its own.

    Raises:
        UsageError: The name or a scope is not allowed.
    """
    if days is not None and days < 1:
        raise UsageError(f"A token lives at least one day, not {days}.")
    database = _opened(settings)
    expires = utc_now() + timedelta(days=days) if days is not None else None
    try:
        with database.writing() as session:
            return tokens.create(session, name, scopes, expires_at=expires, daily_submissions=daily_submissions)
    finally:
        database.close()


def install_pack(settings: Settings, pack: Path) -> Board:
    """Make a board of a pack; the worker then scores its reference rows.

    Raises:
        UsageError: There is no pack in that folder.
        ForgetBenchError: It is damaged.
    """
    database = _opened(settings)
    try:
        return packs.install(database, settings, pack)
    finally:
        database.close()


def has_boards(settings: Settings) -> bool:
    """Whether anything can be submitted to here."""
    database = _opened(settings)
    try:
        with database.reading() as session:
            return bool(boards.versions(session))
    finally:
        database.close()


def _opened(settings: Settings) -> Database:
    database = Database(settings.database)
    prepare(settings, database)
    return database


def worker_process() -> None:
    """What the process that ``serve`` starts does: it reads its settings, and whom to stop with, from stdin."""
    told = json.load(sys.stdin)
    run_worker(Settings.model_validate(told["settings"]), parent=told["parent"])
