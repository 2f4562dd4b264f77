"""Reference bundles of this server: installation, folders, the boards and baselines made from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.display import DISPLAY, read_display
from forgetbench.evidence.reference import PACK, PopulationRole, ReferenceBundle, read_pack
from forgetbench.evidence.run import Manifest, MethodRecord, ModelRecord, describe, schema_of
from forgetbench.leaderboard.auth.tokens import BASELINE_SUBMITTER
from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.models import Board, Entry, Token, search_text, utc_now
from forgetbench.leaderboard.db.runs import ShownMethod
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import names
from forgetbench.leaderboard.submissions.uploads import logits_digest
from forgetbench.scoring.vocabulary import PARTIAL, PROTOCOL
from forgetbench.store import digest, replace_folder, write_atomically

ROLES: tuple[PopulationRole, ...] = ("originals", "references", "controls")
DIGESTS = "answers.json"
"""File next to a bundle: digest of each model's logits -> its role and file."""


class Baseline(NamedTuple):
    """A board's row that the server makes from its reference bundle."""

    method: str
    title: str
    description: str
    needs: tuple[str, ...]
    """Subsets that the method reads."""


BASELINES: dict[PopulationRole, Baseline] = {
    "controls": Baseline(
        "retrain", "Retrain", "Trained from scratch without the forget set: the control oracles.", ("retain",)
    ),
    "originals": Baseline("none", "No unlearning", "The original models, untouched.", ()),
    "partials": Baseline(
        "retrain",
        PARTIAL,
        "Trained from scratch without the part of the harmful rows that was found: what retraining gives in practice.",
        ("retain",),
    ),
}
"""Role in the bundle -> its row. Only boards of correction have partial oracles."""


def roles_of(bundle: ReferenceBundle) -> tuple[PopulationRole, ...]:
    """The sets of models in a bundle."""
    return (*ROLES, "partials") if bundle.has_partials else ROLES


def board_folder(settings: Settings, board: Board) -> Path:
    """Folder of a board's bundle (in ``pack``) and of the files that are computed from it."""
    return settings.packs / board.pack_sha256


def bundle_folder(settings: Settings, board: Board) -> Path:
    """Folder of a board's bundle."""
    return board_folder(settings, board) / "pack"


def load_bundle(settings: Settings, board: Board) -> ReferenceBundle:
    """The bundle of a board, cached; its files were checked when it was installed."""
    return load_folder(bundle_folder(settings, board))


@lru_cache(maxsize=32)
def load_folder(folder: Path) -> ReferenceBundle:
    """An installed bundle by its folder, cached."""
    return read_pack(folder, verify=False)


def known_digests(settings: Settings, board: Board) -> dict[str, str]:
    """Digest of the logits of each model of a bundle -> its role and file, such as ``originals/d0-s0.npz``."""
    return _load_digests(board_folder(settings, board) / DIGESTS)


@lru_cache(maxsize=32)
def _load_digests(path: Path) -> dict[str, str]:
    digests: dict[str, str] = json.loads(path.read_bytes())
    return digests


def install_bundle(
    database: Database,
    settings: Settings,
    source: Path,
    *,
    number: int | None = None,
    add_files: Callable[[Path], None] | None = None,
) -> Board:
    """Copy a bundle to the server, and create its board with its baselines, such as Retrain and No unlearning.

    A newer bundle of a task supersedes the older one, whose board stays readable. Installing a bundle again changes
    nothing.

    Args:
        database: The server's database.
        settings: Folders of the server.
        source: Folder of the bundle.
        number: Number of a sealed board's round; None for a board whose oracles anyone can train.
        add_files: Adds further files to the board's folder.

    Raises:
        UsageError: The folder holds no bundle of a board, or the bundle has fewer than two seeds.
        ForgetBenchError: The bundle is damaged.
    """
    bundle = read_pack(source)
    if bundle.card.seeds < 2:
        raise UsageError(f"The pack of {bundle.card.task} has {bundle.card.seeds} seed; a board needs at least 2.")
    if bundle.card.kind != ("local" if number is None else "public"):
        raise UsageError(
            f"{source} is the {bundle.card.kind} bundle of {bundle.card.task}, of which no board is made by itself. "
            "`forgetbench pack build TASK --install` makes all bundles of a sealed board on the server's machine."
        )
    sha = bundle.digest
    folder = settings.packs / sha
    models = {role: _model_records(bundle, role) for role in roles_of(bundle)}
    if not (folder / DIGESTS).is_file():
        replace_folder(folder / "pack", lambda new: _copy(bundle, new), marker=PACK)
        if add_files is not None:
            add_files(folder)
        digests = {logits_digest(model): f"{role}/{model.file}" for role in models for model in models[role]}
        write_atomically(folder / DIGESTS, json.dumps(digests).encode())
    _copy_display(source, folder / "pack")
    with database.write_session() as session:
        board = session.scalar(select(Board).where(Board.task == bundle.card.task, Board.pack_sha256 == sha))
        if board is not None and board.superseded_at is None:
            session.expunge(board)
            return board
        session.execute(
            update(Board)
            .where(Board.task == bundle.card.task, Board.superseded_at.is_(None))
            .values(superseded_at=utc_now(), revision=Board.revision + 1)
        )
        if board is None:
            board = _new_board(session, bundle, sha, number)
            _add_baselines(session, board, bundle, models)
        else:
            board.superseded_at = None
            states.bump_revision(session, board.id)
        session.flush()
        session.refresh(board)
        session.expunge(board)
        return board


def _copy_display(source: Path, target: Path) -> None:
    """Copy what pages show of a bundle, if it has pictures or people and the server has not."""
    if (source / DISPLAY).is_file() and not (target / DISPLAY).is_file():
        write_atomically(target / DISPLAY, (source / DISPLAY).read_bytes())
        read_display.cache_clear()


def copy_bundle(source: Path, target: Path) -> None:
    """Copy a bundle into a board's folder, with every file checked.

    Raises:
        ForgetBenchError: The bundle is damaged.
    """
    bundle = read_pack(source)
    replace_folder(target, lambda new: _copy(bundle, new), marker=PACK)


def _copy(bundle: ReferenceBundle, target: Path) -> None:
    for name in (*bundle.card.files, PACK):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.folder / name, target / name)


def _new_board(session: Session, bundle: ReferenceBundle, sha: str, number: int | None) -> Board:
    card = bundle.card
    board = Board(
        task=card.task,
        protocol=PROTOCOL,
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
        round=number,
    )
    session.add(board)
    session.flush()
    return board


def _model_records(bundle: ReferenceBundle, role: PopulationRole) -> tuple[ModelRecord, ...]:
    card = bundle.card
    return tuple(
        ModelRecord(
            draw=draw,
            seed=seed,
            file=f"d{draw}-s{seed}.npz",
            original=card.originals[seed],
            arrays=describe(read_arrays(bundle.folder / role / f"d{draw}-s{seed}.npz")),
        )
        for draw in range(card.draws)
        for seed in range(card.seeds)
    )


def _add_baselines(
    session: Session, board: Board, bundle: ReferenceBundle, models: dict[PopulationRole, tuple[ModelRecord, ...]]
) -> None:
    for role, row in BASELINES.items():
        if role not in models:
            continue
        manifest = _baseline_manifest(bundle, role, row, models[role])
        entry = new_entry(board, manifest, digest(manifest.model_dump(mode="json")), None, "reference")
        session.add(entry)
        session.flush()
        states.record_event(session, entry, "received", states.SERVER_ACTOR, "baseline of the server")
        queue.enqueue(session, "score", entry.id)


def _baseline_manifest(
    bundle: ReferenceBundle, role: PopulationRole, row: Baseline, models: tuple[ModelRecord, ...]
) -> Manifest:
    """Manifest of a baseline, with the fields of a submission."""
    card = bundle.card
    return Manifest(
        schema_version=schema_of(card.track),
        protocol=card.protocol,
        task=card.task,
        task_key=card.task_key,
        method=MethodRecord(
            name=row.method,
            label=row.title,
            title=row.title,
            family="reference",
            needs=row.needs,
            parameters={},
            fingerprint=digest({"reference": role}),
            link=None,
            source=None,
        ),
        reason=row.description,
        draws=card.draws,
        seeds=card.seeds,
        index_hashes=card.index_hashes,
        models=models,
        environment=card.environment,
        command=f"forgetbench pack build {card.task}",
        created=utc_now().isoformat(timespec="seconds"),
    )


def new_entry(board: Board, manifest: Manifest, manifest_sha256: str, token: Token | None, tier: str) -> Entry:
    """Make the row of a received submission, or of a baseline if there is no token."""
    submitter = token.submitter if token else BASELINE_SUBMITTER
    method = manifest.method
    if token is not None:
        shown = names.shown_method(manifest, submitter)
    else:
        shown = ShownMethod(method.name, manifest.row, registered=False)
    return Entry(
        id=states.new_id(),
        board_id=board.id,
        token_id=token.id if token else None,
        submitter=submitter,
        state="received",
        tier=tier,
        baseline=token is None,
        received_at=utc_now(),
        method=shown.name,
        label=shown.label,
        registered=shown.registered,
        family=method.family,
        needs_retain="retain" in method.needs,
        changes_training=method.changes_training,
        sentinel=method.sentinel,
        fingerprint=method.fingerprint,
        search_text=search_text(shown.label, method, submitter),
        manifest=manifest.model_dump(mode="json"),
        manifest_sha256=manifest_sha256,
    )
