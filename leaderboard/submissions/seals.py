"""Sealed boards: the server's salt, what its runner needs of a board, and the evidence that the runner returns.

Files of a sealed board, in ``packs/HASH/`` in the server's folder:

- ``pack/``: the bundle of its public draws. Submitters get its originals and row numbers; its oracles, whose seeds
  derive from the salt, never leave the server.
- ``sealed/``: the bundle of its sealed draws, of which nothing leaves the server before the round ends.
- ``development/``: the development bundle, which is offered as a whole.
- ``seal.json``: the number of the round and its salt, for runners.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.reference import BundleKind, ReferenceBundle, check_run
from forgetbench.evidence.run import Run, read_run
from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.models import Board, Entry, Job
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import reference
from forgetbench.leaderboard.submissions.uploads import sync_folder
from forgetbench.store import canonical_json, replace_folder
from forgetbench.tasks.seal import SALT, Draws, board_salt
from forgetbench.tasks.task import Task, names, read_task

SEAL = "seal.json"
"""File next to a board's bundles with the number of its round and its salt."""
RUNNER_REPORT = "runner.json"
"""File next to the runner's evidence of an entry with what the runner measured and where it ran."""


class RoundSeal(BaseModel):
    """Content of ``seal.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int = Field(ge=1)
    """Number of the round."""
    salt: str = Field(pattern=SALT.pattern, repr=False)
    """Its salt."""


class BoardDraws(NamedTuple):
    """What a runner needs of one kind of draws of a board."""

    task: Task
    """The task with the board's counts and the server's seeds."""
    bundle: ReferenceBundle
    """The bundle with the originals that methods start from."""


def server_salt(settings: Settings) -> str:
    """The server's salt; it is made when it is first needed.

    Raises:
        UsageError: The file is damaged, or people other than its owner can read it.
    """
    path = settings.salt
    if not path.is_file():
        _create_salt(path)
    if path.stat().st_mode & 0o077:
        raise UsageError(
            f"{path} can be read by other users of this machine, who could train the oracles of every sealed board. "
            f"If no one has read it: chmod 600 {path}. Otherwise remove it and build the boards again."
        )
    salt = path.read_text(encoding="ascii", errors="replace").strip()
    if not SALT.fullmatch(salt):
        raise UsageError(
            f"{path} does not hold a salt of 64 hexadecimal digits. Restore it from a backup; if there is none, remove "
            "it: installed boards keep working, and later ones get a new salt."
        )
    return salt


def _create_salt(path: Path) -> None:
    """Write a new salt, complete from the moment when the file has its name, unless another process was first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".salt.")  # readable by its owner only
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_hex(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return
    finally:
        Path(name).unlink()


def next_round(session: Session, task: str) -> int:
    """Number of the round of a board that is built now: that of the present board until its salt is published."""
    last = session.execute(
        select(Board.round, Board.revealed_at)
        .where(Board.task == task, Board.round.is_not(None))
        .order_by(Board.round.desc(), Board.revealed_at.is_(None))
        .limit(1)
    ).first()
    if last is None:
        return 1
    return int(last.round) + (last.revealed_at is not None)


def round_seal(settings: Settings, task: Task, number: int) -> RoundSeal:
    """The seal of a round of a task's board, derived from the server's salt."""
    return RoundSeal(round=number, salt=board_salt(server_salt(settings), task.key, number))


def write_seal(folder: Path, seal: RoundSeal) -> None:
    """Write ``seal.json`` into a board's folder, readable by its owner only."""
    path = folder / SEAL
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(canonical_json(seal.model_dump(mode="json")))
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o600)


def read_seal(settings: Settings, board: Board) -> RoundSeal:
    """The seal of a sealed board.

    Raises:
        ForgetBenchError: The board is not sealed, or the file is missing or damaged.
    """
    if not board.sealed:
        raise ForgetBenchError(
            f"The board of {board.task} is not sealed, so that nothing is verified on it. "
            f"`forgetbench pack build {board.task} --install` makes a sealed one."
        )
    path = reference.board_folder(settings, board) / SEAL
    try:
        return RoundSeal.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ForgetBenchError(f"{path} is missing or damaged. Restore it from a backup of the server.") from error


def board_draws(settings: Settings, board: Board) -> dict[Draws, BoardDraws]:
    """What a runner needs of a sealed board: its public and its sealed draws.

    The runner imports the originals of each bundle into its own store, and lets methods run there with the seeds of the
    task. It trains no oracle: the worker scores its evidence.

    Raises:
        ForgetBenchError: The board is not sealed, a file is missing, or this version defines the task differently.
    """
    salt = read_seal(settings, board).salt
    plain = read_task(board.task) if board.task in names() else Task.model_validate(board.definition)
    if plain.key != board.task_key:
        raise ForgetBenchError(
            f"The board of {board.task} was built by another version of forgetbench, which defines the task "
            "differently. Run it with that version, or build the board again."
        )
    task = plain.with_counts(seeds=board.seeds, draws=board.draws)
    return {
        "public": BoardDraws(task.with_hidden_oracles(salt), reference.load_bundle(settings, board)),
        "sealed": BoardDraws(task.with_sealed_draws(salt), load_sealed_bundle(settings, board)),
    }


def install_sealed_board(
    database: Database, settings: Settings, bundles: Mapping[BundleKind, Path], seal: RoundSeal
) -> Board:
    """Make a sealed board of its bundles: ``public``, ``sealed`` and ``development``.

    Raises:
        UsageError: A folder holds no bundle, or one of another kind.
        ForgetBenchError: A bundle is damaged.
    """

    def add_files(folder: Path) -> None:
        for kind in ("sealed", "development"):
            reference.copy_bundle(bundles[kind], folder / kind)
        write_seal(folder, seal)

    return reference.install_bundle(database, settings, bundles["public"], number=seal.round, add_files=add_files)


def sealed_folder(settings: Settings, board: Board) -> Path:
    """Folder of the bundle of a board's sealed draws."""
    return reference.board_folder(settings, board) / "sealed"


def load_sealed_bundle(settings: Settings, board: Board) -> ReferenceBundle:
    """The bundle of a board's sealed draws."""
    return reference.load_folder(sealed_folder(settings, board))


def ranking_bundle(settings: Settings, board: Board) -> Path:
    """Folder of the bundle that a board's ranked rows are scored against."""
    return sealed_folder(settings, board) if board.sealed else reference.bundle_folder(settings, board)


def verified_run(settings: Settings, entry: Entry, draws: Draws) -> Run:
    """The runner's evidence of an entry.

    Raises:
        UsageError: There is none.
    """
    return read_run(settings.verified / entry.id / draws)


def receive_verified_runs(
    database: Database,
    settings: Settings,
    entry_id: str,
    runs: dict[Draws, Path],
    *,
    actor: str,
    report: dict[str, Any] | None = None,
    job: Job | None = None,
    record: Callable[[Session, Entry], None] | None = None,
) -> None:
    """Check and store what the runner produced for an entry, and have it scored; the worker then sets the tier.

    Args:
        database: The server's database.
        settings: Folders of the server.
        entry_id: The entry.
        runs: Folder of the run on public draws, and of that on sealed draws; both are copied.
        actor: Name of the runner in the entry's history.
        report: What the runner measured and where it ran, ready for JSON.
        job: The runner's job, which is completed in the same transaction.
        record: Records what else the runner learned of the entry, in the same transaction.

    Raises:
        ForgetBenchError: A run did not complete, or is not valid evidence of the board; nothing is stored.
    """
    with database.read_session() as session:
        board = session.get_one(Board, session.get_one(Entry, entry_id).board_id)
        session.expunge_all()
    bundles = {"public": reference.load_bundle(settings, board), "sealed": load_sealed_bundle(settings, board)}
    for draws, bundle in bundles.items():
        problems = check_run(read_run(runs[draws]), bundle)  # type: ignore[index]
        if problems:
            raise ForgetBenchError(f"The run on {draws} draws is not valid evidence: {'; '.join(problems)}.")

    def fill(place: Path) -> None:
        for draws, folder in runs.items():
            shutil.copytree(folder, place / draws)
        (place / RUNNER_REPORT).write_text(json.dumps(report or {}), encoding="utf-8")
        sync_folder(place)

    settings.verified.mkdir(mode=0o700, exist_ok=True)
    replace_folder(settings.verified / entry_id, fill, marker=RUNNER_REPORT)
    with database.write_session() as session:
        if job is not None:
            queue.complete(session, job)
        entry = session.get_one(Entry, entry_id)
        states.lock_entry(session, entry)
        if entry.state == "purged":
            shutil.rmtree(settings.verified / entry_id, ignore_errors=True)
            return
        states.record_event(session, entry, entry.state, actor, "run again on public and sealed draws; being scored")
        if record is not None:
            record(session, entry)
        states.bump_revision(session, entry.board_id)
        queue.enqueue(session, "score_verified", entry_id)
