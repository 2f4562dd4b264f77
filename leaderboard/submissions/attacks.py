"""Attacks on entries: evidence of anybody with a token, scored like all others and shown as claimed.

A body has four folders, as ``forgetbench attack`` writes them for one attack with one budget: ``originals/``,
``references/``, ``controls/`` and ``row/``, each with ``attack.json`` and one ``.npz`` for each model. The server
computes what the attack finds from these answers. What is only claimed sets no flag: the oracles of the author may be
others than they say. The runner's own record (`verification.attacks`) does.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.evidence.attacks import (
    MANIFEST,
    REFERENCE_POPULATIONS,
    AttackedPopulation,
    Population,
    check_attacked,
    read_attacked,
)
from forgetbench.evidence.reference import ReferenceBundle
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.models import Board, Entry, KnownAttack, Score, Token, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import FieldError, Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import receive, reference
from forgetbench.leaderboard.submissions.uploads import (
    UploadedBody,
    check_files,
    logits_digest,
    sync,
    sync_folder,
    text_errors,
    unpack_files,
)
from forgetbench.scoring.scorecards import Scorecard

if TYPE_CHECKING:
    from forgetbench.scoring.attacks import AttackScale, AttackScore

POPULATIONS: tuple[Population, ...] = (*REFERENCE_POPULATIONS, "row")
"""The folders of a body."""
_MEMBER = re.compile(rf"({'|'.join(POPULATIONS)})/(attack\.json|d\d{{1,4}}-s\d{{1,4}}\.npz)")
Populations = Mapping[Population, AttackedPopulation]


class ScoredAttack(NamedTuple):
    """What an attack finds in an entry."""

    score: AttackScore
    scale: AttackScale
    family_limit: float | None
    """Limit over all attacks that are compared."""
    attacks: int
    """Number of these attacks and budgets."""


def receive_attack(database: Database, settings: Settings, token: Token, entry_id: str, body: UploadedBody) -> str:
    """Check and store the evidence of an attack on a listed entry; returns the id of the record.

    Raises:
        Problem: 404, the entry is not listed; 422, the evidence is not valid for it, with every failed check; 403 or
            429, the token has no space or no attempts left.
    """
    folder = body.path.with_suffix(".attack")
    try:
        with database.read_session() as session:
            entry = session.get(Entry, entry_id) if "\0" not in entry_id else None
            if entry is None or entry.state not in states.PUBLIC_STATES:
                raise Problem(404, "There is no listed submission with that id.")
            board = session.get_one(Board, entry.board_id)
            same = select(KnownAttack.id).where(
                KnownAttack.entry_id == entry_id, KnownAttack.body_sha256 == body.sha256
            )
            if (earlier := session.scalar(same.limit(1))) is not None:
                return earlier
            _check_attempts(session, settings, token)
            receive.check_space(session, settings, token, body.size)
            session.expunge_all()
        bundle = reference.load_bundle(settings, board)
        limit = len(POPULATIONS) * (1 + bundle.card.draws * bundle.card.seeds)
        errors = unpack_files(body, folder, _MEMBER, limit)
        populations, unread = _read(folder, settings.max_manifest_bytes)
        errors += unread or check_populations(populations, entry, bundle)
        if errors:
            raise Problem(422, f"This is no attack on {entry_id}; nothing was stored.", errors)
        return store_attack(database, settings, entry, populations, body.sha256, folder, token)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_attempts(session: Session, settings: Settings, token: Token) -> None:
    """Check that a token may post one more attack in 24 hours.

    Raises:
        Problem: 429, it may not.
    """
    quota = settings.daily_submissions if token.daily_submissions is None else token.daily_submissions
    since = utc_now() - timedelta(days=1)
    mine = KnownAttack.token_id.in_(tokens.owner_ids(token))
    used = session.scalar(select(func.count(KnownAttack.id)).where(mine, KnownAttack.received_at > since)) or 0
    if used >= quota:
        detail = f"This token has posted {used} of {quota} attacks in 24 hours; try again later."
        raise Problem(429, detail, headers={"Retry-After": "3600"})


def _read(folder: Path, limit: int) -> tuple[Populations, list[FieldError]]:
    """The populations of an unpacked body, and what is wrong with their manifests."""
    populations: dict[Population, AttackedPopulation] = {}
    errors = []
    for name in POPULATIONS:
        path, field = folder / name / MANIFEST, f"{name}/{MANIFEST}"
        if not path.is_file():
            errors.append(FieldError(field=field, message="is missing"))
        elif path.stat().st_size > limit:
            errors.append(FieldError(field=field, message=f"has more than {limit} bytes"))
        else:
            try:
                populations[name] = read_attacked(path.parent)
            except UsageError as error:
                errors.append(FieldError(field=field, message=str(error).replace(f"{folder}/", "")[:500]))
    return populations, errors


def check_populations(populations: Populations, entry: Entry, bundle: ReferenceBundle) -> list[FieldError]:
    """Everything that is wrong with four attacked populations as an attack on an entry of a board."""
    errors = []
    row = populations["row"].manifest
    if row.method_fingerprint != entry.fingerprint:
        errors.append(FieldError(field="row/attack.json", message="is of another method than this entry"))
    for name, one in populations.items():
        manifest = one.manifest
        errors += [
            FieldError(field=f"{name}/{error.field}"[:200], message=error.message)
            for error in text_errors(manifest.model_dump(mode="json"))
        ]
        if manifest.population != name or manifest.status != "ok":
            what = f"is of {manifest.population}" if manifest.population != name else "has no answers"
            errors.append(FieldError(field=f"{name}/attack.json", message=what))
        if (manifest.attack, manifest.shots) != (row.attack, row.shots):
            message = "has another attack, budget or examples than row: all models are attacked alike"
            errors.append(FieldError(field=f"{name}/attack.json", message=message))
        found = {path.name for path in one.folder.glob("*.npz")}
        if found != {record.file for record in manifest.models}:
            errors.append(FieldError(field=name, message="does not have exactly the files that its manifest names"))
        else:
            headers = check_files(one.folder, manifest.models)
            errors += [FieldError(field=f"{name}/{error.field}", message=error.message) for error in headers]
    if errors:
        return errors
    for name, one in populations.items():
        errors += [FieldError(field=name, message=problem) for problem in check_attacked(one, bundle)]
    originals = populations["originals"].manifest.models
    if any(record.model != bundle.card.originals[record.seed] for record in originals):
        errors.append(FieldError(field="originals", message="are not this board's originals, by the hash of weights"))
    answers = [logits_digest(record) for name in REFERENCE_POPULATIONS for record in populations[name].manifest.models]
    if len(set(answers)) < len(answers):
        errors.append(FieldError(field="references", message="has answers of another population, bit by bit"))
    return errors


def store_attack(
    database: Database,
    settings: Settings,
    entry: Entry,
    populations: Populations,
    sha256: str,
    folder: Path,
    token: Token | None,
    *,
    author: str = "",
) -> str:
    """Move checked evidence to its final folder, and have it scored; returns the id of the record.

    Args:
        database: The server's database.
        settings: Folders of the server.
        entry: The entry.
        populations: Its populations.
        sha256: Hash of the body.
        folder: The unpacked evidence, which is moved.
        token: Token of the author; None for the board's runner.
        author: Name of the runner.
    """
    manifest = populations["row"].manifest
    record = KnownAttack(
        id=states.new_id(),
        entry_id=entry.id,
        token_id=token.id if token else None,
        author=token.submitter if token else author,
        received_at=utc_now(),
        state="received",
        runner=token is None,
        label=manifest.attack.label,
        flops=manifest.flops,
        body_sha256=sha256,
    )
    record_id, target = record.id, settings.evidence / record.id
    target.parent.mkdir(parents=True, exist_ok=True)
    sync_folder(folder)
    folder.rename(target)
    sync(target.parent)
    with database.write_session() as session:
        session.add(record)
        session.flush()
        queue.enqueue(session, "attack", record_id)
    return record_id


def repeated_on(session: Session, board_id: int) -> Sequence[KnownAttack]:
    """The records of the board's runner, the last one of each entry and attack, oldest first."""
    query = (
        select(KnownAttack)
        .join(Entry, Entry.id == KnownAttack.entry_id)
        .where(Entry.board_id == board_id, Entry.state != "purged", KnownAttack.runner, KnownAttack.state != "failed")
        .order_by(KnownAttack.received_at, KnownAttack.id)
    )
    return list({(one.entry_id, one.label): one for one in session.scalars(query)}.values())


def write_result(session: Session, record_id: str, found: ScoredAttack) -> None:
    """Write what an attack finds. Only the runner's records set the flag of their entry; no distance changes."""
    record = session.get(KnownAttack, record_id)
    if record is None:
        return  # its entry was purged meanwhile
    record.state = "repeated" if record.runner else "claimed"
    record.z, record.outside, record.recoverable = found.score.z, found.score.outside, found.score.recoverable
    record.card = {
        "score": found.score.model_dump(mode="json"),
        "scale": found.scale.model_dump(mode="json"),
        "family_limit": found.family_limit,
        "attacks": found.attacks,
    }
    session.flush()
    entry = session.get_one(Entry, record.entry_id)
    if record.runner:
        mark(session, entry)
    states.bump_revision(session, entry.board_id)


def mark(session: Session, entry: Entry) -> None:
    """Set the flag and the verdict of an entry by its scorecard and by what the runner's attacks found."""
    from forgetbench.scoring.verdicts import RECOVERABLE, with_recoverable  # with scipy, which the web process lacks

    score = session.get(Score, entry.id)
    if score is None or entry.flags is None:
        return
    card = Scorecard.model_validate_json(json.dumps(score.card))  # by JSON's own rules: lists as tuples
    found = select(KnownAttack.id).where(KnownAttack.entry_id == entry.id, KnownAttack.state == "repeated")
    recoverable = session.scalar(found.where(KnownAttack.recoverable.is_(True)).limit(1)) is not None
    if recoverable:
        card = with_recoverable(card)
    if (RECOVERABLE in entry.flags) != (RECOVERABLE in card.flags):
        entry.flags = sorted({*entry.flags} ^ {RECOVERABLE})
    entry.verdict = card.verdict


def retry_attack(session: Session, record_id: str) -> None:
    """Enqueue an attack that could not be scored again."""
    record = session.get(KnownAttack, record_id)
    if record is not None:
        record.state, record.note = "received", None
        queue.enqueue(session, "attack", record_id)


def mark_failed(session: Session, record_id: str, reason: str) -> None:
    """Record that an attack could not be scored."""
    record = session.get(KnownAttack, record_id)
    if record is not None:
        record.state, record.note = "failed", reason[:1000]
        states.bump_revision(session, session.get_one(Entry, record.entry_id).board_id)


def evidence_of(settings: Settings, record: KnownAttack) -> Populations:
    """The evidence of a record."""
    return {name: read_attacked(settings.evidence / record.id / name) for name in POPULATIONS}
