"""Connection to a leaderboard server: address, token, and requests whose errors explain themselves.

A token is sent over HTTPS or to this machine only.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ValidationError

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leaderboard.errors import IN_YOUR_ENTRY
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


class InYourEntryError(ForgetBenchError):
    """The server refused evidence that is in an entry of the same submitter already."""


def find_token() -> str:
    """Read the token from ``FORGETBENCH_TOKEN``, or from the private file ``token`` in ForgetBench's folder.

    Raises:
        UsageError: There is no token, the file contains something else, or others may read the file.
    """
    token = _clean_token(os.environ.get(TOKEN_VARIABLE, ""))
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
    lines = [token for line in _read_text(path).splitlines() if (token := _clean_token(line))]
    if len(lines) != 1:
        raise UsageError(f"{path} contains {len(lines)} lines of text. Write one line into it: the token.")
    return lines[0]


def _read_text(path: Path) -> str:
    """A text file as editors write it: in UTF-8 or UTF-16, with or without a byte order mark."""
    try:
        content = path.read_bytes()
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        return content.decode(encoding)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Correct its permissions.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text file. Write one line into it: the token.") from error


def _clean_token(text: str) -> str:
    """A token without what is copied along with it: white space, quotes, a header's or a variable's name."""
    for words in ("export ", f"{TOKEN_VARIABLE}=", "Authorization:", "Bearer "):
        text = text.strip(_AROUND).removeprefix(words)
    return text.strip(_AROUND)


_AROUND = " \t\r\n\ufeff\u200b\u00a0'\"`"


def check_address(server: str) -> str:
    """Validate the address of a server, and normalize it. Without a scheme it is HTTPS, on this machine HTTP.

    Raises:
        UsageError: The address is malformed or that of a page, or a token would be sent unencrypted.
    """
    text = server.strip()
    try:
        if "://" not in text:
            text = f"{'http' if _is_loopback(urlsplit(f'//{text}').hostname or '') else 'https'}://{text}"
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port  # ValueError if the port is not a number
        httpx2.URL(text)
    except (ValueError, httpx2.InvalidURL) as error:
        raise UsageError(f"{server!r} is not a server address ({error}); {_WRITE_ADDRESS}") from error
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or any(sign.isspace() or sign in _NO_HOST for sign in parts.netloc)
    ):
        raise UsageError(f"{server!r} is not a server address; {_WRITE_ADDRESS}")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"The address of {host} contains a name or a password: remove it. The token is sent instead.")
    origin = f"{parts.scheme}://{parts.netloc}"
    segments = [segment for segment in parts.path.split("/") if segment]
    page = next((place for place, one in enumerate(segments) if one.partition(".")[0] in PAGES), None)
    if page is not None or parts.query or parts.fragment:
        root = "/".join([origin, *segments[:page]])
        raise UsageError(f"{server} is the address of a page, not of a server. Give its beginning: --server {root}")
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        raise UsageError(f"{server} means every address of a machine. On this machine, use http://127.0.0.1:PORT.")
    if parts.scheme == "http" and not _is_loopback(host):
        raise UsageError(
            f"{server} is not encrypted. Tokens are sent over HTTPS or to this machine only: use https://{parts.netloc}."
        )
    return "/".join([origin, *segments])


_NO_HOST = "%<>{}|^`\\\"'"
"""Signs that are part of no host's name."""
_WRITE_ADDRESS = "write it as https://HOST or http://127.0.0.1:8000."
PAGES = frozenset(
    {"api", "badges", "boards", "compare", "dump", "entries", "feed", "health", "methods", "metrics", "moderate"}
    | {"ready", "shipped", "significance", "signin", "signup", "static", "submit", "submitters", "tasks"}
)
"""First segments of the paths of a server's pages."""


def _is_loopback(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address.is_loopback or (mapped is not None and mapped.is_loopback)


def open_http(server: str, headers: Mapping[str, str], transport: httpx2.BaseTransport | None) -> httpx2.Client:
    """Open the HTTP client of a server: the only place where one is made.

    Proxies and certificates are those of the environment, but requests to this machine never pass a proxy, which would
    see the token. Redirects are not followed, so that a token never goes to another server.

    Args:
        server: A checked address.
        headers: Headers of every request.
        transport: Replacement of the network in tests.

    Raises:
        UsageError: A proxy or a file of certificates that the environment names is unusable.
    """
    try:  # no certificate is read for an address without TLS, or without a network
        certificates = httpx2.create_ssl_context() if server.startswith("https") and transport is None else False
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        names = _set_variables("SSL_CERT_FILE", "SSL_CERT_DIR")
        raise UsageError(
            f"The certificates that {names} names cannot be read ({_reason(error)}). Correct or unset {names}."
        ) from error
    try:
        return httpx2.Client(
            base_url=server,
            headers=dict(headers),
            timeout=httpx2.Timeout(30.0, read=300.0, write=300.0),
            follow_redirects=False,
            verify=certificates,
            trust_env=not _is_loopback(urlsplit(server).hostname or ""),
            transport=transport,
        )
    except ImportError as error:
        raise UsageError(
            f"{_proxy_variables()} names a SOCKS proxy, which needs the package socksio: `pip install socksio`. "
            f"{_WITHOUT_PROXY}"
        ) from error
    except (ValueError, TypeError, httpx2.InvalidURL) as error:  # the message may contain a password
        raise UsageError(
            f"{_proxy_variables()} is not the address of a proxy. Write it as http://HOST:PORT. {_WITHOUT_PROXY}"
        ) from error


_WITHOUT_PROXY = "To use no proxy for this server, unset the variable, or add the host to NO_PROXY."


def _proxy_variables() -> str:
    return _set_variables("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") or "The proxy of this system"


def _set_variables(*names: str) -> str:
    """The names of those environment variables that are set, in upper or lower case."""
    return " or ".join(one for name in names for one in (name, name.lower()) if os.environ.get(one))


def _reason(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__


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
            bearer = find_token() if token is None else _clean_token(token)
            if not bearer.startswith("fb_") or not bearer.isascii() or any(c.isspace() for c in bearer):
                raise UsageError("Malformed token: a token looks like fb_<id>_<secret>.")
            headers["Authorization"] = f"Bearer {bearer}"
        self._http = open_http(self.server, headers, transport)

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

    def post(
        self, path: str, content: Mapping[str, object], model: type[Document], *, key: str | None = None
    ) -> Document:
        """Post a document; returns the response.

        Args:
            path: Path on the server.
            content: The document, ready for JSON.
            model: Type of the response.
            key: Idempotency key, with which a repeated request counts once.
        """
        headers = {} if key is None else {"Idempotency-Key": key}
        with self._explained_errors():
            return self._parse(model, self._http.post(path, json=dict(content), headers=headers))

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
        except (httpx2.RequestError, ssl.SSLError) as error:
            raise ForgetBenchError(
                f"{self.server} cannot be reached ({str(error) or type(error).__name__}). {self._advice(error)} "
                "Repeating an upload is safe: it counts as one submission."
            ) from error

    def _advice(self, error: Exception) -> str:
        """What to do about a connection that failed."""
        if isinstance(error, httpx2.ProxyError):
            return f"Requests pass the proxy of {_proxy_variables()}. {_WITHOUT_PROXY}"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return "For a server with certificates of its own, set SSL_CERT_FILE to the file of its authority."
        if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):
            return "No HTTPS is spoken at this port. Correct it; a server on this machine is http://127.0.0.1:PORT."
        return "Check the address, and that the server is running."

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
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self._foreign_response(response)
        if response.status_code in {429, 503} and "retry-after" in response.headers:
            lines.append(f"  Try again in {response.headers['retry-after']} seconds.")
        if response.status_code == 413:
            lines.append("  Its operator can raise FORGETBENCH_MAX_UPLOAD_BYTES.")
        if response.status_code == 404 and urlsplit(self.server).path:
            lines.append(f"  If the address has a path too many, use --server {self._origin}.")
        error_type = UsageError if response.status_code in {401, 403} else ForgetBenchError
        if problem.get("type") == IN_YOUR_ENTRY:
            error_type = InYourEntryError
        return error_type(f"{self.server} refused the request: " + "\n".join(lines))

    @property
    def _origin(self) -> str:
        parts = urlsplit(self.server)
        return f"{parts.scheme}://{parts.netloc}"

    def _foreign_response(self, response: httpx2.Response) -> ForgetBenchError:
        """A response that is no document of a leaderboard: from a proxy in front of it, or from something else."""
        status = response.status_code
        if response.has_redirect_location:
            return UsageError(self._explain_redirect(response))
        wait = response.headers.get("retry-after", "")
        again = f"Try again in {wait} seconds" if wait.isdigit() else "Try again in some minutes"
        advice = {
            401: "something in front of it asks for a password. Ask its operator for an address without one",
            403: "a proxy or a firewall refused the request. Ask the operator of the server, or of this network",
            404: f"there is no leaderboard at this address. Use the beginning of its address, as {self._origin}",
            407: f"the proxy asks for a password. {_WITHOUT_PROXY}",
            413: (
                "a proxy in front of it accepts no upload of this size. Ask its operator to raise the limit of the "
                "proxy (client_max_body_size in nginx)"
            ),
            429: f"there were too many requests. {again}",
            500: "the server failed. Tell its operator, and try again later",
            **dict.fromkeys((502, 503, 504), f"the server is not ready: it is starting, overloaded or down. {again}"),
        }
        text = advice.get(status, "but not like a leaderboard. Check the address")
        colon = ":" if status in advice else ","
        safe = " Repeating an upload is safe: it counts as one submission." if status >= 500 or status == 429 else ""
        return ForgetBenchError(f"{self.server} answered {status}{colon} {text.rstrip('.')}.{safe}")

    def _explain_redirect(self, response: httpx2.Response) -> str:
        """Say where a server has moved. The redirect is not followed: the token would go there."""
        try:
            target = str(response.request.url.join(response.headers["location"]))
            place = check_address(target.partition("?")[0].removesuffix(response.request.url.path))
        except (UsageError, ValueError, httpx2.InvalidURL):
            return f"{self.server} answered {response.status_code}: it sends requests elsewhere. Check the address."
        if place == self.server:
            return f"{self.server} answered {response.status_code}: it asks for a login first. Check the address."
        return f"{self.server} answered {response.status_code}: it has moved. If you trust it, use --server {place}"
