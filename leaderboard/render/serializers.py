"""Rows of the database as documents of the API."""

from __future__ import annotations

from forgetbench.leaderboard.boards.entries import EntryDetail
from forgetbench.leaderboard.boards.queries import Page, Row, summary_of
from forgetbench.leaderboard.db.models import Board, Entry, Event, Placing
from forgetbench.leaderboard.db.runs import RunState
from forgetbench.leaderboard.render.schemas import (
    AttackDocument,
    BoardBrief,
    BoardDocument,
    ColumnDocument,
    EntryDocument,
    EventDocument,
    EvidenceFileDocument,
    RankDocument,
    RowDocument,
    RunDocument,
    SubmissionDocument,
    VerificationDocument,
)


def row(item: Row) -> RowDocument:
    """An entry as a row of its board."""
    entry = item.entry
    return RowDocument(
        id=entry.id,
        label=entry.label,
        method=entry.method,
        family=entry.family,
        submitter=entry.submitter,
        tier=entry.tier,
        baseline=entry.baseline,
        reproductions=entry.reproductions,
        state=entry.state,
        status=entry.status,
        reasons=entry.reasons or [],
        flags=entry.flags or [],
        rank=item.placing,  # type: ignore[arg-type]  # documents are read from attributes
        distance=entry.distance,
        distance_low=entry.distance_low,
        distance_high=entry.distance_high,
        within_band=entry.within_band,
        verdict=entry.verdict,
        forgotten=entry.forgotten,
        forgotten_low=entry.forgotten_low,
        forgotten_high=entry.forgotten_high,
        harm=entry.harm,
        harm_low=entry.harm_low,
        harm_high=entry.harm_high,
        cost=entry.cost,
        cost_class=entry.cost_class,
        needs_retain=entry.needs_retain,
        received_at=entry.received_at,
        values=item.cells,  # type: ignore[arg-type]
    )


def _rank(placing: Placing | None) -> RankDocument | None:
    return None if placing is None else RankDocument.model_validate(placing)


def board_brief(board: Board, entries: int) -> BoardBrief:
    """A board in a list, with its number of entries."""
    summary = board.summary or {}
    return BoardBrief(
        task=board.task,
        title=board.title,
        track=board.track,
        scenario=board.scenario,
        protocol=board.protocol,
        pack=board.pack_sha256,
        seeds=board.seeds,
        draws=board.draws,
        ranked=bool(summary) and not summary.get("informational"),
        informational=summary.get("informational", ""),
        entries=entries,
        superseded=board.superseded_at is not None,
        sealed=board.sealed,
        retired=board.retired,
    )


def board(page: Page) -> BoardDocument:
    """One page of a view of a board."""
    board = page.board
    summary = board.summary or {}
    return BoardDocument(
        task=board.task,
        title=board.title,
        track=board.track,
        scenario=board.scenario,
        protocol=board.protocol,
        pack=board.pack_sha256,
        task_key=board.task_key,
        seeds=board.seeds,
        draws=board.draws,
        revision=board.revision,
        ranking=summary.get("ranking", []),
        family_limit=summary.get("family_limit"),
        claimed_limit=summary_of(board, "claimed").get("family_limit"),
        informational=summary.get("informational", ""),
        sealed=board.sealed,
        round=board.round,
        salt=board.salt,
        tiers=page.view.tier,
        columns=[ColumnDocument.model_validate(column) for column in page.columns],
        references=[row(item) for item in page.references],
        rows=[row(item) for item in page.rows],
        total=page.total,
        next=page.next_cursor,
    )


def _history(events: list[Event]) -> list[EventDocument]:
    return [EventDocument.model_validate(event) for event in events]


def entry(detail: EntryDetail) -> EntryDocument:
    """An entry with scorecard, manifest, files and history.

    Accuracy by class on sealed draws would tell which classes they forget: it is shown once the salt is published.
    """
    score, card = detail.score, detail.card
    if card is not None and score is not None and score.public and detail.board.salt is None:
        card = card | {"class_accuracy": {}}
    return EntryDocument(
        row=row(detail.row),
        task=detail.board.task,
        pack=detail.board.pack_sha256,
        scorecard=card,
        public_scorecard=score.public if score else None,
        software=score.software if score else None,
        outdated=detail.outdated,
        manifest=detail.entry.manifest,
        manifest_sha256=detail.entry.manifest_sha256,
        files=[EvidenceFileDocument.model_validate(file) for file in detail.files],
        verifications=[VerificationDocument.model_validate(item) for item in detail.verifications],
        attacks=[AttackDocument.model_validate(record) for record in detail.attacks],
        history=_history(detail.events),
    )


def submission(
    detail: EntryDetail, url: str, warning: str, run: RunState | None = None, runner_warning: str = ""
) -> SubmissionDocument:
    """State, rank and history of a submission.

    Args:
        detail: The entry.
        url: Address of its page.
        warning: Why no worker scores at present, or "".
        run: The run of its method by the board's runner, if any.
        runner_warning: Why no runner works at present, or "".
    """
    entry: Entry = detail.entry
    shown = not detail.withheld
    return SubmissionDocument(
        id=entry.id,
        task=entry.board.task,
        label=entry.label,
        state=entry.state,
        tier=entry.tier,
        note=entry.note,
        status=entry.status if shown else None,
        reasons=(entry.reasons or []) if shown else [],
        flags=(entry.flags or []) if shown else [],
        rank=_rank(detail.placing),
        distance=entry.distance if shown else None,
        distance_low=entry.distance_low if shown else None,
        distance_high=entry.distance_high if shown else None,
        within_band=entry.within_band if shown else None,
        verdict=entry.verdict if shown else None,
        ranked=detail.ranked,
        url=url,
        waits=warning if entry.state in {"received", "scoring"} and (run is None or run.state == "done") else "",
        run=_run(run, entry.cost_class, runner_warning) if run else None,
        history=_history(detail.events),
    )


def _run(run: RunState, cost_class: str | None, warning: str) -> RunDocument:
    waits = warning if run.state in {"waiting", "running"} else ""
    return RunDocument(**run._asdict(), cost_class=cost_class, waits=waits)
