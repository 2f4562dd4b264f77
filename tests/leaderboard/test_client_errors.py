"""What the client says about addresses, tokens, proxies, certificates and answers of other programs."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leaderboard.client.http import ANONYMOUS, LeaderboardClient, check_address, find_token
from forgetbench.leaderboard.client.submit import fetch_entry
from forgetbench.remote.verify import compare_rerun
from forgetbench.runner.config import NullProgress

SERVER = "https://board.example.org"
TOKEN = f"fb_{'0' * 16}_{'1' * 64}"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without token, proxies and certificates."""
    for name in (*PROXIES, "SSL_CERT_FILE", "SSL_CERT_DIR", "FORGETBENCH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("http://[::ffff:127.0.0.1]:8000", "http://[::ffff:127.0.0.1]:8000"),
        ("LOCALHOST.:80/", "http://LOCALHOST.:80"),
        (" https://board.example.org/\n", "https://board.example.org"),
        ("board.example.org:8443", "https://board.example.org:8443"),
        ("https://example.org/unlearning/", "https://example.org/unlearning"),
    ],
)
def test_check_address_completes_what_people_write(address: str, expected: str) -> None:
    assert check_address(address) == expected


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8000/boards/digits/cnn/class", "a page, .* --server http://127.0.0.1:8000$"),
        ("https://example.org/entries/abc", "a page, .* --server https://example.org$"),
        ("https://example.org/sub/boards/a/b/c?sort=js#top", "a page, .* --server https://example.org/sub$"),
        ("https://example.org/submit", "a page, .* --server https://example.org$"),
        ("https://example.org/api/v1", "a page, .* --server https://example.org$"),
        ("https://example.org/?sort=js", "a page, .* --server https://example.org$"),
        ("https://example.org:80x", "is not a server address .*Port could not be cast"),
        ("https://example.org:99999", "is not a server address .*Port out of range"),
        ("https://[::1", "is not a server address .*Invalid IPv6"),
        ("https://exam ple.org", "is not a server address"),
        ("https://ex\x00ample.org", "is not a server address"),
        ("", "is not a server address; write it as https://HOST"),
        ("https://", "is not a server address; write it as"),
        ("ftp://example.org", "is not a server address; write it as"),
        ("https://ada:secret@example.org", "contains a name or a password: remove it"),
        ("http://0.0.0.0:8000", "On this machine, use http://127.0.0.1:PORT"),
        ("http://example.org", "is not encrypted.* use https://example.org"),
    ],
)
def test_check_address_says_how_to_write_it(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        check_address(address)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        TOKEN.encode(),
        f"{TOKEN}\r\n".encode(),
        f"\ufeff{TOKEN}\r\n\r\n".encode(),
        f'  "{TOKEN}"  \n'.encode(),
        f"'{TOKEN}'".encode(),
        f"Bearer {TOKEN}\n".encode(),
        f"Authorization: Bearer {TOKEN}\n".encode(),
        f"export FORGETBENCH_TOKEN='{TOKEN}'\n".encode(),
        f"FORGETBENCH_TOKEN={TOKEN}".encode(),
        f"{TOKEN}\r\n".encode("utf-16"),
        f"\u00a0{TOKEN}\u200b\n".encode(),
    ],
)
def test_find_token_ignores_what_is_copied_along(
    own_home: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_home / "token").write_bytes(content)
    (own_home / "token").chmod(0o600)
    assert find_token() == TOKEN
    if content.isascii():
        monkeypatch.setenv("FORGETBENCH_TOKEN", content.decode())
        (own_home / "token").unlink()
        assert find_token() == TOKEN


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "contains 0 lines of text. Write one line into it"),
        (b"\n \n", "contains 0 lines of text"),
        (f"{TOKEN}\n{TOKEN}\n".encode(), "contains 2 lines of text"),
        (b"\xff\x00\x01\x80", "is no text file"),
    ],
)
def test_find_token_names_the_file(own_home: Path, content: bytes, message: str) -> None:
    (own_home / "token").write_bytes(content)
    (own_home / "token").chmod(0o600)
    with pytest.raises(UsageError, match=f"{own_home / 'token'} {message}"):
        find_token()


class Recorder(BaseHTTPRequestHandler):
    """A server that records requests and answers as a leaderboard does to whoami."""

    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization", "")))  # type: ignore[attr-defined]
        body = json.dumps({"name": "Ada", "scopes": ["submit"], "expires_at": None}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_CONNECT = do_GET  # noqa: N815 - the name of the base class

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def servers() -> Iterator[list[HTTPServer]]:
    """Two servers on this machine: a leaderboard, and a proxy."""
    made = []
    for _ in range(2):
        server = HTTPServer(("127.0.0.1", 0), Recorder)
        server.seen = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.append(server)
    yield made
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_token_for_this_machine_never_passes_a_proxy(
    servers: list[HTTPServer], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, proxy = servers
    monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.server_port}")
    for host in ("127.0.0.1", "localhost"):
        with LeaderboardClient(f"http://{host}:{board.server_port}", TOKEN) as client:
            assert client.whoami().name == "Ada"
    assert board.seen == [("/api/v1/whoami", f"Bearer {TOKEN}")] * 2  # type: ignore[attr-defined]
    assert proxy.seen == []  # type: ignore[attr-defined]


def test_token_for_other_machines_passes_the_proxy_encrypted(
    servers: list[HTTPServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{servers[1].server_port}")
    with LeaderboardClient("https://board.example.org", TOKEN) as client, pytest.raises(ForgetBenchError) as failed:
        client.whoami()
    assert "board.example.org cannot be reached" in str(failed.value)
    assert servers[1].seen == [("board.example.org:443", "")]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "HTTPS_PROXY",
            "socks5://127.0.0.1:1080",
            "HTTPS_PROXY names a SOCKS .* `pip install socksio`. .*NO_PROXY",
        ),
        ("all_proxy", "socks5h://me:secret@proxy:1080", "all_proxy names a SOCKS proxy"),
        (
            "HTTPS_PROXY",
            "ftp://me:secret@proxy:21",
            "HTTPS_PROXY is not the address of a proxy. Write it as http://HOST",
        ),
        ("HTTPS_PROXY", "http://proxy:80x", "HTTPS_PROXY is not the address of a proxy"),
        ("HTTPS_PROXY", "http://[::1", "HTTPS_PROXY is not the address of a proxy"),
        (
            "SSL_CERT_FILE",
            "/nowhere/ca.pem",
            "certificates that SSL_CERT_FILE names .*Correct or unset",
        ),
    ],
)
def test_unusable_environment_names_the_variable(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=message) as refused:
        LeaderboardClient(SERVER, TOKEN)
    assert "secret" not in str(refused.value)
    if "proxy" in variable.lower():
        LeaderboardClient("http://127.0.0.1:8000", TOKEN).__exit__()


def test_certificates_that_are_no_certificates_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(UsageError, match="The certificates that SSL_CERT_FILE names cannot be read"):
        LeaderboardClient(SERVER, TOKEN)


def test_refusing_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with LeaderboardClient(SERVER, TOKEN) as client, pytest.raises(ForgetBenchError, match="cannot be reached"):
            client.whoami()


def test_https_to_a_server_without_it_says_so(servers: list[HTTPServer]) -> None:
    address, message = f"https://127.0.0.1:{servers[0].server_port}", r"No HTTPS is spoken .* http://127\.0\.0\.1:PORT"
    with LeaderboardClient(address, TOKEN) as client, pytest.raises(ForgetBenchError, match=message):
        client.whoami()


def answer(status: int, server: str = SERVER, **options: object) -> str:
    """What the client says about a response."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, **options))  # type: ignore[arg-type]
    with LeaderboardClient(server, TOKEN, transport=transport) as client, pytest.raises(ForgetBenchError) as failed:
        client.whoami()
    return str(failed.value)


HTML = "<html><head><title>nginx</title></head></html>"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "asks for a password"),
        (403, "a proxy or a firewall refused the request"),
        (
            404,
            "there is no leaderboard at this address. Use .* as https://board.example.org.",
        ),
        (407, "the proxy asks for a password. To use no proxy"),
        (
            413,
            "a proxy in front of it accepts no upload of this size. Ask its operator .*client_max_body_size in nginx",
        ),
        (429, "too many requests. Try again in 7 seconds. Repeating an upload is safe"),
        (500, "the server failed. Tell its operator"),
        (502, "not ready: it is starting, overloaded or down. Try again in 7 seconds. Repeating an upload is safe"),
        (503, "not ready: it is starting, overloaded or down. Try again in 7 seconds. Repeating an upload is safe"),
        (504, "not ready"),
        (418, "answered 418, but not like a leaderboard. Check the address"),
        (200, "answered 200, but not like a leaderboard. Check the address"),
    ],
)
def test_answer_of_another_program_names_the_way_on(status: int, message: str) -> None:
    said = answer(status, text=HTML, headers={"Retry-After": "7"})
    assert re.search(f"^{SERVER} answered {status}", said)
    assert re.search(message, said), said


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    ("location", "message"),
    [
        (
            "https://new.example.org/api/v1/whoami",
            "it has moved. If you trust it, use --server https://new.example.org$",
        ),
        ("https://new.example.org/sub/api/v1/whoami", "use --server https://new.example.org/sub$"),
        ("http://new.example.org/api/v1/whoami", "it sends requests elsewhere. Check the address"),
        ("/login?next=/api/v1/whoami", "moved.*--server https://board.example.org/login$"),
        ("https://[", "it sends requests elsewhere"),
    ],
)
def test_redirect_names_the_new_address(status: int, location: str, message: str) -> None:
    said = answer(status, headers={"Location": location})
    assert re.search(message, said), said


def test_problem_of_a_server_keeps_its_words() -> None:
    problem = {"detail": "Too large.", "errors": []}
    assert answer(413, json=problem).endswith("Too large.\n  Its operator can raise FORGETBENCH_MAX_UPLOAD_BYTES.")
    assert "Try again in 9 seconds" in answer(503, json=problem, headers={"Retry-After": "9"})
    said = answer(404, f"{SERVER}/board/x", json={"detail": "There is nothing at /board/x/api/v1/whoami."})
    assert said.endswith(f"If the address has a path too many, use --server {SERVER}.")


@pytest.mark.parametrize("entry", ["abc", "/entries/abc/", f"{SERVER}/entries/abc", f"{SERVER}/entries/abc?x=1"])
def test_entry_is_found_by_its_address(entry: str) -> None:
    paths = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        paths.append(request.url.path)
        return httpx2.Response(404, json={"detail": "No."})

    with pytest.raises(ForgetBenchError):
        fetch_entry(entry, SERVER, transport=httpx2.MockTransport(respond))
    assert paths == ["/api/v1/entries/abc"]


def test_client_never_sends_a_token_it_was_not_given() -> None:
    sent = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers.get("authorization"))
        return httpx2.Response(200, json={"name": "x", "scopes": [], "expires_at": None})

    LeaderboardClient(SERVER, ANONYMOUS, transport=httpx2.MockTransport(respond)).whoami()
    LeaderboardClient(SERVER, f' "{TOKEN}"\r\n', transport=httpx2.MockTransport(respond)).whoami()
    assert sent == [None, f"Bearer {TOKEN}"]


def test_verify_of_records_of_another_version_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    row = SimpleNamespace(id="abc")
    entry = SimpleNamespace(row=row, manifest={"schema_version": 2}, scorecard=None, public_scorecard=None, pack="")
    monkeypatch.setattr("forgetbench.remote.verify.fetch_entry", lambda *_: entry)
    with pytest.raises(ForgetBenchError, match=r"Entry abc of https://x\.org .* Install the version of forgetbench"):
        compare_rerun("abc", "https://x.org", None, NullProgress(), print)
