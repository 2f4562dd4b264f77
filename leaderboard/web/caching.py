"""Response cache and conditional responses, keyed by ETags that change with the content."""

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
    """The most recently used response bodies, up to a total size in bytes; thread-safe."""

    def __init__(self, limit: int = 32 * 2**20) -> None:
        self._limit, self._size, self._lock = limit, 0, Lock()
        self._bodies: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        """The body of a key, or None."""
        with self._lock:
            body = self._bodies.get(key)
            if body is not None:
                self._bodies.move_to_end(key)
            return body

    def put(self, key: str, body: bytes) -> None:
        """Store a body and drop the least recently used ones; a body above a quarter of the limit is not stored."""
        if len(body) > self._limit // 4:
            return
        with self._lock:
            self._size += len(body) - len(self._bodies.pop(key, b""))
            self._bodies[key] = body
            while self._size > self._limit:
                _, dropped = self._bodies.popitem(last=False)
                self._size -= len(dropped)


def salt_of(version: str, pages: Pages, settings: Settings) -> str:
    """What every response depends on apart from the data: software, templates, static files and settings."""
    public = settings.model_dump(mode="json", exclude={"database_url"})
    return hashlib.sha256(repr((version, pages.fingerprint, public)).encode()).hexdigest()


def etag_of(request: Request, *parts: object) -> str:
    """A weak ETag of everything that a response depends on."""
    content = (request.app.state.salt, *parts)
    return f'W/"{hashlib.sha256(repr(content).encode()).hexdigest()[:24]}"'


def unchanged(request: Request, etag: str) -> Response | None:
    """304 for a client that has this response already, else None."""
    if etag in [part.strip() for part in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=cache_headers(etag))
    return None


def cache_headers(etag: str) -> dict[str, str]:
    """Headers of a response that clients may cache but must revalidate."""
    return {"ETag": etag, "Cache-Control": "no-cache"}


def conditional(
    request: Request,
    etag: str,
    make: Callable[[], bytes],
    *,
    media_type: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """304 for a client that has this response already, else the response, from the cache where possible.

    Args:
        request: The request.
        etag: ETag of the response.
        make: Makes the body, where it is not cached.
        media_type: Of the body.
        headers: Further headers.
    """
    if (not_modified := unchanged(request, etag)) is not None:
        return not_modified
    all_headers = {**cache_headers(etag), **(headers or {})}
    cache: Cache = request.app.state.cache
    compressed = "gzip" in request.headers.get("accept-encoding", "")
    key = etag + ("gzip" if compressed else "")
    body = cache.get(key)
    if body is None:
        body = make()
        if compressed:
            body = gzip.compress(body, compresslevel=3, mtime=0)  # 5 takes twice the time for 10 % less
        cache.put(key, body)
    all_headers["Vary"] = "Accept-Encoding"
    if compressed:
        all_headers["Content-Encoding"] = "gzip"  # compressed once; the middleware skips compressed responses
    return Response(body, media_type=media_type, headers=all_headers)
