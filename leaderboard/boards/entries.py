"""One entry with everything that belongs to it, and who may see it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from forgetbench._text import latex
from forgetbench.evidence.run import Manifest
from forgetbench.leaderboard.boards.queries import Cell, Row, columns_of
from forgetbench.leaderboard.db.models import (
    Board,
    Entry,
    Event,
    EvidenceFile,
    MetricValue,
    Placing,
    Score,
    ScoringProcess,
    Token,
    Verification,
)
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.errors import Problem
from forgetbench.methods import methods


@dataclass(frozen=True)
class EntryDetail:
    """An entry with its board, scorecard, files and history."""

    entry: Entry
    board: Board
    score: Score | None
    placing: Placing | None
    files: list[EvidenceFile]
    events: list[Event]
    verifications: list[Verification]
    cells: dict[str, Cell]
    ranked: int
    """Ranked rows of the board."""
    code: str | None
    """Hash of the scoring code of this server's newest worker."""

    @property
    def outdated(self) -> bool:
        """Whether other code scored it than scores here now."""
        return self.score is not None and self.code not in {None, self.score.software.get("code")}

    @property
    def manifest(self) -> Manifest:
        """Its manifest as a record."""
        return Manifest.model_validate(self.entry.manifest)

    @property
    def row(self) -> Row:
        """It as a row of its board."""
        return Row(self.entry, self.cells, self.placing)


def version(whole: EntryDetail) -> tuple[object, ...]:
    """All that changes what is shown of an entry: its board's revision, its own history, and what others found."""
    verdicts = [(record.id, record.verdict) for record in whole.verifications]
    return whole.entry.id, whole.board.id, whole.board.revision, whole.outdated, len(whole.events), verdicts


def shown(whole: EntryDetail, base: str) -> dict[str, Any]:
    """What the page of an entry is made of.

    Args:
        whole: The entry.
        base: Address of the server.
    """
    manifest = whole.manifest
    return {
        "whole": whole,
        "entry": whole.entry,
        "board": whole.board,
        "manifest": manifest,
        "columns": columns_of(whole.board),
        "card": whole.score.card if whole.score else None,
        "bibtex": bibtex(whole, base),
        "again": commands(whole.entry, whole.board, manifest, base),
        "base": base,
    }


def visible(entry: Entry, token: Token | None) -> bool:
    """Whether a reader may see an entry: everybody what is listed, its submitter and moderators the rest."""
    if entry.state in PUBLIC_STATES:
        return True
    return token is not None and (token.id == entry.token_id or "moderate" in token.scopes)


def find(session: Session, identity: str, token: Token | None = None) -> EntryDetail:
    """An entry by its id.

    Raises:
        Problem: 404, there is none, or none that this reader may see; 410, it was withdrawn.
    """
    entry = session.get(Entry, identity) if len(identity) <= 32 and "\0" not in identity else None
    if entry is not None and not visible(entry, token):
        if entry.state == "withdrawn" and entry.listed_at is not None:
            raise Problem(410, f"This entry was withdrawn: {entry.note or 'no reason given'}.")
        entry = None
    if entry is None:
        raise Problem(404, "There is no entry of that id, or it is not listed.")
    events = session.scalars(select(Event).where(Event.entry_id == identity).order_by(Event.id)).all()
    files = session.scalars(select(EvidenceFile).where(EvidenceFile.entry_id == identity)).all()
    verifications = session.scalars(
        select(Verification).where(Verification.entry_id == identity).order_by(Verification.received_at)
    ).all()
    values = session.scalars(select(MetricValue).where(MetricValue.entry_id == identity)).all()
    ranked = select(func.count()).select_from(Placing).where(Placing.board_id == entry.board_id, Placing.scope == "all")
    return EntryDetail(
        entry=entry,
        board=entry.board,
        score=session.get(Score, identity),
        placing=session.get(Placing, (identity, "all")),
        files=sorted(
            files, key=lambda file: ("/" in file.name, [int(number) for number in re.findall(r"\d+", file.name)])
        ),
        events=list(events),
        verifications=list(verifications),
        cells={item.metric: Cell(item.value, item.low, item.high, item.z, item.note) for item in values},
        ranked=session.scalar(ranked) or 0,
        code=session.scalar(select(ScoringProcess.code).order_by(ScoringProcess.seen_at.desc()).limit(1)),
    )


def bibtex(whole: EntryDetail, base: str) -> str:
    """The entry as a BibTeX record."""
    entry, board = whole.entry, whole.board
    key = re.sub(r"[^a-z0-9]+", "-", f"forgetbench-{entry.method}-{entry.id[:6]}".lower()).strip("-")
    fields = {
        "title": f"{{{latex(entry.label)} on {latex(board.task)}}}",
        "author": f"{{{latex(entry.submitter)}}}",
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
    """Command lines, one after the other; each word is quoted.

    A method that has a name here is run by it; anything else by ``verify``, which runs a stranger's source only when
    it is told to.
    """
    if entry.tier == "reference":
        words = ["forgetbench", "pack", "build", board.task, "--seeds", str(board.seeds), *_draws(board)]
        return [shlex.join(words)]
    row = _registered(manifest)
    if row is None:
        return [shlex.join(["forgetbench", "verify", entry.id, "--server", server])]
    pack = ["--pack", board.pack_sha256[:12]] if board.superseded_at else []
    counts = ["--seeds", str(board.seeds), *_draws(board)]
    return [
        shlex.join(["forgetbench", "pack", "pull", board.task, "--server", server, *pack]),
        shlex.join(["forgetbench", "run", board.task, *counts, "--skip-oracles", "--method", row]),
    ]


def _draws(board: Board) -> list[str]:
    return ["--draws", str(board.draws)] if board.draws > 1 else []


def _registered(manifest: Manifest) -> str | None:
    """The method as ``run --method`` takes it; None where it has no name here, or a value has no place in a word."""
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
