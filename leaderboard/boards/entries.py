"""One entry with all that its page shows, and who may see it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from forgetbench.evidence.run import Manifest
from forgetbench.leaderboard.boards.display import TaskDisplay
from forgetbench.leaderboard.boards.queries import Cell, Row, columns_of, summary_of
from forgetbench.leaderboard.db.models import (
    Board,
    Entry,
    Event,
    EvidenceFile,
    KnownAttack,
    MetricValue,
    Placing,
    Score,
    ScoringProcess,
    Token,
    Verification,
    ranking_scope,
)
from forgetbench.leaderboard.db.states import PUBLIC_STATES, is_hidden
from forgetbench.leaderboard.errors import Problem
from forgetbench.methods import methods
from forgetbench.reporting.table_writer import escape_latex
from forgetbench.scoring.scorecards import Recovery
from forgetbench.store import JsonObject

_SCORED_EARLIER = "it was scored by an earlier version"


@dataclass(frozen=True)
class EntryDetail:
    """Entry with its board, scorecard, files and history."""

    entry: Entry
    board: Board
    score: Score | None
    placing: Placing | None
    files: list[EvidenceFile]
    events: list[Event]
    verifications: list[Verification]
    cells: dict[str, Cell]
    ranked: int
    """Number of rows in the ranking of its tiers."""
    baseline_classes: dict[str, JsonObject]
    """Retrain and No unlearning -> subset -> class -> accuracy, on public draws."""
    code: str | None
    """Hash of the scoring code of this server's newest worker; None before any worker ran."""
    attacks: Sequence[KnownAttack] = ()
    """Attacks with their results, the worst first; those of the board's runner before claims."""
    withheld: bool = False
    """Whether this reader sees no numbers of it before the results of its round are revealed."""

    @property
    def card(self) -> JsonObject | None:
        """Its scorecard; None before it is scored."""
        return self.score.card if self.score else None

    @property
    def recalibration(self) -> Recovery:
        """What recalibration brings back, or why it was not tested."""
        stored = (self.card or {}).get("recalibration")
        return Recovery(reason=_SCORED_EARLIER) if stored is None else Recovery.model_validate(stored)

    @property
    def public_card(self) -> JsonObject | None:
        """Its scorecard on the board's public draws, on which anyone can run it again; None before it is scored."""
        return self.score.public or self.score.card if self.score else None

    @property
    def outdated(self) -> bool:
        """Whether its scores come from other scoring code than this server's present code."""
        return self.score is not None and self.code not in {None, self.score.software.get("code")}

    @property
    def manifest(self) -> Manifest:
        """Its manifest, parsed."""
        return Manifest.model_validate(self.entry.manifest)

    @property
    def row(self) -> Row:
        """The entry as a row of its board."""
        return Row(self.entry, self.cells, self.placing)


def entry_version(detail: EntryDetail) -> tuple[object, ...]:
    """All that changes the page of an entry: its board's revision, its history, and its verifications."""
    outcomes = [(record.id, record.outcome) for record in detail.verifications]
    attacks = [(record.id, record.state, record.z) for record in detail.attacks]
    return (
        detail.entry.id,
        detail.board.id,
        detail.board.revision,
        detail.outdated,
        len(detail.events),
        outcomes,
        attacks,
    )


def template_context(detail: EntryDetail, base: str, display: TaskDisplay | None = None) -> dict[str, object]:
    """Variables of the template of an entry's page.

    Args:
        detail: The entry.
        base: Address of the server.
        display: Pictures and classes of its board's public draws; None to show numbers only.
    """
    manifest = detail.manifest
    columns = columns_of(detail.board, detail.entry.tier)
    return {
        "detail": detail,
        "entry": detail.entry,
        "board": detail.board,
        "manifest": manifest,
        "columns": columns,
        "titles": {column.name: column.title for column in columns},
        "summary": summary_of(detail.board, detail.entry.tier),
        "card": detail.card,
        "public_card": detail.score.public if detail.score else None,
        "public_columns": columns_of(detail.board, "claimed"),
        "bibtex": bibtex(detail, base),
        "commands": commands(detail.entry, detail.board, manifest, base),
        "base": base,
        "leaks": detail.score.leaks if detail.score else None,
        "display": display,
    }


def can_view(entry: Entry, token: Token | None) -> bool:
    """Whether a reader may see an entry: listed entries are public, others for their submitter and moderators."""
    if entry.state in PUBLIC_STATES:
        return True
    return token is not None and (is_owner(entry, token) or "moderate" in token.scopes)


def is_owner(entry: Entry, token: Token) -> bool:
    """Whether an entry was submitted with a token, or with one of its team."""
    if token.id == entry.token_id or token.team is None:
        return token.id == entry.token_id
    return entry.token is not None and entry.token.team == token.team


def get_entry(session: Session, entry_id: str, token: Token | None = None) -> EntryDetail:
    """An entry by its id.

    Raises:
        Problem: 404, there is no such entry, or this reader may not see it; 410, it was withdrawn.
    """
    entry = session.get(Entry, entry_id) if len(entry_id) <= 32 and "\0" not in entry_id else None
    if entry is not None and entry.state == "purged":
        raise Problem(410, f"This entry was erased: {entry.note}.")
    if entry is not None and not can_view(entry, token):
        if entry.state == "withdrawn" and entry.listed_at is not None:
            raise Problem(410, f"This entry was withdrawn: {entry.note or 'no reason given'}.")
        entry = None
    if entry is None:
        raise Problem(404, "There is no entry with that id, or it is not listed.")
    events = session.scalars(select(Event).where(Event.entry_id == entry_id).order_by(Event.id)).all()
    files = session.scalars(select(EvidenceFile).where(EvidenceFile.entry_id == entry_id)).all()
    verifications = session.scalars(
        select(Verification).where(Verification.entry_id == entry_id).order_by(Verification.received_at)
    ).all()
    values = session.scalars(select(MetricValue).where(MetricValue.entry_id == entry_id)).all()
    scope = ranking_scope(entry.tier, changes_training=entry.changes_training)
    ranked = select(func.count()).select_from(Placing).where(Placing.board_id == entry.board_id, Placing.scope == scope)
    return EntryDetail(
        entry=entry,
        board=entry.board,
        score=session.get(Score, entry_id),
        placing=session.get(Placing, (entry_id, scope)) if scope else None,
        files=sorted(
            files, key=lambda file: ("/" in file.name, [int(number) for number in re.findall(r"\d+", file.name)])
        ),
        events=list(events),
        verifications=list(verifications),
        cells={item.metric: Cell(item.value, item.low, item.high, item.z, item.note) for item in values},
        ranked=session.scalar(ranked) or 0,
        attacks=_attacks(session, entry_id),
        withheld=_is_withheld(entry, token),
        baseline_classes=_baseline_classes(session, entry.board_id),
        code=session.scalar(select(ScoringProcess.code).order_by(ScoringProcess.seen_at.desc()).limit(1)),
    )


def _attacks(session: Session, entry_id: str) -> list[KnownAttack]:
    """The attacks on an entry; an attack that the runner has repeated is shown by the runner's last record."""
    query = select(KnownAttack).where(KnownAttack.entry_id == entry_id).order_by(KnownAttack.received_at)
    records = session.scalars(query).all()
    repeated = {record.label: record for record in records if record.state == "repeated"}
    shown = [record for record in records if repeated.get(record.label, record) is record]
    return sorted(shown, key=lambda one: (one.state != "repeated", one.z is None, -(one.z or 0.0)))


def _is_withheld(entry: Entry, token: Token | None) -> bool:
    hidden = entry.state not in PUBLIC_STATES and is_hidden(entry.board, entry) and entry.board.visibility == "accepted"
    return hidden and not (token is not None and "moderate" in token.scopes)


def _baseline_classes(session: Session, board_id: int) -> dict[str, JsonObject]:
    """Accuracy by class of a board's reference rows, Retrain first."""
    query = (
        select(Entry.label, Score.card["class_accuracy"], Score.public["class_accuracy"])
        .join(Score, Score.entry_id == Entry.id)
        .where(Entry.board_id == board_id, Entry.baseline)
        .order_by(Entry.method.desc(), Entry.label)
    )
    return {label: public or whole or {} for label, whole, public in session.execute(query)}


def bibtex(detail: EntryDetail, base: str) -> str:
    """The entry as a BibTeX record."""
    entry, board = detail.entry, detail.board
    key = re.sub(r"[^a-z0-9]+", "-", f"forgetbench-{entry.method}-{entry.id[:6]}".lower()).strip("-")
    fields = {
        "title": f"{{{escape_latex(entry.label)} on {escape_latex(board.task)}}}",
        "author": f"{{{escape_latex(entry.submitter)}}}",
        "howpublished": f"ForgetBench leaderboard, protocol {board.protocol}",
        "year": str(entry.received_at.year),
        "note": f"Entry {entry.id}, pack {board.pack_sha256[:12]}",
        "url": f"{base}/entries/{entry.id}",
    }
    lines = ",\n".join(f"  {name:<12} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}\n}}"


_NAME = re.compile(r"[A-Za-z_]\w*")
_WORD = re.compile(r"[\w.+-]+", re.ASCII)


def commands(entry: Entry, board: Board, manifest: Manifest, server: str) -> list[str]:
    """Command lines that run an entry again, in order; each word is quoted for a shell.

    They repeat what was scored on public draws, and that on sealed draws once the salt is published. A registered
    method is run by its name; anything else by ``verify``, which runs submitted source only with explicit permission.
    """
    sealed = board.sealed and entry.tier != "claimed"
    counts = ["--seeds", str(board.seeds), *_draws(board)]
    label = None if entry.baseline else method_label(manifest)
    with_salt = []
    if sealed and board.salt and (entry.baseline or label):
        chosen = ["--method", label or "finetune"]
        with_salt = [shlex.join(["forgetbench", "run", board.task, *counts, "--salt", board.salt, *chosen])]
    if entry.baseline:
        return with_salt if sealed else [shlex.join(["forgetbench", "pack", "build", board.task, *counts])]
    if label is None:
        return [shlex.join(["forgetbench", "verify", entry.id, "--server", server])]
    pack = ["--pack", board.pack_sha256[:12]] if board.superseded_at else []
    return [
        shlex.join(["forgetbench", "pack", "pull", board.task, "--server", server, *pack]),
        shlex.join(["forgetbench", "run", board.task, *counts, "--skip-oracles", "--method", label]),
        *with_salt,
    ]


def _draws(board: Board) -> list[str]:
    return ["--draws", str(board.draws)] if board.draws > 1 else []


def method_label(manifest: Manifest) -> str | None:
    """The method as ``run --method`` takes it; None if it is not registered, or a value does not fit into a label."""
    method = manifest.method
    if method.source is not None or method.observed or method.name not in methods:
        return None
    values = []
    for name, value in method.parameters.items():
        text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
        if not _NAME.fullmatch(name) or not isinstance(value, None | bool | int | float | str):
            return None
        if not _WORD.fullmatch(text):
            return None
        values.append(f"{name}={text}")
    return method.name + (":" + ",".join(values) if values else "")
