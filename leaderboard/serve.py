"""Run the leaderboard: the web server with its scoring worker, or a worker alone."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from forgetbench.errors import ForgetBenchError
from forgetbench.leaderboard import logging as leaderboard_logging
from forgetbench.leaderboard.db.session import open_database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web.app import create_app
from forgetbench.leaderboard.worker.supervisor import STOP_SECONDS, ProcessSupervisor


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    with_worker: bool = True,
    with_runner: bool = False,
) -> None:
    """Serve the site until SIGINT or SIGTERM; running requests are answered first.

    Args:
        settings: Configuration of the server.
        host: Address to listen on.
        port: Port to listen on.
        with_worker: Whether to run a scoring worker in a child process.
        with_runner: Whether to run a runner in a child process, where torch and a sandbox are there.

    Raises:
        ForgetBenchError: The port is in use, or the server could not start.
    """
    leaderboard_logging.configure(settings.log_level)
    with open_database(settings):
        pass  # report a database that is not usable before anything starts
    supervisors = [ProcessSupervisor(settings, "scoring worker")] if with_worker else []
    if with_runner and importlib.util.find_spec("torch") is not None:
        supervisors.append(ProcessSupervisor(settings, "runner"))
    port_error = ForgetBenchError(
        f"Cannot listen on {host}:{port}. The port is probably in use: choose another with --port."
    )
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
        with _ignored_stop_signals():
            server.run()
        if not server.started:
            raise port_error
    except SystemExit as error:
        raise port_error from error
    finally:
        for supervisor in supervisors:
            supervisor.stop()


@contextmanager
def _ignored_stop_signals() -> Iterator[None]:
    """Ignore the stop signal that uvicorn raises again after its shutdown; it would end this process too early."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_worker(settings: Settings, *, parent: int | None = None) -> None:
    """Score submissions until SIGINT or SIGTERM; the current job is finished first.

    Args:
        settings: Configuration of the server.
        parent: Id of the parent process, with which the worker ends; None for a worker that runs alone.
    """
    from forgetbench.leaderboard.worker.worker import Worker

    leaderboard_logging.configure(settings.log_level)
    with open_database(settings) as database:
        worker = Worker(settings, database, parent=parent)

        def stop(_signal: int, _frame: FrameType | None) -> None:
            worker.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        worker.run()


def run_supervised_worker() -> None:
    """Entry point of the process that `ProcessSupervisor` starts: settings and parent id come from standard input."""
    message = json.load(sys.stdin)
    run_worker(Settings.model_validate(message["settings"]), parent=message["parent"])
