"""Methods that are submitted without evidence: checked, stored, and queued for the board's own runner.

The source is read as text and parsed; it is never run here.
"""

from __future__ import annotations

import ast
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from sqlalchemy.orm import Session

from forgetbench.errors import described_pattern, field_message
from forgetbench.evidence.run import MAX_KEYS, Manifest, MethodRecord
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.db import queue, runs, states
from forgetbench.leaderboard.db.models import Board, BoardRun, Entry, IdempotencyKey, Token, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import FieldError, Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import names, receive, reference
from forgetbench.leaderboard.submissions.uploads import text_errors
from forgetbench.methods import methods
from forgetbench.store import digest
from forgetbench.user_files import parse_python

MAX_SOURCE = 200_000
"""Longest source text of a method, in characters."""
ParameterName = Annotated[
    str,
    StringConstraints(
        pattern=described_pattern(r"^[A-Za-z_]\w{0,79}$", "a Python name of at most 80 letters, digits and _")
    ),
]
Scalar = bool | int | float | Annotated[str, StringConstraints(max_length=1000)] | None


class SubmittedCode(BaseModel):
    """A method to run on a board: a class of a source text, or a method of this package by its name."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    task: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    """The board."""
    name: Annotated[str, StringConstraints(max_length=80)] = ""
    """Name of a method of this package; "" for a class of ``source``."""
    source: Annotated[str, StringConstraints(min_length=1, max_length=MAX_SOURCE)] | None = None
    """Source text of the method's file; it becomes public with the entry."""
    class_name: Annotated[str, StringConstraints(max_length=200)] = ""
    """The class in the source; "" if it defines one class."""
    parameters: Annotated[dict[ParameterName, Scalar], Field(max_length=MAX_KEYS)] = {}
    """Hyper-parameters; the others have their defaults."""


def parse_code(body: bytes) -> SubmittedCode:
    """A submitted method from the JSON of a request.

    Raises:
        Problem: 422, it does not follow the schema.
    """
    try:
        return SubmittedCode.model_validate_json(body)
    except ValidationError as error:
        errors = [
            FieldError(field=".".join(map(str, item["loc"])) or "body", message=field_message(item))
            for item in error.errors()
        ]
        raise Problem(422, "This is not a method to run; nothing was stored.", errors) from error


def receive_method(
    database: Database, settings: Settings, token: Token, code: SubmittedCode, *, key: str | None
) -> receive.Receipt:
    """Accept a method alone: the runner makes its evidence.

    Args:
        database: The server's database.
        settings: Folders and limits.
        token: Token of the submitter.
        code: The method.
        key: Idempotency key: the same body again returns the first receipt.

    Raises:
        Problem: It is refused, with every failed check; nothing is stored.
    """
    body = digest(code.model_dump(mode="json"))
    with database.read_session() as session:
        if key is not None and (earlier := receive.read_receipt(session, token, key, body)) is not None:
            return earlier
        board = receive.find_board(session, code.task)
    planned = _planned_manifest(board, code)
    errors = _check_code(code) or names.check_names(planned)
    if not board.sealed:
        message = (
            "this board is not sealed, so that nothing is verified on it; run the method at home and submit the run"
        )
        errors.append(FieldError(field="task", message=message))
    if errors:
        detail = f"The method was not accepted on {board.task}: {len(errors)} check(s) failed; nothing was stored."
        raise Problem(422, detail, errors)
    entry = reference.new_entry(board, planned, body, token, "claimed")
    entry_id = entry.id
    with database.write_session() as session:
        owner = tokens.lock_owners(session, token)
        if key is not None and (earlier := receive.read_receipt(session, token, key, body)) is not None:
            return earlier
        receive.check_quota(session, settings, owner, board)
        session.add(entry)
        session.flush()
        if key is not None:
            session.add(
                IdempotencyKey(token_id=token.id, key=key, body_sha256=body, entry_id=entry_id, created_at=utc_now())
            )
        states.record_event(session, entry, "received", token.name, "the method alone; the board's runner runs it")
        states.bump_revision(session, board.id)
        runs.request_run(session, entry, code.model_dump(mode="json"), at_once=not board.final_only)
    return receive.Receipt(entry_id, board.task, repeated=False)


def request_for_claim(session: Session, board: Board, entry: Entry) -> None:
    """Ask the runner to verify a claim that can be run, unless its round has a final evaluation."""
    if not board.final_only:
        _request_claim(session, board, entry)


def request_final(session: Session, board: Board, entry: Entry) -> None:
    """Ask the runner for the final evaluation of an entry, if it can be run."""
    if session.get(BoardRun, entry.id) is not None:
        queue.enqueue(session, "run", entry.id)
    else:
        _request_claim(session, board, entry)


def _request_claim(session: Session, board: Board, entry: Entry) -> None:
    """Ask the runner to verify a claim that can be run: it has source, or names a method of this package."""
    method = Manifest.model_validate(entry.manifest).method
    if (
        entry.baseline
        or not board.sealed
        or board.retired
        or method.observed
        or (method.source is None and method.name not in methods)
    ):
        return
    code = SubmittedCode.model_construct(
        task=board.task, name=method.name, source=method.source, class_name="", parameters=dict(method.parameters)
    )
    runs.request_run(session, entry, code.model_dump(mode="json"))


def _check_code(code: SubmittedCode) -> list[FieldError]:
    """Everything that can be said of a method without running it."""
    return text_errors({"source": code.source or "", "parameters": code.parameters}) or _check_class(code)


def _check_class(code: SubmittedCode) -> list[FieldError]:
    """What is wrong with the method that a name or a source text gives."""
    if code.source is None:
        known = code.name in methods
        return [] if known else [FieldError(field="name", message=f"{code.name!r} is no method of this package")]
    if code.name:
        return [FieldError(field="name", message="a submitted file names its method itself; omit this field")]
    try:
        tree = parse_python(code.source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [FieldError(field="source", message=f"is not valid Python: {type(error).__name__}")]
    classes = [item.name for item in tree.body if isinstance(item, ast.ClassDef)]
    if code.class_name and code.class_name not in classes:
        return [
            FieldError(field="class_name", message=f"is no class of the source, which has {classes[:10] or 'none'}")
        ]
    if not classes:
        return [FieldError(field="source", message="defines no class")]
    return []


def _planned_manifest(board: Board, code: SubmittedCode) -> Manifest:
    """The manifest of a method that is not run yet."""
    name = code.name or re.sub(r"(?<=[^A-Z])(?=[A-Z])", "-", code.class_name).lower() or "method"
    parameters = ",".join(f"{key}={value}" for key, value in code.parameters.items())
    method = MethodRecord(
        name=re.sub(r"[^\w+-]", "-", name)[:80],
        label=(f"{name}:{parameters}" if parameters else name)[:200],
        title="",
        family="own",
        needs=(),
        parameters=dict(code.parameters),
        fingerprint=digest([code.source, code.name]),
        source=code.source,
    )
    return Manifest(
        protocol=board.protocol,
        task=board.task,
        task_key=board.task_key,
        method=method,
        reason="The board's runner has not run it yet.",
        draws=board.draws,
        seeds=board.seeds,
        index_hashes={},
        models=(),
        environment={},
        created=utc_now().isoformat(timespec="seconds"),
    )
