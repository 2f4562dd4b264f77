"""The reception of a submission: every check, then evidence on disk, then the row. In that order, so none is lost."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from forgetbench.evidence.reference import check_run
from forgetbench.evidence.run import MANIFEST, Manifest, ModelRecord, Run
from forgetbench.leaderboard.db import queue as jobs
from forgetbench.leaderboard.db import states
from forgetbench.leaderboard.db.models import Board, Entry, EvidenceFile, IdempotencyKey, Token, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import FieldError, Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import reference as packs
from forgetbench.leaderboard.submissions.reference import new_entry
from forgetbench.leaderboard.submissions.uploads import (
    Body,
    Received,
    answers_digest,
    check_headers,
    make_durable,
    sync,
    unpack,
)
from forgetbench.store import file_digest

_RESERVED = {name.casefold() for row in packs.REFERENCE_ROWS.values() for name in row[:2]}


class Reception(NamedTuple):
    """What became of a submission."""

    entry_id: str | None
    """The new entry; None for a dry run."""
    task: str
    """Its board."""
    repeated: bool
    """Whether this is the first answer again."""


def receive(
    database: Database,
    settings: Settings,
    token: Token,
    body: Body,
    *,
    key: str | None,
    dry_run: bool,
) -> Reception:
    """Check a body that was received whole, and keep it.

    Args:
        database: Where rows go.
        settings: Where files go, and limits.
        token: Who submits.
        body: The body, on disk.
        key: Idempotency key: the same body again gets the first answer.
        dry_run: Only check.

    Raises:
        Problem: It is refused; every failed check is listed, and nothing is kept.
    """
    key = None if dry_run else key
    if (earlier := _answered(database, token, key, body)) is not None:
        return earlier
    folder = body.path.with_suffix(".run")
    try:
        run = unpack(body, folder, settings.max_manifest_bytes)
        with database.reading() as session:
            board = _board_of(session, run)
            _refuse_beyond_quota(session, settings, token)
            errors = check(session, settings, board, run)
        _refuse_errors(board, errors)
        if dry_run:
            return Reception(None, board.task, repeated=False)
        return _keep(database, settings, token, board, run, body, key)
    except Problem:
        # the same request, beside this one, may have been kept meanwhile: its evidence is then "used", its quota spent
        if (earlier := _answered(database, token, key, body)) is not None:
            return earlier
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_errors(board: Board, errors: list[FieldError]) -> None:
    if errors:
        detail = f"The evidence cannot stand on {board.task}: {len(errors)} check(s) failed; nothing was stored."
        raise Problem(422, detail, errors)


def check(session: Session, settings: Settings, board: Board, run: Received) -> list[FieldError]:
    """Everything that is wrong with a run as a submission to a board."""
    return _check_names(run) + check_evidence(settings, board, run) + _check_used(session, board, run)


def check_evidence(settings: Settings, board: Board, run: Received) -> list[FieldError]:
    """All that is wrong with a run as evidence, whoever brings it. A file that cannot be read is asked nothing more."""
    errors = list(run.faults)
    errors += check_headers(run, {error.field for error in errors})
    unread = {error.field for error in errors}
    errors += [_field_error(problem, run) for problem in check_run(run, packs.pack_of(settings, board), unread)]
    known = packs.known_answers(settings, board)
    return errors + [
        FieldError(field=model.file, message="holds the answers of one of this board's oracles")
        for model in run.manifest.evidence
        if known.get(answers_digest(model), "").partition("/")[0] in {"references", "controls"}
    ]


def _check_names(run: Received) -> list[FieldError]:
    """Names that would be taken for the server's own rows."""
    method = run.manifest.method
    return [
        FieldError(field=f"method.{field}", message=f"{name!r} is the name of a reference row: choose another")
        for field, name in (("name", method.name), ("label", method.label))
        if " ".join(name.split()).casefold() in _RESERVED
    ]


def _check_used(session: Session, board: Board, run: Run) -> list[FieldError]:
    answers = {answers_digest(model): model.file for model in run.manifest.models}
    used = session.scalars(
        select(EvidenceFile.answers).where(
            EvidenceFile.board_id == board.id, EvidenceFile.counted, EvidenceFile.answers.in_(answers)
        )
    )
    errors = [FieldError(field=answers[answer], message="was submitted to this board before") for answer in used]
    return sorted(errors, key=lambda error: error.field)


def _keep(
    database: Database, settings: Settings, token: Token, board: Board, run: Run, body: Body, key: str | None
) -> Reception:
    manifest_sha = file_digest(run.folder / MANIFEST)
    entry = new_entry(board, run.manifest, manifest_sha, token)
    identity, place = entry.id, settings.evidence / entry.id
    untouched = _untouched(settings, board)
    files = [
        EvidenceFile(
            entry_id=identity,
            name=model.file,
            board_id=board.id,
            sha256=file_digest(run.folder / model.file),
            size=(run.folder / model.file).stat().st_size,
            answers=answers_digest(model),
            counted=isinstance(model, ModelRecord) and answers_digest(model) not in untouched,
        )
        for model in run.manifest.evidence
    ]
    put_in_place(run, place)
    try:
        with database.writing() as session:
            if key is not None and (earlier := _first_answer(session, token, key, body)) is not None:
                shutil.rmtree(place)
                return earlier
            locked = session.get_one(Token, token.id, with_for_update=True)  # requests at once count one by one
            _refuse_beyond_quota(session, settings, locked)
            session.add(entry)
            session.flush()
            session.add_all(files)
            if key is not None:
                session.add(
                    IdempotencyKey(
                        token_id=token.id, key=key, body_sha256=body.sha256, entry_id=identity, created_at=utc_now()
                    )
                )
            states.record(session, entry, "received", token.name)
            states.touch(session, board.id)  # it is one more attempt on its submitter's page
            jobs.request(session, "score", identity)
    except IntegrityError as error:  # another request was first: with the same key, or with the same evidence
        shutil.rmtree(place, ignore_errors=True)
        raise Problem(409, "The same evidence was submitted to this board before.") from error
    except Problem:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return Reception(identity, board.task, repeated=False)


def _untouched(settings: Settings, board: Board) -> set[str]:
    """Hashes of the originals' own answers: a method that changes nothing may be submitted again and again."""
    return {answer for answer, place in packs.known_answers(settings, board).items() if place.startswith("originals/")}


def count_again(session: Session, settings: Settings, entry: Entry) -> None:
    """Let the evidence of an entry that was rejected count as used once more.

    Raises:
        Problem: 409, another entry has brought the same evidence since.
    """
    if entry.tier == "reference":
        return
    untouched = _untouched(settings, session.get_one(Board, entry.board_id))
    models = {model.file for model in Manifest.model_validate(entry.manifest).models}
    for file in session.scalars(select(EvidenceFile).where(EvidenceFile.entry_id == entry.id)):
        file.counted = file.name in models and file.answers not in untouched
    try:
        session.flush()
    except IntegrityError as error:
        raise Problem(409, "The same evidence stands on this board under another entry by now.") from error


def put_in_place(run: Run, place: Path) -> None:
    """Move a run to where it stays; it is on the disk when this returns."""
    place.parent.mkdir(parents=True, exist_ok=True)
    make_durable(run.folder)
    run.folder.rename(place)
    sync(place.parent)


def _answered(database: Database, token: Token, key: str | None, body: Body) -> Reception | None:
    """What the same body with the same key was answered before, if anything."""
    if key is None:
        return None
    with database.reading() as session:
        return _first_answer(session, token, key, body)


def _first_answer(session: Session, token: Token, key: str, body: Body) -> Reception | None:
    row = session.get(IdempotencyKey, (token.id, key))
    if row is None:
        return None
    if row.body_sha256 != body.sha256:
        raise Problem(409, "This Idempotency-Key was used with another body; use a new one for each submission.")
    task = session.scalar(select(Board.task).join(Entry, Entry.board_id == Board.id).where(Entry.id == row.entry_id))
    return Reception(row.entry_id, str(task), repeated=True)


def _board_of(session: Session, run: Received) -> Board:
    task = run.manifest.task
    board = session.scalar(select(Board).where(Board.task == task, Board.superseded_at.is_(None)))
    if board is None:
        there = session.scalars(select(Board.task).where(Board.superseded_at.is_(None)).order_by(Board.task).limit(20))
        detail = f"This server has no board of that task. It has: {', '.join(there) or 'none yet'}."
        missing = FieldError(field="task", message=f"{task!r} is not on this server")
        raise Problem(422, detail, [missing, *run.faults])
    return board


def _refuse_beyond_quota(session: Session, settings: Settings, token: Token) -> None:
    quota = settings.daily_submissions if token.daily_submissions is None else token.daily_submissions
    if quota == 0:
        raise Problem(403, "This token may submit nothing: its quota is 0. Ask the operator for another.")
    since = utc_now() - timedelta(days=1)
    times = select(Entry.received_at).where(Entry.token_id == token.id, Entry.received_at > since)
    used = session.scalar(select(func.count()).select_from(times.subquery())) or 0
    if used >= quota:
        oldest = session.scalar(times.order_by(Entry.received_at).limit(1)) or since
        wait = max(1, int((oldest - since).total_seconds()))
        raise Problem(
            429,
            f"This token has made {used} of {quota} submissions in 24 hours; try again later.",
            headers={"Retry-After": str(wait)},
        )


def _field_error(problem: str, run: Run) -> FieldError:
    """A sentence of ``check_run`` as a field error: those on a file begin with its name."""
    name, colon, rest = problem.partition(": ")
    if colon and name in {record.file for record in run.manifest.evidence}:
        return FieldError(field=name, message=rest)
    return FieldError(field="manifest", message=problem)
