"""Rows of the database as the documents that the API answers with."""

from __future__ import annotations

from typing import Any

from forgetbench.leaderboard.boards.entries import EntryDetail
from forgetbench.leaderboard.boards.queries import Cell, Column, Page, Row
from forgetbench.leaderboard.db.models import Board, Entry, Event, Placing, Verification
from forgetbench.leaderboard.render.schemas import EntryDocument, EventDocument, RowDocument, VerificationDocument


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


def entry(whole: EntryDetail) -> EntryDocument:
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
