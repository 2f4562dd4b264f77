"""Submitting a run: checked here by the server's own code, uploaded, and waited for.

A token goes over HTTPS, or to this machine itself, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx2

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence import MANIFEST, Run, read_run
from forgetbench.store import home

TOKEN_VARIABLE = "FORGETBENCH_TOKEN"  # noqa: S105 - the variable's name
MEDIA_TYPE = "application/zip"
_CHUNK = 2**18
ANONYMOUS = ""
"""Stands for a token where none is needed."""
_PACK_FILE = re.compile(r"pack\.json|(originals|models)/[\w.-]+|(rows|index|indices)-d\d+\.npz")
REFUSED = ("rejected", "quarantined", "withdrawn")
"""States in which a submission does not stand on its board."""
_FINAL = ("listed", "flagged", *REFUSED)

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far, and those in all."""


class Outcome(NamedTuple):
    """What became of a submission."""

    state: str
    """``listed``, ``rejected``, ...; ``accepted`` for a dry run; the last state seen where the wait was too short."""
    task: str
    """The board."""
    detail: str
    """One sentence: the place and its interval, or why not."""
    url: str
    """The entry's page; "" for a dry run."""
    document: dict[str, Any]
    """The server's whole answer."""


def submit(
    run_folder: Path,
    server: str,
    token: str | None = None,
    *,
    dry_run: bool = False,
    wait_seconds: float = 600.0,
    progress: Progress | None = None,
    transport: httpx2.BaseTransport | None = None,
) -> Outcome:
    """Submit a run to a leaderboard and wait for the verdict.

    Args:
        run_folder: The run: ``manifest.json`` and its evidence files.
        server: The server's address, such as ``https://board.example.org``.
        token: The token; None: from the environment or the private file.
        dry_run: Only find out what the server would say.
        wait_seconds: How long to wait for the score.
        progress: Is told how far the upload is.
        transport: Stands in for the network in tests.

    Raises:
        UsageError: The run, the address or the token is wrong; the message says what to do.
        ForgetBenchError: The server cannot be reached, or refuses the run; the message lists every reason.
    """
    run = check_locally(run_folder)
    with Client(server, token, transport=transport) as client:
        client.introduce()
        with TemporaryDirectory(prefix="forgetbench-") as folder:
            body = pack_body(run, Path(folder) / "run.zip")
            answer = client.upload(body, dry_run=dry_run, progress=progress)
        if dry_run:
            return Outcome("accepted", answer["task"], answer["detail"], "", answer)
        return client.wait(answer["id"], wait_seconds)


def withdraw(
    identity: str, reason: str, server: str, token: str | None = None, *, transport: httpx2.BaseTransport | None = None
) -> str:
    """Withdraw one's own submission; returns its new state. A tombstone stays, and the attempt counts.

    Raises:
        UsageError: The token is wrong, or not the submitter's.
        ForgetBenchError: There is no such submission, or it cannot be withdrawn.
    """
    with Client(server, token, transport=transport) as client:
        wanted = {"state": "withdrawn", "reason": reason}
        return str(client.post(f"/api/v1/submissions/{quote(identity, safe='')}/state", wanted)["state"])


def post_verification(
    identity: str,
    run_folder: Path,
    server: str,
    token: str | None = None,
    *,
    wait_seconds: float = 600.0,
    progress: Progress | None = None,
    transport: httpx2.BaseTransport | None = None,
) -> dict[str, Any]:
    """Post a second run of a listed submission's recipe, and wait for the comparison.

    Returns:
        The verification: ``verdict`` (``reproduced``, ``not reproduced``) and ``comparison`` by ranking metric.

    Raises:
        UsageError: The token has not the scope ``verify``.
        ForgetBenchError: The server refuses the run, or cannot be reached.
    """
    run = check_locally(run_folder)
    with Client(server, token, transport=transport) as client:
        client.introduce()
        with TemporaryDirectory(prefix="forgetbench-") as folder:
            body = pack_body(run, Path(folder) / "run.zip")
            path = f"/api/v1/submissions/{quote(identity, safe='')}/verifications"
            name = client.upload(body, path=path, progress=progress)["id"]
        until, pause = time.monotonic() + wait_seconds, 0.2
        while True:
            found = client.get(f"/api/v1/entries/{quote(identity, safe='')}")
            [record] = [item for item in found["verifications"] if item["id"] == name]
            if record["verdict"] != "received" or time.monotonic() > until:
                return dict(record)
            time.sleep(pause)
            pause = min(pause * 1.5, 3.0)


def fetch_entry(identity: str, server: str, *, transport: httpx2.BaseTransport | None = None) -> dict[str, Any]:
    """An entry, whole, without a token: its manifest holds method, parameters, source and command.

    Raises:
        ForgetBenchError: There is none of that id, or the server cannot be reached.
    """
    with Client(server, ANONYMOUS, transport=transport) as client:
        return client.get(f"/api/v1/entries/{quote(identity, safe='')}")


def pull_pack(
    task: str, server: str, folder: Path, *, pack: str = "", transport: httpx2.BaseTransport | None = None
) -> Path:
    """Fetch the public part of a board's pack into a folder: card, originals and their evidence.

    Args:
        task: The board's task.
        server: The leaderboard's address.
        folder: Where to put it.
        pack: The beginning of a pack's hash, of a board that may be superseded; "" is the present board's.
        transport: Stands in for the network in tests.

    Raises:
        UsageError: The folder is not empty.
        ForgetBenchError: The server has no such board, cannot be reached, or sent something else.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose another folder.")
    with Client(server, ANONYMOUS, transport=transport) as client, TemporaryDirectory(prefix="forgetbench-") as place:
        chosen = f"?pack={quote(pack)}" if pack else ""
        path = client.download(f"/api/v1/tasks/{quote(task, safe='/')}/pack{chosen}", Path(place) / "pack.zip")
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if any(not _PACK_FILE.fullmatch(name) for name in names) or "pack.json" not in names:
                    raise ForgetBenchError(f"{server} sent something that is no pack.")
                card = json.loads(archive.read("pack.json"))
                for name in names:
                    content = archive.read(name)
                    if name != "pack.json" and hashlib.sha256(content).hexdigest() != card["files"].get(name):
                        raise ForgetBenchError(f"{name} of the pack was damaged on its way; fetch it again.")
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(content)
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ForgetBenchError(f"{server} sent no readable pack; fetch it again.") from error
    return folder


def check_locally(folder: Path) -> Run:
    """Read a run and check all of it that needs no pack: the manifest, its files and the hash of every array.

    Raises:
        UsageError: There is no run, or its manifest is not valid.
        ForgetBenchError: A file is missing or damaged.
    """
    from forgetbench.leaderboard.problems import Problem
    from forgetbench.leaderboard.uploads import check_headers, parse_manifest

    run = read_run(folder)
    if run.manifest.status != "ok":
        raise UsageError(f"{folder} holds no complete run ({run.manifest.status}): {run.manifest.reason}")
    try:
        parse_manifest((folder / MANIFEST).read_bytes())
    except Problem as problem:
        lines = [f"{error.field}: {error.message}" for error in problem.errors]
        raise UsageError("\n".join([f"{folder / MANIFEST}: {problem.detail}", *lines])) from problem
    problems = [f"{error.field}: {error.message}" for error in check_headers(run)]
    if not problems:
        for record in run.manifest.evidence:
            try:
                run.answers(record)
            except ForgetBenchError as error:
                problems.append(str(error))
    if problems:
        raise ForgetBenchError("\n".join([f"{folder} cannot be submitted; make the run again:", *problems]))
    return run


def pack_body(run: Run, path: Path) -> Path:
    """The body of a submission: the run's files in a zip without compression; the same run gives the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in (MANIFEST, *sorted(record.file for record in run.manifest.evidence)):
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            with (run.folder / name).open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
    return path


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
                while chunk := stream.read(_CHUNK):
                    yield chunk
                    sent += len(chunk)
                    if progress is not None:
                        progress(sent, size)

        params = {"dry_run": "true"} if dry_run else {}
        with self._reaching():
            answer = self._http.post(path, content=chunks(), headers=headers, params=params)
            return self._checked(answer)

    def wait(self, identity: str, seconds: float) -> Outcome:
        """Wait until a submission is listed or rejected, and its rank is known."""
        until, pause = time.monotonic() + seconds, 0.2
        while True:
            found = self.get(f"/api/v1/submissions/{quote(identity, safe='')}")
            decided = found["state"] in _FINAL and (found["state"] != "listed" or found["rank"] or found["reasons"])
            if decided or time.monotonic() > until:
                return Outcome(found["state"], found["task"], describe(found), found["url"], found)
            time.sleep(pause)
            pause = min(pause * 1.5, 3.0)

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


def describe(found: dict[str, Any]) -> str:
    """A submission's state in one sentence."""
    state, note = found["state"], found["note"]
    if state in REFUSED:
        return f"{state}: {note or 'no reason given'}"
    if state not in {"listed", "flagged"}:
        return f"{state}; {found.get('waits') or 'the server is still at work'}"
    review = f"; under review: {note or 'no reason given'}" if state == "flagged" else ""
    if found["rank"] is None:
        reason = "; ".join(found["reasons"]) or "the ranking is being brought up to date"
        return f"listed, not ranked: {reason}{review}"
    low, high = found["rank"]["low"], found["rank"]["high"]
    place = f"rank {low}" if low == high else f"rank {low} to {high} (tied)"
    inside = "; not told from retraining" if found["inside"] else ""
    return f"{place} of {found['ranked']}, distance {found['distance']:.2f}{inside}{review}"
