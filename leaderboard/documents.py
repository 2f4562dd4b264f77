"""The JSON shapes of the API, and how rows of the database become them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from forgetbench.leaderboard.boards import Cell, Column, Page, Row
from forgetbench.leaderboard.entries import Whole
from forgetbench.leaderboard.models import Board, Entry, Event, Placing, Verification


class Document(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid")


class BandDocument(Document):
    """Where the oracles themselves fall."""

    mean: float
    low: float
    high: float
    sd: float


class ColumnDocument(Document):
    """A metric on a board."""

    name: str
    title: str
    unit: str
    direction: str
    meaning: str
    role: str | None
    ranks: bool
    why: str
    band: BandDocument | None


class RankDocument(Document):
    """A place, and the places that its tie group spans."""

    position: int
    low: int
    high: int
    tie_group: int


class ValueDocument(Document):
    """A value with its 95 % interval, and z: its distance from the band's mean in oracle standard deviations."""

    value: float | None
    low: float | None
    high: float | None
    z: float | None
    note: str


class RowDocument(Document):
    """One entry on a board."""

    id: str
    label: str
    method: str
    family: str
    submitter: str
    tier: str
    state: str
    status: str | None
    reasons: list[str]
    flags: list[str]
    rank: RankDocument | None
    distance: float | None
    distance_low: float | None
    distance_high: float | None
    inside: bool | None
    cost: float | None
    needs_retain: bool
    received_at: datetime
    values: dict[str, ValueDocument]


class BoardBrief(Document):
    """A board in a list."""

    task: str
    title: str
    track: str
    scenario: str
    protocol: int
    pack: str
    seeds: int
    draws: int
    ranked: bool
    informational: str
    entries: int
    superseded: bool


class BoardDocument(Document):
    """A board in one view: what its page shows."""

    task: str
    title: str
    track: str
    scenario: str
    protocol: int
    pack: str
    task_key: str
    seeds: int
    draws: int
    revision: int
    ranking: list[str]
    family_limit: float | None
    informational: str
    tiers: str
    columns: list[ColumnDocument]
    references: list[RowDocument]
    rows: list[RowDocument]
    total: int
    next: str | None


class EventDocument(Document):
    """One change of an entry's state."""

    at: datetime
    actor: str
    before: str | None
    after: str
    reason: str


class SubmissionDocument(Document):
    """What became of a submission; ``waits`` says why it is not scored, where no scoring process runs."""

    id: str
    task: str
    label: str
    state: str
    tier: str
    note: str
    status: str | None
    reasons: list[str]
    flags: list[str]
    rank: RankDocument | None
    distance: float | None
    distance_low: float | None
    distance_high: float | None
    inside: bool | None
    ranked: int
    url: str
    waits: str
    history: list[EventDocument]


class DryRunDocument(Document):
    """The answer to a dry run: the server would take it."""

    task: str
    accepted: bool
    detail: str


class EntryDocument(Document):
    """An entry, whole; ``outdated``: other code scored it than this server's, `software` says which."""

    row: RowDocument
    task: str
    pack: str
    scorecard: dict[str, Any] | None
    software: dict[str, Any] | None
    outdated: bool
    manifest: dict[str, Any]
    manifest_sha256: str
    files: list[dict[str, Any]]
    verifications: list[VerificationDocument]
    history: list[EventDocument]


class VerificationDocument(Document):
    """A second record of an entry; ``identical``: it holds the very answers of the first, to the bit."""

    id: str
    verifier: str
    received_at: datetime
    verdict: str
    note: str | None
    identical: bool
    comparison: dict[str, Any] | None


class VerificationReceived(Document):
    """A second record that is being scored."""

    id: str
    entry: str


class MethodDocument(Document):
    """A method over all boards."""

    name: str
    family: str
    entries: int
    boards: int
    newest: datetime | None


class MetricDocument(Document):
    """A metric: what it is, how to read it, what it misses."""

    name: str
    title: str
    symbol: str
    group: str
    unit: str
    direction: str
    requires: list[str]
    meaning: str
    misses: str
    misuse: str
    formula: str
    example: str
    source: str


class Health(Document):
    """Whether the server runs, and whether anything scores: ok, or since when nothing does and how much waits."""

    status: str
    scoring: str | None = None


def column(item: Column) -> dict[str, Any]:
    """A ``ColumnDocument``."""
    return {
        "name": item.name,
        "title": item.title,
        "unit": item.unit,
        "direction": item.direction,
        "meaning": item.meaning,
        "role": item.role,
        "ranks": item.ranks,
        "why": item.why,
        "band": item.band._asdict() if item.band else None,
    }


def rank(placing: Placing | None) -> dict[str, Any] | None:
    """A ``RankDocument``."""
    if placing is None:
        return None
    return {
        "position": placing.position,
        "low": placing.low,
        "high": placing.high,
        "tie_group": placing.tie_group,
    }


def value(cell: Cell) -> dict[str, Any]:
    """A ``ValueDocument``."""
    return {"value": cell.value, "low": cell.low, "high": cell.high, "z": cell.z, "note": cell.note}


def row(item: Row) -> dict[str, Any]:
    """A ``RowDocument``."""
    entry = item.entry
    return {
        "id": entry.id,
        "label": entry.label,
        "method": entry.method,
        "family": entry.family,
        "submitter": entry.submitter,
        "tier": entry.tier,
        "state": entry.state,
        "status": entry.status,
        "reasons": entry.reasons or [],
        "flags": entry.flags or [],
        "rank": rank(item.placing),
        "distance": entry.distance,
        "distance_low": entry.distance_low,
        "distance_high": entry.distance_high,
        "inside": entry.inside,
        "cost": entry.cost,
        "needs_retain": entry.needs_retain,
        "received_at": entry.received_at.isoformat(),
        "values": {name: value(cell) for name, cell in item.cells.items()},
    }


def board_brief(item: Board, entries: int) -> dict[str, Any]:
    """A ``BoardBrief``."""
    summary = item.summary or {}
    return {
        "task": item.task,
        "title": item.title,
        "track": item.track,
        "scenario": item.scenario,
        "protocol": item.protocol,
        "pack": item.pack_sha256,
        "seeds": item.seeds,
        "draws": item.draws,
        "ranked": bool(summary) and not summary.get("informational"),
        "informational": summary.get("informational", ""),
        "entries": entries,
        "superseded": item.superseded_at is not None,
    }


def board(page: Page, following: str | None) -> dict[str, Any]:
    """A ``BoardDocument``."""
    item = page.board
    summary = item.summary or {}
    return {
        "task": item.task,
        "title": item.title,
        "track": item.track,
        "scenario": item.scenario,
        "protocol": item.protocol,
        "pack": item.pack_sha256,
        "task_key": item.task_key,
        "seeds": item.seeds,
        "draws": item.draws,
        "revision": item.revision,
        "ranking": summary.get("ranking", []),
        "family_limit": summary.get("family_limit"),
        "informational": summary.get("informational", ""),
        "tiers": page.view.tier,
        "columns": [column(each) for each in page.columns],
        "references": [row(each) for each in page.references],
        "rows": [row(each) for each in page.rows],
        "total": page.total,
        "next": following,
    }


def history(events: list[Event]) -> list[dict[str, Any]]:
    """``EventDocument`` of each event."""
    return [
        {
            "at": event.at.isoformat(),
            "actor": event.actor,
            "before": event.before,
            "after": event.after,
            "reason": event.reason,
        }
        for event in events
    ]


def verification(item: Verification) -> dict[str, Any]:
    """A ``VerificationDocument``."""
    return {
        "id": item.id,
        "verifier": item.verifier,
        "received_at": item.received_at,
        "verdict": item.verdict,
        "note": item.note,
        "identical": item.identical,
        "comparison": item.comparison,
    }


def entry(whole: Whole) -> EntryDocument:
    """An entry, whole."""
    found, score = whole.entry, whole.score
    return EntryDocument(
        row=RowDocument(**row(whole.row)),
        task=whole.board.task,
        pack=whole.board.pack_sha256,
        scorecard=score.card if score else None,
        software=score.software if score else None,
        outdated=whole.outdated,
        manifest=found.manifest,
        manifest_sha256=found.manifest_sha256,
        files=[{"name": file.name, "sha256": file.sha256, "size": file.size} for file in whole.files],
        verifications=[VerificationDocument(**verification(item)) for item in whole.verifications],
        history=[EventDocument(**event) for event in history(whole.events)],
    )


def submission(
    entry: Entry, placing: Placing | None, ranked: int, events: list[Event], url: str, trouble: str
) -> dict[str, Any]:
    """A ``SubmissionDocument``."""
    return {
        "id": entry.id,
        "task": entry.board.task,
        "label": entry.label,
        "state": entry.state,
        "tier": entry.tier,
        "note": entry.note,
        "status": entry.status,
        "reasons": entry.reasons or [],
        "flags": entry.flags or [],
        "rank": rank(placing),
        "distance": entry.distance,
        "distance_low": entry.distance_low,
        "distance_high": entry.distance_high,
        "inside": entry.inside,
        "ranked": ranked,
        "url": url,
        "waits": trouble if entry.state in {"received", "scoring"} else "",
        "history": history(events),
    }
