"""The packs of this server: where they lie, and which answers are known from them."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.reference import ReferenceBundle, read_pack
from forgetbench.evidence.run import Manifest, MethodRecord, ModelRecord, describe
from forgetbench.leaderboard.db import queue as jobs
from forgetbench.leaderboard.db import states
from forgetbench.leaderboard.db.models import Board, Entry, Token, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.db.states import new_id
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions.uploads import answers_digest
from forgetbench.store import digest, replace_folder, write_atomically

Role = Literal["originals", "references", "controls"]
ANSWERS = "answers.json"


def folder(settings: Settings, board: Board) -> Path:
    """The folder of a board's pack; what is computed from the pack lies beside it."""
    return settings.packs / board.pack_sha256


def pack_of(settings: Settings, board: Board) -> ReferenceBundle:
    """The pack of a board; its files were checked when it was installed."""
    return _read(folder(settings, board) / "pack")


@lru_cache(maxsize=32)
def _read(path: Path) -> ReferenceBundle:
    return read_pack(path, verify=False)


def known_answers(settings: Settings, board: Board) -> dict[str, str]:
    """Digest of answers -> the role and file in the pack that gave them."""
    return _answers(folder(settings, board) / ANSWERS)


@lru_cache(maxsize=32)
def _answers(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(path.read_bytes())
    return found


def install(database: Database, settings: Settings, source: Path) -> Board:
    """Take a pack into the server: its board appears, with the reference rows Retrain and No unlearning.

    A newer pack of a task supersedes the older one, whose board stays readable. Installing the same pack again changes
    nothing.

    Raises:
        UsageError: There is no pack in that folder.
        ForgetBenchError: It is damaged.
    """
    pack = read_pack(source)
    if pack.card.seeds < 2:
        raise UsageError(f"The pack of {pack.card.task} has {pack.card.seeds} seed; a board needs at least 2.")
    sha = digest(pack.card.model_dump(mode="json"))
    place = settings.packs / sha
    models = {role: _models(pack, role) for role in get_args(Role)}
    if not (place / ANSWERS).is_file():
        replace_folder(place / "pack", lambda fresh: _copy(pack, fresh))
        answers = {
            answers_digest(model): f"{role}/{model.file}" for role, records in models.items() for model in records
        }
        write_atomically(place / ANSWERS, json.dumps(answers).encode())
    with database.writing() as session:
        board = session.scalar(select(Board).where(Board.task == pack.card.task, Board.pack_sha256 == sha))
        if board is not None and board.superseded_at is None:
            session.expunge(board)
            return board
        now = utc_now()
        session.execute(
            update(Board)
            .where(Board.task == pack.card.task, Board.superseded_at.is_(None))
            .values(superseded_at=now, revision=Board.revision + 1)
        )
        if board is None:
            board = _new_board(session, pack, sha)
            _add_reference_rows(session, board, pack, models)
        else:
            board.superseded_at = None
            states.touch(session, board.id)
        session.flush()
        session.refresh(board)
        session.expunge(board)
        return board


def _copy(pack: ReferenceBundle, target: Path) -> None:
    for name in (*pack.card.files, "pack.json"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pack.folder / name, target / name)


def _new_board(session: Session, pack: ReferenceBundle, sha: str) -> Board:
    card = pack.card
    board = Board(
        task=card.task,
        protocol=card.protocol,
        task_key=card.task_key,
        pack_sha256=sha,
        title=card.title,
        track=card.track,
        scenario=card.scenario,
        seeds=card.seeds,
        draws=card.draws,
        image_set=dict(card.image_set),
        definition=card.definition,
        installed_at=utc_now(),
    )
    session.add(board)
    session.flush()
    return board


def _models(pack: ReferenceBundle, role: Role) -> tuple[ModelRecord, ...]:
    card = pack.card
    return tuple(
        ModelRecord(
            draw=draw,
            seed=seed,
            file=f"d{draw}-s{seed}.npz",
            original=card.originals[seed],
            arrays=describe(read_arrays(pack.folder / role / f"d{draw}-s{seed}.npz")),
        )
        for draw in range(card.draws)
        for seed in range(card.seeds)
    )


def _add_reference_rows(
    session: Session, board: Board, pack: ReferenceBundle, models: dict[Role, tuple[ModelRecord, ...]]
) -> None:
    for role in ("controls", "originals"):
        manifest = reference_manifest(pack, role, models[role])
        entry = new_entry(board, manifest, digest(manifest.model_dump(mode="json")), token=None)
        session.add(entry)
        session.flush()
        states.record(session, entry, "received", states.SERVER, "the server's own row")
        jobs.request(session, "score", entry.id)


REFERENCE_ROWS: dict[str, tuple[str, str, str]] = {
    "controls": ("retrain", "Retrain", "Trained from scratch without the forget set: the control oracles."),
    "originals": ("none", "No unlearning", "The original models, untouched."),
}
"""Role in the pack -> name, title and description of the row that it becomes."""


def reference_manifest(pack: ReferenceBundle, role: str, models: tuple[ModelRecord, ...]) -> Manifest:
    """The manifest of a reference row, as if someone had submitted it."""
    name, title, description = REFERENCE_ROWS[role]
    card = pack.card
    needs: dict[str, Any] = {"controls": ("retain",), "originals": ()}
    return Manifest(
        protocol=card.protocol,
        task=card.task,
        task_key=card.task_key,
        method=MethodRecord(
            name=name,
            label=title,
            title=title,
            family="reference",
            needs=needs[role],
            parameters={},
            source_sha256=digest({"reference": role}),
            link=None,
            source=None,
        ),
        reason=description,
        draws=card.draws,
        seeds=card.seeds,
        index_hashes=card.index_hashes,
        models=models,
        environment=card.environment,
        command=f"forgetbench pack build {card.task}",
        created=utc_now().isoformat(timespec="seconds"),
    )


REFERENCE_SUBMITTER = "ForgetBench"


def new_entry(board: Board, manifest: Manifest, manifest_sha256: str, token: Token | None) -> Entry:
    """The row of a submission that has just been received; without a token it is the server's own reference row."""
    submitter = token.name if token else REFERENCE_SUBMITTER
    label = label_of(manifest)
    method = manifest.method
    return Entry(
        id=new_id(),
        board_id=board.id,
        token_id=token.id if token else None,
        submitter=submitter,
        state="received",
        tier="recomputed" if token else "reference",
        received_at=utc_now(),
        method=method.name,
        label=label,
        family=method.family,
        needs_retain="retain" in method.needs,
        changes_training=method.changes_training,
        sentinel=method.sentinel,
        search_text=" ".join([label, method.name, method.title, method.family, submitter]).casefold(),
        manifest=manifest.model_dump(mode="json"),
        manifest_sha256=manifest_sha256,
    )


def label_of(manifest: Manifest) -> str:
    """The name of a row, at most 120 characters."""
    return manifest.row[:120].strip() or "unnamed"
