"""Submitting a run: checked here by the server's own code, uploaded, and waited for."""

from __future__ import annotations

import hashlib
import json
import re
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.run import MANIFEST, Run, read_run
from forgetbench.leaderboard.client.http import ANONYMOUS, CHUNK, Client, Progress

_PACK_FILE = re.compile(r"pack\.json|(originals|models)/[\w.-]+|(rows|index|indices)-d\d+\.npz")
REFUSED = ("rejected", "quarantined", "withdrawn")
"""States in which a submission does not stand on its board."""
_FINAL = ("listed", "flagged", *REFUSED)


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
        return wait(client, answer["id"], wait_seconds)


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
    from forgetbench.leaderboard.errors import Problem
    from forgetbench.leaderboard.submissions.uploads import check_headers, parse_manifest

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
                while chunk := source.read(CHUNK):
                    target.write(chunk)
    return path


def wait(client: Client, identity: str, seconds: float) -> Outcome:
    """Wait until a submission is listed or rejected, and its rank is known."""
    until, pause = time.monotonic() + seconds, 0.2
    while True:
        found = client.get(f"/api/v1/submissions/{quote(identity, safe='')}")
        decided = found["state"] in _FINAL and (found["state"] != "listed" or found["rank"] or found["reasons"])
        if decided or time.monotonic() > until:
            return Outcome(found["state"], found["task"], describe(found), found["url"], found)
        time.sleep(pause)
        pause = min(pause * 1.5, 3.0)


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
