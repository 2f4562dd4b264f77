"""Leases on artifacts: two runs on one store divide the work instead of doing it twice.

A lease is a claim with a heartbeat, made before an artifact is computed. It only says that a process is at work: if it
is wrong, an artifact is at worst computed twice. No clocks of two machines are compared. A lease has expired when its
heartbeat has not changed for a time by the clock of the process that looks at it, or when its process was one of this
machine and has ended.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from forgetbench.errors import ForgetBenchError

BEAT_SECONDS = 15.0
"""Time between two heartbeats."""
EXPIRED_SECONDS = 90.0
"""A lease whose heartbeat has not changed for this time has expired."""


BUSY_SECONDS = 1.0
"""Time before an artifact that another run computes is looked for again."""

_in_engine: ContextVar[bool] = ContextVar("in_engine", default=False)


class BusyError(ForgetBenchError):
    """Another run computes what is needed. Engines do other jobs first and try again."""


@contextmanager
def deferrable() -> Iterator[None]:
    """Let `wait_for_other` raise in this block: the caller does something else and tries again."""
    token = _in_engine.set(True)
    try:
        yield
    finally:
        _in_engine.reset(token)


def wait_for_other(key: str) -> None:
    """Wait a moment for an artifact that another run computes.

    Raises:
        BusyError: The caller can do something else.
    """
    time.sleep(BUSY_SECONDS)
    if _in_engine.get():
        raise BusyError(f"Another run computes artifact {key[:12]}.")


class Claim(NamedTuple):
    """A lease as it is found."""

    beat: str
    """A text that changes with each heartbeat."""
    owner: str
    """Host and process that made it."""


class LeaseStore(Protocol):
    """Where leases are kept. Of two callers of `create` with the same name only one gets True, wherever they are."""

    def claims(self, key: str) -> dict[str, Claim]:
        """Name -> the lease, of all leases on an artifact."""
        ...

    def create(self, name: str, owner: str) -> bool:
        """Make a lease unless there is one of that name."""
        ...

    def beat(self, name: str, owner: str) -> None:
        """Change a lease's heartbeat."""
        ...

    def delete(self, name: str) -> None:
        """Delete a lease, if there is one."""
        ...


class Leases:
    """Leases on the artifacts of one store.

    Args:
        kept: Where they are.
        clock: Seconds of a clock that never goes back.
        beats: Sends heartbeats in a block.
    """

    def __init__(
        self,
        kept: LeaseStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        beats: Callable[[Callable[[], None]], AbstractContextManager[None]] | None = None,
    ) -> None:
        self._kept, self._clock, self._beats = kept, clock, beats or beating
        self._seen: dict[str, tuple[str, float]] = {}

    @contextmanager
    def hold(self, key: str) -> Iterator[bool]:
        """Hold the lease on an artifact in a block: False if another process holds it, and then nothing is held.

        Args:
            key: The artifact's key.

        Raises:
            OSError: The filesystem or the bucket failed.
        """
        name = self._claim(key)
        if name is None:
            yield False
            return
        try:
            with self._beats(lambda: self._kept.beat(name, _owner())):
                yield True
        finally:
            with suppress(OSError):  # it expires
                self._kept.delete(name)

    def _claim(self, key: str) -> str | None:
        """The name of a new lease; None if there is a live one."""
        claims = self._kept.claims(key)
        if any(self._lives(name, claim) for name, claim in claims.items()):
            return None
        # the next number, of which there can be only one: a lease that has expired is never taken over itself
        number = 1 + max((int(name.rpartition(".")[2]) for name in claims), default=-1)
        name = f"{key}.{number}"
        if not self._kept.create(name, _owner()):
            return None
        for expired in claims:
            with suppress(OSError):
                self._kept.delete(expired)
        return name

    def _lives(self, name: str, claim: Claim) -> bool:
        """Whether a lease has a heartbeat, as far as this process can see."""
        if _has_ended(claim.owner):
            return False
        beat, since = self._seen.get(name, ("", 0.0))
        if beat != claim.beat:
            self._seen[name] = (claim.beat, self._clock())
            return True
        return self._clock() - since < EXPIRED_SECONDS


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """Send heartbeats from a thread while the block runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(BEAT_SECONDS):
            with suppress(OSError):  # the next one may succeed
                beat()

    thread = threading.Thread(target=run, daemon=True, name="lease")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class FolderLeases:
    """Leases as files in a folder that all machines see; their heartbeat is the time of the last change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claims(self, key: str) -> dict[str, Claim]:
        """Name -> the lease, of all leases on an artifact."""
        found = {}
        for path in self._folder.glob(f"{key[:2]}/{key}.*"):
            with suppress(FileNotFoundError):
                found[path.name] = Claim(str(path.stat().st_mtime_ns), path.read_text(encoding="utf-8"))
        return found

    def create(self, name: str, owner: str) -> bool:
        """Make the file, which the server of the filesystem decides."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(owner)
        except FileExistsError:
            return False
        return True

    def beat(self, name: str, owner: str) -> None:  # noqa: ARG002 - the protocol's
        """Set the time of the file's last change."""
        os.utime(self._path(name))

    def delete(self, name: str) -> None:
        """Delete the file."""
        self._path(name).unlink(missing_ok=True)

    def abandoned(self, seconds: float) -> list[Path]:
        """The files of processes of this machine that have ended, and those without a heartbeat for some seconds."""
        found = []
        for path in self._folder.glob("??/*.*"):
            with suppress(FileNotFoundError):
                ended = _has_ended(path.read_text(encoding="utf-8"))
                if ended or time.time() - path.stat().st_mtime > seconds:
                    found.append(path)
        return sorted(found)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name


class Objects(Protocol):
    """What leases need of a bucket."""

    def names(self, prefix: str) -> list[str]:
        """Names of the objects in a folder whose names begin so."""
        ...

    def get(self, name: str) -> bytes | None:
        """The bytes of an object; None if there is none."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Put an object."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Put an object unless there is one; False if there is."""
        ...

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        ...


class BucketLeases:
    """Leases as objects, which a heartbeat replaces by others."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def claims(self, key: str) -> dict[str, Claim]:
        """Name -> the lease, of all leases on an artifact."""
        found = {}
        for name in self._objects.names(self._path(f"{key}.")):
            content = self._objects.get(name)
            if content is not None:
                found[name.rpartition("/")[2]] = Claim(content.decode(), _field(content, "owner"))
        return found

    def create(self, name: str, owner: str) -> bool:
        """Put the object on the condition that there is none."""
        return self._objects.create(self._path(name), _content(owner))

    def beat(self, name: str, owner: str) -> None:
        """Replace the object by another one."""
        self._objects.put(self._path(name), _content(owner))

    def delete(self, name: str) -> None:
        """Delete the object."""
        self._objects.delete(self._path(name))

    def _path(self, name: str) -> str:
        return f"leases/{name[:2]}/{name}"


def _content(owner: str) -> bytes:
    return json.dumps({"owner": owner, "beat": uuid.uuid4().hex}).encode()


def _field(content: bytes, name: str) -> str:
    try:
        document: Any = json.loads(content)
        return str(document[name])
    except (ValueError, KeyError, TypeError):
        return ""


def _owner() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _has_ended(owner: str) -> bool:
    """Whether a process of this machine has ended; False for those of other machines."""
    host, _, process = owner.rpartition(" ")
    if host != socket.gethostname() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:  # a process that was killed, and that no parent has waited for yet, still has its number on Linux
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]
