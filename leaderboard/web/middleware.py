"""Middleware of all routes: access log, security headers, read limits, and HEAD requests."""

from __future__ import annotations

import logging
import secrets
import time
from hashlib import sha256
from urllib.parse import unquote, urlsplit, urlunsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forgetbench.leaderboard.auth.rate_limit import RateLimits
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.web.errors import internal_error_response, problem_response

access_log = logging.getLogger("forgetbench.access")
REQUEST_ID = "X-Request-Id"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

EMBEDDED = {"Cross-Origin-Resource-Policy": "cross-origin", "Access-Control-Allow-Origin": "*"}
"""Headers of what other sites may show or read: charts, badges, files of boards, and everything below /embed/."""
_EMBED = "/embed/"
_IN_FRAMES = {
    **EMBEDDED,
    "Content-Security-Policy": HEADERS["Content-Security-Policy"].replace("ancestors 'none'", "ancestors *"),
}
"""Headers of pages that other sites may show in a frame. They have no cookies, forms or scripts."""

_PROBES = ("/health", "/ready")
_UNCOUNTED = ("/static/", "/vega.js", *_PROBES)


class ReadLimit:
    """Responds with 429 to addresses and tokens that exceed the read limit."""

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request and pass it on."""
        if scope["type"] == "http" and not scope["path"].startswith(_UNCOUNTED):
            address = scope["client"][0] if scope["client"] else "unknown"
            token = Headers(scope=scope).get("authorization")
            try:
                self.limits.count_read(address, *([sha256(token.encode()).hexdigest()] if token else []))
            except Problem as problem:
                await problem_response(problem)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class TrustedHost:
    """Refuses requests that name another host than the public address, which pages and commands would then show.

    The names of this machine are accepted too, and any name for the health checks of load balancers.

    Args:
        app: The application.
        public_url: Public address of the site; None accepts every host.
    """

    def __init__(self, app: ASGIApp, public_url: str | None) -> None:
        self.app, self.public_url = app, public_url
        own = urlsplit(public_url).hostname if public_url else None
        self.hosts = {own, "localhost", "127.0.0.1", "::1"} if own else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request's host and pass it on."""
        checked = scope["type"] == "http" and scope["path"] not in _PROBES
        if checked and self.hosts is not None and _host_of(scope) not in self.hosts:
            detail = (
                f"This server is {self.public_url}; the request names another host. A reverse proxy must pass the "
                "header Host on."
            )
            await problem_response(Problem(421, detail))(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _host_of(scope: Scope) -> str | None:
    try:
        return urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname
    except ValueError:
        return None


class Head:
    """Answers HEAD like GET, with the same headers and no body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request as GET and drop the body of the response."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app({**scope, "method": "GET"}, receive, send_head)


class SecurityHeaders:
    """Adds security headers to all responses."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to its response."""
        framed = scope["type"] == "http" and scope["path"].startswith(_EMBED) and scope["method"] in {"GET", "HEAD"}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, text in (_IN_FRAMES if framed else {}).items():
                    headers[name] = text
                for name, text in HEADERS.items():
                    if not (framed and name == "X-Frame-Options"):
                        headers.setdefault(name, text)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class RootPath:
    """Adds the path of the public address to the addresses in ``Location`` headers, behind a proxy that strips it.

    Args:
        app: The application.
        root: The path; "" at the root of a host.
    """

    def __init__(self, app: ASGIApp, root: str) -> None:
        self.app, self.root = app, root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and change the header of its response."""

        async def send_with_root(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                target = urlsplit(headers.get("location", ""))
                # an absolute address is the framework's, with or without the slash at the end, or another site's
                own = not target.netloc or unquote(target.path).rstrip("/") == scope["path"].rstrip("/")
                if target.path.startswith("/") and own:
                    headers["location"] = urlunsplit(("", "", self.root + target.path, target.query, ""))
            await send(message)

        await self.app(scope, receive, send_with_root if self.root else send)


class AccessLog:
    """Logs every request under an id that the response has too, and the traceback of unexpected exceptions.

    The log has method, path, status and duration, but not the query, headers, body or client.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, request_id, status = time.perf_counter(), secrets.token_hex(8), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            access_log.exception("a request failed", extra={"fields": {"request": request_id}})
            if status:
                raise  # part of the response was sent: the server can only close the connection
            response = internal_error_response(Request(scope), request_id)
            await response(scope, receive, send_with_id)
        finally:
            fields = {
                "request": request_id,
                "method": scope["method"],
                "path": scope["path"][:500],
                "status": status,
                "seconds": round(time.perf_counter() - started, 4),
            }
            access_log.info("%s %d", scope["method"], status, extra={"fields": fields})
