"""Answers that are made once: by their ETag, which changes with what is shown."""

from __future__ import annotations

import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING

from fastapi import Request, Response

if TYPE_CHECKING:
    from forgetbench.leaderboard.render.templates import Pages
    from forgetbench.leaderboard.settings import Settings


class Cache:
    """The most recently used bodies, up to a number of bytes; safe to share between threads."""

    def __init__(self, limit: int = 32 * 2**20) -> None:
        self._limit, self._size, self._lock = limit, 0, Lock()
        self._bodies: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        """The body of a key."""
        with self._lock:
            body = self._bodies.get(key)
            if body is not None:
                self._bodies.move_to_end(key)
            return body

    def put(self, key: str, body: bytes) -> None:
        """Keep a body; the least recently used go."""
        if len(body) > self._limit // 4:
            return
        with self._lock:
            self._size += len(body) - len(self._bodies.pop(key, b""))
            self._bodies[key] = body
            while self._size > self._limit:
                _, dropped = self._bodies.popitem(last=False)
                self._size -= len(dropped)


def salt_of(version: str, pages: Pages, settings: Settings) -> str:
    """What every answer depends on beside the data: the software, its templates and files, and the settings."""
    public = settings.model_dump(mode="json", exclude={"database_url"})
    return hashlib.sha256(repr((version, pages.fingerprint, public)).encode()).hexdigest()


def etag_of(request: Request, *parts: object) -> str:
    """A weak ETag of whatever an answer depends on."""
    told = (request.app.state.salt, *parts)
    return f'W/"{hashlib.sha256(repr(told).encode()).hexdigest()[:24]}"'


def unchanged(request: Request, etag: str) -> Response | None:
    """The answer to a reader who has this one already; None where it must be sent."""
    if etag in [part.strip() for part in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=kept(etag))
    return None


def kept(etag: str) -> dict[str, str]:
    """The headers of an answer that may be kept, and must be asked for again."""
    return {"ETag": etag, "Cache-Control": "no-cache"}


def conditional(
    request: Request,
    etag: str,
    make: Callable[[], bytes],
    *,
    media_type: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """304 where the reader has this answer, else the answer, from the cache where it was made before."""
    if (same := unchanged(request, etag)) is not None:
        return same
    given = {**kept(etag), **(headers or {})}
    cache: Cache = request.app.state.cache
    squeezed = "gzip" in request.headers.get("accept-encoding", "")
    key = etag + ("gzip" if squeezed else "")
    body = cache.get(key)
    if body is None:
        body = make()
        if squeezed:
            body = gzip.compress(body, compresslevel=5, mtime=0)
        cache.put(key, body)
    given["Vary"] = "Accept-Encoding"
    if squeezed:
        given["Content-Encoding"] = "gzip"  # once for all readers; the middleware leaves such answers alone
    return Response(body, media_type=media_type, headers=given)
