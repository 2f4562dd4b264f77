"""Submit runs: check them with the server's own code, upload them, and wait for the score."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple
from urllib.parse import quote, urlencode

import httpx2

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.arrays import UNREADABLE, first_line
from forgetbench.evidence.attacks import MANIFEST as ATTACK_MANIFEST
from forgetbench.evidence.attacks import REFERENCE_POPULATIONS, AttackManifest
from forgetbench.evidence.reference import BUNDLE_FILES, PACK, PUBLIC_FILES
from forgetbench.evidence.run import MANIFEST, Run, read_run
from forgetbench.leaderboard.client.http import ANONYMOUS, CHUNK, LeaderboardClient, UploadProgress
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render.schemas import (
    AttackReceived,
    DryRunDocument,
    EntryDocument,
    RunDocument,
    SubmissionDocument,
    VerificationDocument,
    VerificationReceived,
)
from forgetbench.leaderboard.submissions.uploads import UploadedBody, check_headers, parse_manifest, unpack
from forgetbench.store import JsonObject, digest
from forgetbench.user_files import without_paths

REFUSED_STATES = ("rejected", "quarantined", "withdrawn", "purged")
"""States in which a submission is not on its board."""
_MAX_MANIFEST_BYTES = 64 * 2**20
"""Largest manifest that a server may send."""
OfferedKind = Literal["public", "development"]
"""Bundles that a server offers: the public part of a board's bundle, or the development bundle of a sealed board."""
_FINAL_STATES = ("accepted", "listed", "flagged", *REFUSED_STATES)


class Outcome(NamedTuple):
    """Result of a submission."""

    state: str
    """State of the entry; ``accepted`` for a dry run. Not final if the wait was too short."""
    task: str
    """Task of the board."""
    detail: str
    """One sentence: the rank with its interval, or the reason."""
    url: str
    """Page of the entry; "" for a dry run."""
    document: SubmissionDocument | DryRunDocument
    """The server's response."""


def submit(
    run_folder: Path,
    server: str,
    token: str | None = None,
    *,
    dry_run: bool = False,
    source: bool = True,
    wait_seconds: float = 600.0,
    progress: UploadProgress | None = None,
    transport: httpx2.BaseTransport | None = None,
) -> Outcome:
    """Submit a run to a leaderboard, and wait for its score.

    Args:
        run_folder: The run: ``manifest.json`` and its evidence files.
        server: Address of the server, such as ``https://board.example.org``.
        token: The token; None to read it from the environment or the private file.
        dry_run: Validate without submitting.
        source: Whether to send the method's source.
        wait_seconds: Longest wait for the score.
        progress: Called with the progress of the upload.
        transport: Replacement of the network in tests.

    Raises:
        UsageError: The run, the address or the token is invalid.
        ForgetBenchError: The server cannot be reached, or refuses the run for the listed reasons.
    """
    run = validate_run(run_folder)
    with LeaderboardClient(server, token, transport=transport) as client:
        client.whoami()
        with TemporaryDirectory(prefix="forgetbench-") as folder:
            body = write_body(run, Path(folder) / "run.zip", source=source)
            if dry_run:
                accepted = client.upload(_SUBMISSIONS, body, DryRunDocument, dry_run=True, progress=progress)
                return Outcome("accepted", accepted.task, accepted.detail, "", accepted)
            received = client.upload(_SUBMISSIONS, body, SubmissionDocument, progress=progress)
        return _wait_for_score(client, received.id, wait_seconds)


def submit_method(
    code: JsonObject,
    server: str,
    token: str | None = None,
    *,
    wait_seconds: float = 0.0,
    transport: httpx2.BaseTransport | None = None,
) -> Outcome:
    """Submit a method alone, which the board's own runner runs and verifies.

    Args:
        code: The method: ``task``, ``parameters``, and ``source`` with ``class_name``, or ``name``.
        server: Address of the server.
        token: The token; None to read it from the environment or the private file.
        wait_seconds: Longest wait for its score; 0 returns its place in the queue.
        transport: Replacement of the network in tests.

    Raises:
        UsageError: The address or the token is invalid.
        ForgetBenchError: The server cannot be reached, or refuses the method for the listed reasons.
    """
    with LeaderboardClient(server, token, transport=transport) as client:
        client.whoami()
        received = client.post(f"{_SUBMISSIONS}/method", code, SubmissionDocument, key=digest(code))
        return _wait_for_score(client, received.id, wait_seconds)


def fetch_submission(
    submission_id: str, server: str, token: str | None = None, *, transport: httpx2.BaseTransport | None = None
) -> Outcome:
    """State of a submission, its place in the queue of the runner, and the reasons for both.

    Raises:
        UsageError: The address or the token is invalid.
        ForgetBenchError: The submission is unknown, or is neither listed nor the token's.
    """
    with LeaderboardClient(server, token, transport=transport) as client:
        return _wait_for_score(client, submission_id, 0.0)


def withdraw(
    submission_id: str,
    reason: str,
    server: str,
    token: str | None = None,
    *,
    transport: httpx2.BaseTransport | None = None,
) -> str:
    """Withdraw your own submission; returns its new state. A tombstone stays, and the attempt counts.

    Raises:
        UsageError: The token is invalid, or not the submitter's.
        ForgetBenchError: The submission is unknown, or cannot be withdrawn.
    """
    with LeaderboardClient(server, token, transport=transport) as client:
        change = {"state": "withdrawn", "reason": reason}
        return client.post(f"{_submission_path(submission_id)}/state", change, SubmissionDocument).state


def post_verification(
    submission_id: str,
    run_folder: Path,
    server: str,
    token: str | None = None,
    *,
    wait_seconds: float = 600.0,
    progress: UploadProgress | None = None,
    transport: httpx2.BaseTransport | None = None,
) -> VerificationDocument:
    """Post a second run of a listed submission's recipe, and wait for the comparison.

    Raises:
        UsageError: The token lacks the scope ``verify``.
        ForgetBenchError: The server cannot be reached, or refuses the run.
    """
    run = validate_run(run_folder)
    with LeaderboardClient(server, token, transport=transport) as client:
        client.whoami()
        with TemporaryDirectory(prefix="forgetbench-") as folder:
            body = write_body(run, Path(folder) / "run.zip")
            path = f"{_submission_path(submission_id)}/verifications"
            received = client.upload(path, body, VerificationReceived, progress=progress)
        pause = _Backoff(wait_seconds)
        while True:
            entry = client.get(_entry_path(submission_id), EntryDocument)
            record = next((item for item in entry.verifications if item.id == received.id), None)
            if record is None:
                raise ForgetBenchError(f"{server} no longer shows the second run of {submission_id}. Check its page.")
            if record.outcome != "received" or not pause.sleep():
                return record


def post_attack(
    entry_id: str,
    folder: Path,
    row: Path,
    server: str,
    token: str | None = None,
    *,
    progress: UploadProgress | None = None,
    transport: httpx2.BaseTransport | None = None,
) -> str:
    """Post the evidence of an attack on an entry; returns the id of the record.

    Args:
        entry_id: The entry.
        folder: The folder of one attack with one budget, as `forgetbench attack` writes it.
        row: The folder of the attacked row in it.
        server: Address of the server.
        token: Token; by default that of FORGETBENCH_TOKEN or a file.
        progress: Called while the evidence is sent.
        transport: Replacement of the network in tests.

    Raises:
        UsageError: A population is missing.
        ForgetBenchError: The server cannot be reached, or refuses the evidence.
    """
    sources = {name: folder / name for name in REFERENCE_POPULATIONS} | {"row": row}
    files = {f"{name}/{path.name}": path for name, place in sources.items() for path in sorted(place.glob("*"))}
    if missing := [name for name in sources if f"{name}/{ATTACK_MANIFEST}" not in files]:
        raise UsageError(f"{folder} has no {ATTACK_MANIFEST} of {', '.join(missing)}. `forgetbench attack` writes it.")
    with LeaderboardClient(server, token, transport=transport) as client, TemporaryDirectory() as new:
        body = Path(new) / "attack.zip"
        with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as archive:
            for name, path in files.items():
                content = path.read_bytes()
                if path.name == ATTACK_MANIFEST:
                    manifest = AttackManifest.model_validate_json(content)
                    public = manifest.model_copy(update={"command": without_paths(manifest.command)})
                    content = public.model_dump_json(indent=1).encode()
                archive.writestr(_member(name), content)
        return client.upload(f"{_submission_path(entry_id)}/attacks", body, AttackReceived, progress=progress).id


def fetch_entry(entry_id: str, server: str, *, transport: httpx2.BaseTransport | None = None) -> EntryDocument:
    """Fetch an entry without a token; its manifest has method, parameters, source and command.

    Raises:
        ForgetBenchError: The entry is unknown, or the server cannot be reached.
    """
    with LeaderboardClient(server, ANONYMOUS, transport=transport) as client:
        return client.get(_entry_path(entry_id), EntryDocument)


def fetch_evidence(entry_id: str, server: str, folder: Path, *, transport: httpx2.BaseTransport | None = None) -> Run:
    """Fetch the evidence of an entry without a token, with the server's own checks of its form.

    Args:
        entry_id: The entry.
        server: Address of the server.
        folder: Folder to create.
        transport: Replacement of the network in tests.

    Raises:
        ForgetBenchError: The entry is unknown, the server cannot be reached, or sent something else.
    """
    folder.mkdir(parents=True)
    with LeaderboardClient(server, ANONYMOUS, transport=transport) as client:
        path = client.download(f"{_entry_path(entry_id)}/evidence", folder / "evidence.zip")
    try:
        run = unpack(UploadedBody(path, "", path.stat().st_size), folder / "run", _MAX_MANIFEST_BYTES)
    except Problem as problem:
        raise ForgetBenchError(f"{server} sent unreadable evidence of {entry_id}: {problem.detail}") from problem
    if run.errors:
        raise ForgetBenchError(f"{server} sent damaged evidence of {entry_id}: {run.errors[0].message}.")
    return run


def pull_bundle(
    task: str,
    server: str,
    folder: Path,
    *,
    pack: str = "",
    kind: OfferedKind = "public",
    transport: httpx2.BaseTransport | None = None,
) -> Path:
    """Fetch what a server offers of a board: originals, row numbers and a manifest, or its development bundle.

    Args:
        task: Task of the board.
        server: Address of the server.
        folder: Folder to create, or an empty one.
        pack: Beginning of a bundle's hash, for a superseded board; "" for the current board.
        kind: ``development`` for the development bundle of a sealed board.
        transport: Replacement of the network in tests.

    Raises:
        UsageError: The folder is not empty.
        ForgetBenchError: The server has no such board, cannot be reached, or sent something else.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose another folder.")
    query = urlencode({"pack": pack} if pack else {}) if kind == "public" else urlencode({"pack": pack, "kind": kind})
    path = f"/api/v1/tasks/{quote(task, safe='/')}/pack" + (f"?{query}" if query else "")
    with (
        LeaderboardClient(server, ANONYMOUS, transport=transport) as client,
        TemporaryDirectory(prefix="forgetbench-") as temporary,
    ):
        try:
            with zipfile.ZipFile(client.download(path, Path(temporary) / "pack.zip")) as archive:
                _extract_bundle(archive, Path(temporary) / "pack", kind)
        except (*UNREADABLE, AttributeError) as error:
            raise ForgetBenchError(
                f"{server} sent an unreadable pack of {task} ({first_line(error)}). Fetch it again; if "
                "that does not help, tell its operator."
            ) from error
        shutil.copytree(Path(temporary) / "pack", folder, dirs_exist_ok=True)
    return folder


def _extract_bundle(archive: zipfile.ZipFile, folder: Path, kind: OfferedKind) -> None:
    names, allowed = archive.namelist(), BUNDLE_FILES if kind == "development" else PUBLIC_FILES
    foreign = [name for name in names if not allowed.fullmatch(name)]
    if foreign or PACK not in names:
        raise ValueError(f"{ascii(foreign[0])[:100]} is not a file of a pack" if foreign else f"it has no {PACK}")
    card = json.loads(archive.read(PACK))
    if (card.get("kind") == "development") != (kind == "development"):
        raise ValueError("it is not the kind of bundle that was requested")
    hashes = card["files"]
    for name in names:
        content = archive.read(name)
        if name != PACK and hashlib.sha256(content).hexdigest() != hashes.get(name):
            raise ValueError(f"{name} was damaged in transfer")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def validate_run(folder: Path) -> Run:
    """Read a run, and check everything that needs no bundle: manifest, files, and the hash of every array.

    Raises:
        UsageError: There is no complete run, or its manifest is invalid.
        ForgetBenchError: A file is missing or damaged.
    """
    run = read_run(folder)
    if run.manifest.status != "ok":
        raise UsageError(f"{folder} holds no complete run ({run.manifest.status}): {run.manifest.reason}")
    try:
        parse_manifest((folder / MANIFEST).read_bytes())
    except Problem as problem:
        lines = [f"{error.field}: {error.message}" for error in problem.errors]
        raise UsageError("\n".join([f"{folder / MANIFEST}: {problem.detail}", *lines])) from problem
    errors = [f"{error.field}: {error.message}" for error in check_headers(run)]
    if not errors:
        for record in run.manifest.evidence:
            try:
                run.answers(record)
            except ForgetBenchError as error:
                errors.append(str(error))
    if errors:
        raise ForgetBenchError("\n".join([f"{folder} cannot be submitted; make the run again:", *errors]))
    return run


def write_body(run: Run, path: Path, *, source: bool = True) -> Path:
    """Write a run's files as an uncompressed zip; the same run gives the same bytes.

    Args:
        run: The run.
        path: File to write.
        source: Whether the manifest contains the method's source.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(_member(MANIFEST), "w", force_zip64=True) as target:
            target.write(_public_manifest(run, source=source))
        for name in sorted(record.file for record in run.manifest.evidence):
            with (run.folder / name).open("rb") as file, archive.open(_member(name), "w", force_zip64=True) as target:
                shutil.copyfileobj(file, target, CHUNK)
    return path


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))


def _public_manifest(run: Run, *, source: bool) -> bytes:
    """The bytes of a run's manifest, without absolute paths in its command and, if not wanted, without the source."""
    manifest = run.manifest
    method = manifest.method if source else manifest.method.model_copy(update={"source": None})
    public = manifest.model_copy(update={"method": method, "command": without_paths(manifest.command)})
    if public == manifest:
        return (run.folder / MANIFEST).read_bytes()
    return public.model_dump_json(indent=1).encode()


_SUBMISSIONS = "/api/v1/submissions"


def _submission_path(entry: str) -> str:
    return f"{_SUBMISSIONS}/{quote(_entry_id(entry), safe='')}"


def _entry_path(entry: str) -> str:
    return f"/api/v1/entries/{quote(_entry_id(entry), safe='')}"


def _entry_id(entry: str) -> str:
    """The id of an entry, of which people also give the page's address."""
    return entry.partition("?")[0].strip(" /").rpartition("/")[2]


class _Backoff:
    """Pauses between polls, from 0.2 to 3 seconds, until a deadline."""

    def __init__(self, seconds: float) -> None:
        self._deadline, self._pause = time.monotonic() + seconds, 0.2

    def sleep(self) -> bool:
        """Pause; False without a pause once the deadline has passed."""
        if time.monotonic() > self._deadline:
            return False
        time.sleep(self._pause)
        self._pause = min(self._pause * 1.5, 3.0)
        return True


def _wait_for_score(client: LeaderboardClient, submission_id: str, seconds: float) -> Outcome:
    """Poll until a submission is ranked or refused, or the time is over."""
    pause = _Backoff(seconds)
    while True:
        document = client.get(_submission_path(submission_id), SubmissionDocument)
        decided = document.rank is not None or document.reasons or document.state != "listed"
        if (document.state in _FINAL_STATES and decided) or not pause.sleep():
            return Outcome(document.state, document.task, describe_state(document), document.url, document)


def describe_run(run: RunDocument | None) -> str:
    """What the board's runner does with a submission, in one sentence; "" if it has nothing more to do."""
    if run is None or run.state == "done":
        return ""
    if run.state == "failed":
        return f"not verified: {run.reason}"
    waits = f"; {run.waits}" if run.waits else ""
    if run.state == "running":
        return f"the board's runner runs it: {run.progress or 'starting'}{waits}"
    return f"place {run.place or 1} in the queue of the board's runner{waits}"


def describe_state(submission: SubmissionDocument) -> str:
    """State and rank of a submission in one sentence."""
    state, note = submission.state, submission.note or "no reason given"
    if state in REFUSED_STATES:
        return f"{state}: {note}"
    if state == "accepted":
        number = f"; distance {submission.distance:.3g}" if submission.distance is not None else ""
        return f"accepted{number}; the ranking is hidden until the results of the round are revealed"
    if state not in {"listed", "flagged"}:
        return f"{state}; {describe_run(submission.run) or submission.waits or 'waiting for the scoring worker'}"
    review = f"; under review: {note}" if state == "flagged" else ""
    run = describe_run(submission.run)
    review += f"; {run}" if run else ""
    if submission.rank is None:
        reason = "; ".join(submission.reasons) or "the ranking is being updated"
        return f"listed, not ranked: {reason}{review}"
    low, high = submission.rank.low, submission.rank.high
    place = f"rank {low}" if low == high else f"rank {low} to {high}"
    scopes = {"claimed": " claimed rows", "own originals": " methods with own originals"}
    claims = scopes.get(submission.rank.scope, "")
    verdict = f"; {submission.verdict}" if submission.verdict else ""
    rank = f"{place} of {submission.ranked}{claims}"
    return f"{submission.tier}: {rank}, distance {submission.distance:.2f}{verdict}{review}"
