"""One connection to a leaderboard: its address, a token, and requests that fail with a sentence.

A token goes over HTTPS, or to this machine itself, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.store import home

TOKEN_VARIABLE = "FORGETBENCH_TOKEN"  # noqa: S105 - the variable's name
MEDIA_TYPE = "application/zip"
CHUNK = 2**18
"""Bytes that are read at a time."""
ANONYMOUS = ""
"""Stands for a token where none is needed."""

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far, and those in all."""


def find_token() -> str:
    """The token from ``FORGETBENCH_TOKEN``, or from the private file ``token`` in ForgetBench's folder.

    Raises:
        UsageError: There is none, or others may read the file.
    """
    given = os.environ.get(TOKEN_VARIABLE, "").strip()
    if given:
        return given
    path = home() / "token"
    if not path.is_file():
        raise UsageError(
            f"No token: set {TOKEN_VARIABLE}, or write it to {path} and `chmod 600` that file. The server's page "
            "/submit says how to get one."
        )
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"Others may read {path}; `chmod 600 {path}` first, and ask for a new token if they have.")
    return path.read_text(encoding="utf-8").strip()


def check_address(server: str) -> str:
    """The server's address without a path behind it.

    Raises:
        UsageError: It is none, or a token would go over the network in the clear.
    """
    parts = urlsplit(server if "://" in server else f"https://{server}")
    host = parts.hostname
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.query:
        raise UsageError(f"{server!r} is no address of a server; write it as https://HOST or http://127.0.0.1:8000.")
    if parts.scheme == "http" and not _is_loopback(host):
        raise UsageError(f"{server} is not encrypted, and tokens are sent over HTTPS or to this machine only.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Client:
    """A connection to one server, with a token."""

    def __init__(self, server: str, token: str | None = None, *, transport: httpx2.BaseTransport | None = None) -> None:
        self.server = check_address(server)
        headers = {"Accept": "application/json"}
        if token != ANONYMOUS:
            bearer = (find_token() if token is None else token).strip()
            if not bearer.startswith("fb_") or not bearer.isascii() or any(c.isspace() for c in bearer):
                raise UsageError("That is no token: one looks like fb_<id>_<secret>.")
            headers["Authorization"] = f"Bearer {bearer}"
        self._http = httpx2.Client(
            base_url=self.server,
            headers=headers,
            timeout=httpx2.Timeout(30.0, read=300.0, write=300.0),
            follow_redirects=False,
            transport=transport,
        )

    def __enter__(self) -> Client:
        """Use the connection in a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._http.close()

    def introduce(self) -> dict[str, Any]:
        """Find out whether the token is good, before anything large is sent."""
        return self.get("/api/v1/whoami")

    def get(self, path: str) -> dict[str, Any]:
        """A document."""
        with self._reaching():
            return self._checked(self._http.get(path))

    def post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        """The answer to a document."""
        with self._reaching():
            return self._checked(self._http.post(path, json=content))

    def download(self, path: str, target: Path) -> Path:
        """A file, whole."""
        with self._reaching(), self._http.stream("GET", path) as answer:
            if not answer.is_success:
                answer.read()
                self._checked(answer)
            with target.open("wb") as file:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
        return target

    def upload(
        self,
        body: Path,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        path: str = "/api/v1/submissions",
    ) -> dict[str, Any]:
        """Send a body. Its hash is the idempotency key: sent twice, it is one submission."""
        size = body.stat().st_size
        with body.open("rb") as stream:
            sha = hashlib.file_digest(stream, "sha256").hexdigest()
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(size)}
        if not dry_run:
            headers["Idempotency-Key"] = sha

        def chunks() -> Iterator[bytes]:
            sent = 0
            with body.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    yield chunk
                    sent += len(chunk)
                    if progress is not None:
                        progress(sent, size)

        params = {"dry_run": "true"} if dry_run else {}
        with self._reaching():
            answer = self._http.post(path, content=chunks(), headers=headers, params=params)
            return self._checked(answer)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.TransportError, ssl.SSLError) as error:
            reason = str(error) or type(error).__name__
            raise ForgetBenchError(
                f"{self.server} cannot be reached ({reason}). Is the address right, and does the server run? Whatever "
                "was sent can be sent again: it is one submission."
            ) from error

    def _checked(self, answer: httpx2.Response) -> dict[str, Any]:
        try:
            content = answer.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            content = None
        if answer.is_success and isinstance(content, dict):
            return content
        if not isinstance(content, dict) or "detail" not in content:
            raise ForgetBenchError(f"{self.server} answered {answer.status_code}, and not as a leaderboard does.")
        lines = [str(content["detail"])]
        lines += [f"  {item.get('field')}: {item.get('message')}" for item in content.get("errors", [])]
        if answer.status_code == 429 and "retry-after" in answer.headers:
            lines.append(f"  Try again in {answer.headers['retry-after']} seconds.")
        kind = UsageError if answer.status_code in {401, 403} else ForgetBenchError
        raise kind(f"{self.server} refuses: " + "\n".join(lines))
