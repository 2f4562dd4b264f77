"""Receive a submission: check everything, store the evidence durably, then add the row, so that nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from forgetbench.evidence.reference import check_run
from forgetbench.evidence.run import MANIFEST, Manifest, ModelRecord, Run
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.boards.entries import can_view, is_owner
from forgetbench.leaderboard.db import failures, queue, states
from forgetbench.leaderboard.db.models import (
    Board,
    Entry,
    EvidenceFile,
    IdempotencyKey,
    KnownAttack,
    Token,
    Verification,
    utc_now,
)
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import IN_YOUR_ENTRY, FieldError, Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import names, reference, rounds
from forgetbench.leaderboard.submissions.uploads import (
    UnpackedRun,
    UploadedBody,
    check_headers,
    logits_digest,
    sync,
    sync_folder,
    unpack,
)
from forgetbench.store import file_digest
from forgetbench.tasks.task import DEVELOPMENT, NOT_THE_BOARD


class Receipt(NamedTuple):
    """Result of a submission."""

    entry_id: str | None
    """The new entry; None for a dry run."""
    task: str
    """Task of its board."""
    repeated: bool
    """Whether the same request was received before; ``entry_id`` is then the first one's."""


def receive_submission(
    database: Database,
    settings: Settings,
    token: Token,
    body: UploadedBody,
    *,
    key: str | None,
    dry_run: bool,
) -> Receipt:
    """Check and store a submission.

    A dry run checks the form and compares nothing with hidden oracles, so that it tells nothing about them.

    Args:
        database: The server's database.
        settings: Folders and limits.
        token: Token of the submitter.
        body: The upload, on disk.
        key: Idempotency key: the same body again returns the first receipt.
        dry_run: Check only.

    Raises:
        Problem: The submission is refused, with every failed check; nothing is stored.
    """
    key = None if dry_run else key
    if (earlier := _find_receipt(database, token, key, body)) is not None:
        return earlier
    folder = body.path.with_suffix(".run")
    try:
        run = unpack(body, folder, settings.max_manifest_bytes)
        with database.read_session() as session:
            board = find_board(session, run.manifest.task, run.errors)
            check_quota(session, settings, token, board)
            check_space(session, settings, token, _size_of(run))
            reused = _find_reused(session, board, run, token)
            errors = [
                *names.check_names(run.manifest),
                *check_evidence(settings, board, run, form_only=dry_run),
                *_describe_reused(reused, token),
            ]
            own = any(is_owner(entry, token) for _, entry in reused)
        _raise_errors(board, errors, IN_YOUR_ENTRY if own else "about:blank")
        if dry_run:
            return Receipt(None, board.task, repeated=False)
        return _store_submission(database, settings, token, board, run, body, key)
    except Problem:
        # A concurrent request with the same key may have been stored: then the evidence is in use, and the quota spent.
        if (earlier := _find_receipt(database, token, key, body)) is not None:
            return earlier
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _raise_errors(board: Board, errors: list[FieldError], kind: str) -> None:
    if errors:
        detail = f"The run was not accepted on {board.task}: {len(errors)} check(s) failed; nothing was stored."
        raise Problem(422, detail, errors, kind=kind)


def check_evidence(settings: Settings, board: Board, run: UnpackedRun, *, form_only: bool = False) -> list[FieldError]:
    """Check a run as evidence for a board; files that cannot be read are not checked further.

    Args:
        settings: Folders of the server.
        board: The board.
        run: The run.
        form_only: Do not compare with hidden oracles.
    """
    errors = list(run.errors)
    errors += check_headers(run, {error.field for error in errors})
    unreadable = {error.field for error in errors}
    bundle = reference.load_bundle(settings, board)
    errors += [_to_field_error(problem, run) for problem in check_run(run, bundle, unreadable)]
    if form_only:
        return errors
    known = reference.known_digests(settings, board)
    return errors + [
        FieldError(field=model.file, message="holds the answers of one of this board's oracles")
        for model in run.manifest.evidence
        if known.get(logits_digest(model), "").partition("/")[0] in {"references", "controls", "partials"}
    ]


def _find_reused(session: Session, board: Board, run: Run, token: Token) -> list[tuple[str, Entry]]:
    """Files whose logits were submitted to this board before, and in which entry; not those of corrected entries."""
    files = {logits_digest(model): model.file for model in run.manifest.models}
    used = session.execute(
        select(EvidenceFile.answers, Entry)
        .join(Entry, Entry.id == EvidenceFile.entry_id)
        .where(EvidenceFile.board_id == board.id, EvidenceFile.counted, EvidenceFile.answers.in_(files))
    )
    return [(files[digest], entry) for digest, entry in used if not _is_corrected(entry, token)]


def _describe_reused(reused: Sequence[tuple[str, Entry]], token: Token) -> list[FieldError]:
    errors = [FieldError(field=file, message=_describe_reuse(entry, token)) for file, entry in reused]
    return sorted(errors, key=lambda error: error.field)


def _is_corrected(entry: Entry, token: Token) -> bool:
    """Whether an entry leaves its evidence to a correction: it is withdrawn, and the submitter's own."""
    return entry.state == "withdrawn" and is_owner(entry, token)


def _describe_reuse(entry: Entry, token: Token) -> str:
    message = "was submitted to this board before"
    if is_owner(entry, token):
        withdraw = f'`forgetbench withdraw {entry.id} --server URL --reason "..."`, then submit again'
        return f"{message}, in your entry {entry.id} ({entry.state}). To correct that entry: {withdraw}"
    if not can_view(entry, token):
        return f"{message}, in an entry of another token. If you lost that token, ask the operator to renew it"
    return f"{message}, in entry {entry.id} of {entry.submitter}"


def _release_withdrawn(session: Session, board: Board, files: Sequence[EvidenceFile], token: Token) -> None:
    """Let the evidence of the submitter's withdrawn entries count for a correction."""
    withdrawn = select(Entry.id).where(Entry.state == "withdrawn", Entry.token_id.in_(tokens.owner_ids(token)))
    session.execute(
        update(EvidenceFile)
        .where(
            EvidenceFile.board_id == board.id,
            EvidenceFile.answers.in_([file.answers for file in files]),
            EvidenceFile.entry_id.in_(withdrawn),
        )
        .values(counted=False)
    )


def _store_submission(
    database: Database, settings: Settings, token: Token, board: Board, run: Run, body: UploadedBody, key: str | None
) -> Receipt:
    tier = "reference" if "run" in token.scopes and not board.sealed else "claimed"
    entry = reference.new_entry(board, run.manifest, file_digest(run.folder / MANIFEST), token, tier)
    entry_id, folder = entry.id, settings.evidence / entry.id
    originals = _original_digests(settings, board)
    files = [
        EvidenceFile(
            entry_id=entry_id,
            name=model.file,
            board_id=board.id,
            sha256=file_digest(run.folder / model.file),
            size=(run.folder / model.file).stat().st_size,
            answers=logits_digest(model),
            counted=isinstance(model, ModelRecord) and logits_digest(model) not in originals,
        )
        for model in run.manifest.evidence
    ]
    store_evidence(run, folder)
    try:
        with database.write_session() as session:
            if key is not None and (earlier := read_receipt(session, token, key, body.sha256)) is not None:
                shutil.rmtree(folder)
                return earlier
            owner = tokens.lock_owners(session, token)
            check_quota(session, settings, owner, board)
            check_space(session, settings, owner, sum(file.size for file in files))
            session.add(entry)
            session.flush()
            _release_withdrawn(session, board, files, token)
            session.add_all(files)
            if key is not None:
                session.add(
                    IdempotencyKey(
                        token_id=token.id, key=key, body_sha256=body.sha256, entry_id=entry_id, created_at=utc_now()
                    )
                )
            states.record_event(session, entry, "received", token.name)
            states.bump_revision(session, board.id)  # the submitter's page shows one more attempt
            queue.enqueue(session, "score", entry_id)
    except IntegrityError as error:  # a concurrent request used the same key or the same evidence first
        shutil.rmtree(folder, ignore_errors=True)
        raise Problem(409, "The same evidence was submitted to this board before.") from error
    except (Problem, SQLAlchemyError) as error:
        if isinstance(error, Problem) or failures.failure_kind(error) in {"full", "busy"}:
            shutil.rmtree(folder, ignore_errors=True)  # nothing was committed; a lost connection leaves that open
        raise
    return Receipt(entry_id, board.task, repeated=False)


def _original_digests(settings: Settings, board: Board) -> set[str]:
    """Hashes of the originals' logits; a method that changes nothing may be submitted repeatedly."""
    return {
        digest for digest, file in reference.known_digests(settings, board).items() if file.startswith("originals/")
    }


def reclaim_evidence(session: Session, settings: Settings, entry: Entry) -> None:
    """Count the evidence of a rejected entry as used again.

    Raises:
        Problem: 409, another entry has the same evidence now.
    """
    if entry.baseline:
        return
    originals = _original_digests(settings, session.get_one(Board, entry.board_id))
    models = {model.file for model in Manifest.model_validate(entry.manifest).models}
    for file in session.scalars(select(EvidenceFile).where(EvidenceFile.entry_id == entry.id)):
        file.counted = file.name in models and file.answers not in originals
    try:
        session.flush()
    except IntegrityError as error:
        raise Problem(409, "Another entry on this board has the same evidence now.") from error


def store_evidence(run: Run, target: Path) -> None:
    """Move a run to its final folder; it is flushed to the disk when this returns."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sync_folder(run.folder)
    run.folder.rename(target)
    sync(target.parent)


def _find_receipt(database: Database, token: Token, key: str | None, body: UploadedBody) -> Receipt | None:
    """The receipt of an earlier request with the same key and body."""
    if key is None:
        return None
    with database.read_session() as session:
        return read_receipt(session, token, key, body.sha256)


def read_receipt(session: Session, token: Token, key: str, body: str) -> Receipt | None:
    """The receipt of an earlier request with the same key; ``body`` is the SHA-256 of the present one.

    Raises:
        Problem: 409, the key was used with another body.
    """
    row = session.get(IdempotencyKey, (token.id, key))
    if row is None:
        return None
    if row.body_sha256 != body:
        raise Problem(409, "This Idempotency-Key was used with another body; use a new one for each submission.")
    task = session.scalar(select(Board.task).join(Entry, Entry.board_id == Board.id).where(Entry.id == row.entry_id))
    return Receipt(row.entry_id, str(task), repeated=True)


def find_board(session: Session, task: str, errors: Sequence[FieldError] = ()) -> Board:
    """The board of a task that accepts submissions.

    Args:
        session: Session to read with.
        task: Name of the task.
        errors: What else is wrong with the submission, for the answer.

    Raises:
        Problem: 422, there is none, or its round is over.
    """
    board = session.scalar(select(Board).where(Board.task == task, Board.superseded_at.is_(None)))
    if board is None:
        query = select(Board.task).where(Board.superseded_at.is_(None)).order_by(Board.task).limit(20)
        available = ", ".join(session.scalars(query)) or "none yet"
        hint = f": {NOT_THE_BOARD}; run {task.removesuffix(DEVELOPMENT)} itself" if task.endswith(DEVELOPMENT) else ""
        unknown = FieldError(field="task", message=f"{task!r} is not on this server{hint}")
        raise Problem(422, f"This server has no board of that task. Available: {available}.", [unknown, *errors])
    try:
        rounds.check_open(board, utc_now())
    except Problem as problem:
        raise Problem(problem.status, problem.detail, [*problem.errors, *errors]) from problem
    return board


def check_disk(settings: Settings, announced: int) -> None:
    """Check that the server's disk has space for an upload, which is there twice while it is unpacked.

    Raises:
        Problem: 507, it has not.
    """
    if failures.free_bytes(settings.server_folder) < settings.min_free_bytes + 2 * announced:
        raise failures.disk_full()


def check_quota(session: Session, settings: Settings, token: Token, board: Board) -> None:
    """Check that a token may submit to a board once more.

    Raises:
        Problem: 403 or 429, it may not; 507, the board has as many submissions as this server stores.
    """
    stored = session.scalar(select(func.count()).where(Entry.board_id == board.id)) or 0
    if stored >= settings.max_entries:
        raise Problem(507, f"This board has {stored} submissions, the most that this server stores. Ask the operator.")
    quota = settings.daily_submissions if token.daily_submissions is None else token.daily_submissions
    if quota == 0:
        raise Problem(403, "This token cannot submit: its quota is 0. Ask the operator for another.")
    since = utc_now() - timedelta(days=1)
    times = select(Entry.received_at).where(Entry.token_id.in_(tokens.owner_ids(token)), Entry.received_at > since)
    used = session.scalar(select(func.count()).select_from(times.subquery())) or 0
    if used >= quota:
        oldest = session.scalar(times.order_by(Entry.received_at).limit(1)) or since
        seconds = max(1, int((oldest - since).total_seconds()))
        raise Problem(
            429,
            f"This {_owner(token)} has made {used} of {quota} submissions in 24 hours; try again later.",
            headers={"Retry-After": str(seconds)},
        )
    rounds.check_team_quota(session, board, token)


def _owner(token: Token) -> str:
    return "token" if token.team is None else "team"


def check_space(session: Session, settings: Settings, token: Token, size: int) -> None:
    """Check that a token may store more evidence; what the runner recorded of its entries counts too.

    Args:
        session: Session to read with.
        settings: The limit, and the folder of evidence.
        token: The token.
        size: Bytes to store.

    Raises:
        Problem: 403, all its evidence together would exceed the limit.
    """
    owners = tokens.owner_ids(token)
    submitted = select(func.sum(EvidenceFile.size)).join(Entry, Entry.id == EvidenceFile.entry_id)
    stored = int(session.scalar(submitted.where(Entry.token_id.in_(owners))) or 0)
    verifications = session.scalars(select(Verification.id).where(Verification.token_id.in_(owners)))
    attacks = session.scalars(select(KnownAttack.id).where(KnownAttack.token_id.in_(owners)))
    entries = session.scalars(select(Entry.id).where(Entry.token_id.in_(owners)))
    folders = [settings.evidence / name for name in (*verifications, *attacks)]
    folders += [settings.verified / name for name in entries]
    stored += sum(path.stat().st_size for folder in folders for path in folder.glob("**/*") if path.is_file())
    if stored + size > settings.token_evidence_bytes:
        raise Problem(
            403,
            f"This token has {stored} bytes of evidence on this server, and {size} more would exceed its limit of "
            f"{settings.token_evidence_bytes}. Its operator can raise FORGETBENCH_TOKEN_EVIDENCE_BYTES.",
        )


def _size_of(run: Run) -> int:
    """Bytes of the evidence files that could be unpacked."""
    files = [run.folder / record.file for record in run.manifest.evidence]
    return sum(path.stat().st_size for path in files if path.is_file())


def _to_field_error(problem: str, run: Run) -> FieldError:
    """A sentence of ``check_run`` as a field error; sentences about a file begin with its name."""
    name, colon, rest = problem.partition(": ")
    if colon and name in {record.file for record in run.manifest.evidence}:
        return FieldError(field=name, message=rest)
    return FieldError(field="manifest", message=problem)
