"""The server's log: one JSON object on each line, and no secret in any of them.

A request is logged by its method, path, status and time: never its query, its headers, its body or who asked. What a
database refuses is logged without its values, because the engine hides them.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forgetbench.leaderboard import errors as problems

REQUEST_ID = "X-Request-Id"
access = logging.getLogger("forgetbench.access")
_SECRETS = (
    (re.compile(r"fb_[0-9A-Za-z]+_[0-9A-Za-z]+"), "fb_[removed]"),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=,]\s*(?:b?['\"])?)((?:bearer|basic)\s+)?[^\s'\",)]+"), r"\1[removed]"),
    (re.compile(r"(?i)(bearer\s+)[^\s'\",)]+"), r"\1[removed]"),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), r"\1:[removed]@"),
)
"""A stranger may put a token anywhere, in a path too; and a database's address holds its password."""


class JsonLines(logging.Formatter):
    """A record as a line of JSON: time, level, logger, message, then what was said beside it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        clean = {name: without_secrets(value) if isinstance(value, str) else value for name, value in line.items()}
        return json.dumps(clean, ensure_ascii=False)


def without_secrets(text: str) -> str:
    """A text in which no token, Authorization header or password stands."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def configure(level: str, stream: TextIO | None = None) -> None:
    """Let everything that this process logs go to the standard error, as JSON.

    Args:
        level: The least level that is written, such as ``info``.
        stream: Where to, instead of the standard error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("alembic", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class AccessLog:
    """Logs each request when it is answered, under an id that the answer bears as well, and what nobody foresaw."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, identity, status = time.perf_counter(), secrets.token_hex(8), 0

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = identity
            await send(message)

        try:
            await self.app(scope, receive, send_and_see)
        except Exception:
            access.exception("a request failed", extra={"fields": {"request": identity}})
            if status:
                raise  # half an answer is out already; the connection is all that can be closed
            answer = problems.unforeseen(Request(scope), identity)
            await answer(scope, receive, send_and_see)
        finally:
            _log(scope, identity, status, time.perf_counter() - started)


def _log(scope: Scope, identity: str, status: int, seconds: float) -> None:
    fields = {
        "request": identity,
        "method": scope["method"],
        "path": scope["path"][:500],
        "status": status,
        "seconds": round(seconds, 4),
    }
    access.info("%s %d", scope["method"], status, extra={"fields": fields})
