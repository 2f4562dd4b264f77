"""One entry with everything that belongs to it, and who may see it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from forgetbench.evidence import Manifest
from forgetbench.leaderboard import again
from forgetbench.leaderboard.boards import Cell, Row, columns_of
from forgetbench.leaderboard.citing import bibtex
from forgetbench.leaderboard.models import (
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
from forgetbench.leaderboard.problems import Problem
from forgetbench.leaderboard.states import PUBLIC


@dataclass(frozen=True)
class Whole:
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


def version(whole: Whole) -> tuple[object, ...]:
    """All that changes what is shown of an entry: its board's revision, its own history, and what others found."""
    verdicts = [(record.id, record.verdict) for record in whole.verifications]
    return whole.entry.id, whole.board.id, whole.board.revision, whole.outdated, len(whole.events), verdicts


def shown(whole: Whole, base: str) -> dict[str, Any]:
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
        "again": again.commands(whole.entry, whole.board, manifest, base),
        "base": base,
    }


def visible(entry: Entry, token: Token | None) -> bool:
    """Whether a reader may see an entry: everybody what is listed, its submitter and moderators the rest."""
    if entry.state in PUBLIC:
        return True
    return token is not None and (token.id == entry.token_id or "moderate" in token.scopes)


def find(session: Session, identity: str, token: Token | None = None) -> Whole:
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
    return Whole(
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
