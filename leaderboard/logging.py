"""Log format of the server: one JSON object per line, with secrets removed and control characters escaped.

Requests are logged by method, path, status and duration; never query, headers, body or client (see
`web.middleware.AccessLog`). Database errors carry no values, because the engine hides parameters.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

from forgetbench.errors import printable_json

_SECRETS = (
    (re.compile(r"fb_[0-9A-Za-z]+_[0-9A-Za-z]+"), "fb_[removed]"),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=,]\s*(?:b?['\"])?)((?:bearer|basic)\s+)?[^\s'\",)]+"), r"\1[removed]"),
    (re.compile(r"(?i)(bearer\s+)[^\s'\",)]+"), r"\1[removed]"),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), r"\1:[removed]@"),
)
"""Patterns of secrets, and replacements: tokens may occur anywhere, even in paths; database URLs have passwords."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message, then the record's ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        clean = {name: remove_secrets(value) if isinstance(value, str) else value for name, value in line.items()}
        return printable_json(json.dumps(clean, ensure_ascii=False))


def remove_secrets(text: str) -> str:
    """Replace tokens, Authorization headers and passwords in a text."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send all log records of this process to standard error, as JSON.

    Args:
        level: Lowest level that is logged, such as ``info``.
        stream: Target instead of standard error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for verbose_logger in ("alembic", "httpx", "httpcore"):
        logging.getLogger(verbose_logger).setLevel(logging.WARNING)
