"""Failures of the server's storage: a full disk, a locked database, a database that does not answer.

None of them is the client's fault, and all pass by themselves or when the operator acts: clients get 507 or 503 with
Retry-After, and workers try again without counting an attempt.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Literal

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from forgetbench.leaderboard.errors import FULL_ERRNOS, Problem

Kind = Literal["full", "busy", "unreachable"]
FULL_RETRY_SECONDS, BUSY_RETRY_SECONDS = 600, 5
"""Seconds after which a client may try again."""
_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE}
_SQLITE_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PRIMARY = 0xFF
"""Bits of SQLite's primary result code in an extended one."""
_POSTGRESQL: dict[str, Kind] = {"53100": "full", "55P03": "busy", "40001": "busy", "40P01": "busy", "53300": "busy"}
"""SQLSTATE: disk full, lock not available, serialization failure, deadlock, too many connections."""
_UNREACHABLE_CLASSES = ("08", "57")
"""Classes of SQLSTATE: connection exceptions, and interventions of the operator such as a shutdown."""


def failure_kind(error: BaseException) -> Kind | None:
    """Which failure of the storage an exception is; None for any other exception."""
    if isinstance(error, PoolTimeoutError):
        return "busy"
    if isinstance(error, DBAPIError):
        return _database_failure(error)
    if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
        return "full"
    return None


def _database_failure(error: DBAPIError) -> Kind | None:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        if code in _SQLITE_FULL or code & _PRIMARY in _SQLITE_FULL:
            return "full"
        return "busy" if code & _PRIMARY in _SQLITE_BUSY else None
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return "unreachable" if state.startswith(_UNREACHABLE_CLASSES) else _POSTGRESQL.get(state)
    return "unreachable" if error.connection_invalidated or type(error).__name__ == "OperationalError" else None


def problem_of(error: BaseException) -> Problem | None:
    """The answer to a client whose request met a failure of the storage; None for any other exception."""
    kind = failure_kind(error)
    if kind is None:
        return None
    if kind == "full":
        return disk_full()
    what = "is busy with other changes" if kind == "busy" else "does not answer"
    detail = f"The server's database {what}; nothing was changed. Try again in {BUSY_RETRY_SECONDS} s."
    return Problem(503, detail, headers={"Retry-After": str(BUSY_RETRY_SECONDS)})


def disk_full() -> Problem:
    """The answer to a client for which the server has no space."""
    detail = (
        "The server's disk is full, so nothing was stored. Your request is not at fault: repeat it unchanged when the "
        "operator has made space."
    )
    return Problem(507, detail, headers={"Retry-After": str(FULL_RETRY_SECONDS)})


def free_bytes(folder: Path) -> int:
    """Free space of a folder's disk, in bytes."""
    return shutil.disk_usage(folder).free
