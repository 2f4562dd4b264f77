"""Connection to a leaderboard server: address, token, and requests whose errors explain themselves.

A token is sent over HTTPS or to this machine only.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ValidationError

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leaderboard.render.schemas import TokenDocument
from forgetbench.store import JsonObject, home

TOKEN_VARIABLE = "FORGETBENCH_TOKEN"  # noqa: S105 - name of an environment variable
MEDIA_TYPE = "application/zip"
CHUNK = 2**18
"""Bytes per read."""
ANONYMOUS = ""
"""Token of requests that need none."""

UploadProgress = Callable[[int, int], None]
"""Called with the bytes sent so far, and the total."""
Document = TypeVar("Document", bound=BaseModel)


def find_token() -> str:
    """Read the token from ``FORGETBENCH_TOKEN``, or from the private file ``token`` in ForgetBench's folder.

    Raises:
        UsageError: There is no token, or others may read the file.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token:
        return token
    path = home() / "token"
    if not path.is_file():
        raise UsageError(
            f"No token: set {TOKEN_VARIABLE}, or write it to {path} and run `chmod 600 {path}`. The server's page "
            "/submit explains how to get one."
        )
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"Other users may read {path}: run `chmod 600 {path}`. If anyone read it, ask for a new token."
        )
    return path.read_text(encoding="utf-8").strip()


def check_address(server: str) -> str:
    """Validate the address of a server, and normalize it.

    Raises:
        UsageError: The address is malformed, or a token would be sent unencrypted.
    """
    parts = urlsplit(server if "://" in server else f"https://{server}")
    host = parts.hostname
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.query:
        raise UsageError(f"{server!r} is not a server address; write it as https://HOST or http://127.0.0.1:8000.")
    if parts.scheme == "http" and not _is_loopback(host):
        raise UsageError(f"{server} is not encrypted. Tokens are sent over HTTPS or to this machine only.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class LeaderboardClient:
    """Connection to one server, with a token."""

    def __init__(self, server: str, token: str | None = None, *, transport: httpx2.BaseTransport | None = None) -> None:
        """Open a connection.

        Args:
            server: Address of the server.
            token: The token; None to read it from the environment or the private file, `ANONYMOUS` for none.
            transport: Replacement of the network in tests.

        Raises:
            UsageError: The address or the token is malformed, or there is no token.
        """
        self.server = check_address(server)
        headers = {"Accept": "application/json"}
        if token != ANONYMOUS:
            bearer = (find_token() if token is None else token).strip()
            if not bearer.startswith("fb_") or not bearer.isascii() or any(c.isspace() for c in bearer):
                raise UsageError("Malformed token: a token looks like fb_<id>_<secret>.")
            headers["Authorization"] = f"Bearer {bearer}"
        self._http = httpx2.Client(
            base_url=self.server,
            headers=headers,
            timeout=httpx2.Timeout(30.0, read=300.0, write=300.0),
            follow_redirects=False,
            transport=transport,
        )

    def __enter__(self) -> LeaderboardClient:
        """Use the connection in a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._http.close()

    def whoami(self) -> TokenDocument:
        """Name and scopes of the token; checks it before anything large is sent."""
        return self.get("/api/v1/whoami", TokenDocument)

    def get(self, path: str, model: type[Document]) -> Document:
        """Fetch a document."""
        with self._explained_errors():
            return self._parse(model, self._http.get(path))

    def post(self, path: str, content: Mapping[str, str], model: type[Document]) -> Document:
        """Post a document; returns the response."""
        with self._explained_errors():
            return self._parse(model, self._http.post(path, json=dict(content)))

    def download(self, path: str, target: Path) -> Path:
        """Fetch a file."""
        with self._explained_errors(), self._http.stream("GET", path) as response:
            if not response.is_success:
                response.read()
                raise self._error(response)
            with target.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        return target

    def upload(
        self,
        path: str,
        body: Path,
        model: type[Document],
        *,
        dry_run: bool = False,
        progress: UploadProgress | None = None,
    ) -> Document:
        """Upload a file; its hash is the idempotency key, so a repeated upload is one submission."""
        size = body.stat().st_size
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(size)}
        if not dry_run:
            with body.open("rb") as stream:
                headers["Idempotency-Key"] = hashlib.file_digest(stream, "sha256").hexdigest()

        def chunks() -> Iterator[bytes]:
            sent = 0
            with body.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    yield chunk
                    sent += len(chunk)
                    if progress is not None:
                        progress(sent, size)

        params = {"dry_run": "true"} if dry_run else {}
        with self._explained_errors():
            return self._parse(model, self._http.post(path, content=chunks(), headers=headers, params=params))

    @contextmanager
    def _explained_errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.TransportError, ssl.SSLError) as error:
            reason = str(error) or type(error).__name__
            raise ForgetBenchError(
                f"{self.server} cannot be reached ({reason}). Check the address, and that the server is running. "
                "Repeating an upload is safe: it counts as one submission."
            ) from error

    def _parse(self, model: type[Document], response: httpx2.Response) -> Document:
        """The document of a response; newer servers may send more fields."""
        if not response.is_success:
            raise self._error(response)
        try:
            return model.model_validate_json(response.content, extra="ignore")
        except ValidationError as error:
            raise self._foreign_response(response) from error

    def _error(self, response: httpx2.Response) -> ForgetBenchError:
        """A problem document as an exception."""
        try:
            problem: JsonObject = json.loads(response.content)
            lines = [str(problem["detail"])]
            lines += [f"  {item.get('field')}: {item.get('message')}" for item in problem.get("errors", [])]
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._foreign_response(response)
        if response.status_code == 429 and "retry-after" in response.headers:
            lines.append(f"  Try again in {response.headers['retry-after']} seconds.")
        error_type = UsageError if response.status_code in {401, 403} else ForgetBenchError
        return error_type(f"{self.server} refused the request: " + "\n".join(lines))

    def _foreign_response(self, response: httpx2.Response) -> ForgetBenchError:
        return ForgetBenchError(
            f"{self.server} answered {response.status_code}, but not like a leaderboard. Check the address."
        )
