"""Compute scorecards and rankings from evidence, and write them as rows.

The scores are those of ``forgetbench.scoring.scorer``, which also scores runs on a user's machine: the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from forgetbench.evidence.reference import read_pack
from forgetbench.evidence.run import Manifest, Run
from forgetbench.fingerprints import scoring_fingerprint
from forgetbench.leaderboard.boards import distributions, leaks
from forgetbench.leaderboard.boards.queries import outcome_of
from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.models import (
    RANKING_SCOPES,
    Board,
    Entry,
    MetricValue,
    PastPlacing,
    Placing,
    Score,
    ranking_scope,
    utc_now,
)
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import alarms, attacks, likeness, reference, seals
from forgetbench.leaderboard.submissions.alarms import EvidenceFindings
from forgetbench.metrics import Cost, metrics
from forgetbench.scoring.score import rank
from forgetbench.scoring.scorecards import Bands, Effect, Scorecard, Value
from forgetbench.scoring.scorer import Scorer
from forgetbench.scoring.vocabulary import PROTOCOL
from forgetbench.store import JsonObject
from forgetbench.tasks.seal import Draws

_ROLE_ORDER = ("efficacy", "harm", None)
_LIBRARIES = ("forgetbench", "numpy", "scipy", "scikit-learn")
_BUDGETS = (1, 5, 20, 100)
_OVER_BUDGET = 101
_BATCH = 500
"""Rows of one query of the history."""


class ScoringResult(NamedTuple):
    """Everything computed from the evidence of an entry."""

    card: Scorecard
    phi: list[float]
    """Histogram of phi on the forgotten examples, in the bins of the board."""
    findings: EvidenceFindings
    """What the evidence says of its origin."""
    public: Scorecard | None = None
    """The scorecard on public draws of an entry that is ranked on sealed draws."""
    leaks: JsonObject | None = None
    """The forgotten examples of public draws that leak most, and the people of the forget sets."""


class PlacingRow(TypedDict):
    """Columns of `db.models.Placing`."""

    entry_id: str
    scope: str
    board_id: int
    position: int
    low: int | None
    high: int | None


class Ranking(NamedTuple):
    """Ranking of a board."""

    placings: list[PlacingRow]
    unranked: dict[str, str]
    """Entry -> reason why it is not ranked."""
    summary: JsonObject | None
    """New value of `db.models.Board.summary`."""


@lru_cache(maxsize=1)
def software_versions() -> dict[str, str]:
    """Versions of the packages that compute scores, and the hash of the scoring code as ``code``."""
    return {**{name: version(name) for name in _LIBRARIES}, "code": scoring_fingerprint()}


def is_current(score: Score) -> bool:
    """Whether the present scoring code computed a score."""
    return bool(score.software.get("code") == software_versions()["code"])


@lru_cache(maxsize=8)
def get_scorer(bundle: Path) -> Scorer:
    """Scorer of a reference bundle; its bands are cached next to the bundle."""
    return Scorer(read_pack(bundle, verify=False), cache=bundle.parent)


@lru_cache(maxsize=32)
def phi_histograms(bundle: Path) -> JsonObject:
    """Bins of a board's histograms of phi, with the shares of oracles and originals."""
    return distributions.of_board(get_scorer(bundle))


@lru_cache(maxsize=8)
def board_models(bundle: Path) -> list[likeness.BoardModels]:
    """The originals and oracles of a bundle, as claims are compared with them."""
    return likeness.board_models(get_scorer(bundle))


def is_copy(bundle: Path, board: Board, run: Run, sketch: bytes | None) -> bool:
    """Whether nearly all of what a run's models changed is what those of an entry with this sketch changed."""
    if sketch is None:
        return False
    boards = board_models(bundle)
    own = likeness.resemblance(get_scorer(bundle), boards, run.population(board.draws, board.seeds)).sketch
    first = np.frombuffer(sketch, "<f8").reshape(own.shape)
    mixture = likeness.find_mixture(boards, own, {"first": first})
    return mixture is not None and mixture.parts == ("first",)


def score_entry(settings: Settings, board: Board, entry: Entry, *, verified: bool | None = None) -> ScoringResult:
    """Compute the scorecard of an entry, its histogram of phi, and its alarms.

    On a sealed board, claims are scored on public draws from what was uploaded, and all other entries on sealed draws
    from what the runner recorded; these have a scorecard on public draws too, which anybody can repeat.

    Args:
        settings: Folders of the server.
        board: Its board.
        entry: The entry.
        verified: Whether to score the runner's evidence; by default what the entry's tier says.

    Raises:
        ForgetBenchError: The evidence is damaged.
    """
    verified = entry.tier != "claimed" if verified is None else verified
    if not board.sealed or not verified:
        uploaded = (
            None if entry.baseline else Run(settings.evidence / entry.id, Manifest.model_validate(entry.manifest))
        )
        return _score(reference.bundle_folder(settings, board), board, entry, uploaded)
    draws: tuple[Draws, Draws] = ("public", "sealed")
    runs = [None if entry.baseline else seals.verified_run(settings, entry, kind) for kind in draws]
    public = _score(reference.bundle_folder(settings, board), board, entry, runs[0])
    ranking = _score(seals.sealed_folder(settings, board), board, entry, runs[1])
    findings = ranking.findings._replace(likeness=public.findings.likeness)  # claims are compared on public draws
    return ranking._replace(public=public.card, findings=findings, leaks=public.leaks)


def _score(bundle: Path, board: Board, entry: Entry, run: Run | None) -> ScoringResult:
    """Score a run, or a baseline where there is no run, against a bundle."""
    scorer, histograms = get_scorer(bundle), phi_histograms(bundle)
    if run is None:
        role = next(role for role, row in reference.BASELINES.items() if row.title == entry.label)
        models = scorer.bundle.population(role)
        card = scorer.score_reference(entry.label)
        phi = distributions.of_models(scorer, histograms, models)
        return ScoringResult(card, phi, EvidenceFindings(), leaks=leaks.of_models(scorer, models))
    card, models = scorer.score(run), run.population(board.draws, board.seeds)
    phi = distributions.of_models(scorer, histograms, models)
    boards = None if entry.changes_training else board_models(bundle)  # its originals are others
    return ScoringResult(card, phi, alarms.examine(scorer, boards, models), leaks=leaks.of_models(scorer, models))


def write_score(session: Session, entry: Entry, result: ScoringResult, seconds: float) -> None:
    """Write a scorecard and its histogram into rows.

    Args:
        session: Session to write with.
        entry: The entry.
        result: What was computed of it.
        seconds: How long that took.
    """
    card, like = result.card, result.findings.likeness
    session.add(
        Score(
            entry_id=entry.id,
            card=card.model_dump(mode="json"),
            brief=_ranking_card(card).model_dump(mode="json"),
            software=software_versions(),
            seconds=seconds,
            scored_at=utc_now(),
            phi={"shares": result.phi},
            public=result.public.model_dump(mode="json") if result.public else None,
            leaks=result.leaks,
            sketch=like.sketch.astype("<f8").tobytes() if like else None,
        )
    )
    for name, value in card.metrics.items():
        session.add(
            MetricValue(
                entry_id=entry.id,
                metric=name,
                board_id=entry.board_id,
                value=value.value,
                low=value.low,
                high=value.high,
                z=value.z,
                note=value.reason,
            )
        )
    distance = card.distance
    entry.flags = list(card.flags)
    if distance is not None:
        entry.distance, entry.distance_low, entry.distance_high = distance.value, distance.low, distance.high
        entry.within_band = distance.within_band
    entry.verdict = card.verdict
    entry.forgotten, entry.forgotten_low, entry.forgotten_high = _estimate(card.forgotten)
    entry.harm, entry.harm_low, entry.harm_high = _estimate(card.harm)
    entry.cost, entry.budget = card.cost.flops, _budget_class(card.cost)
    entry.outcome = asdict(outcome_of(card))
    session.flush()
    attacks.mark(session, entry)


def _estimate(effect: Effect) -> tuple[float | None, float | None, float | None]:
    return effect.value, effect.low, effect.high


def _ranking_card(card: Scorecard) -> Scorecard:
    """The part of a scorecard that the ranking needs."""
    values = {name: Value(value=card.metrics[name].value) for name in card.ranking if name in card.metrics}
    return card.model_copy(update={"metrics": values})


def _budget_class(cost: Cost) -> int | None:
    """Smallest budget in percent of retraining that a cost does not exceed."""
    if cost.flops is None:
        return None
    return next((budget for budget in _BUDGETS if cost.flops * 100 <= budget), _OVER_BUDGET)


class RankingRow(NamedTuple):
    """What the ranking reads of an entry."""

    id: str
    tier: str
    sentinel: bool
    changes_training: bool
    suspended: bool
    flags: list[str] | None
    brief: JsonObject


class RankingInput(NamedTuple):
    """Stored values from which a board is ranked."""

    rows: Sequence[RankingRow]
    """Public entries, without baselines, oldest first."""
    earlier: frozenset[str]
    """Entries whose submitter has a later one with the same method: only the last one is ranked."""
    example: JsonObject | None
    """Any scorecard by this protocol of the ranked rows: all have the same metrics and bands. None if there is none."""
    public_example: JsonObject | None
    """The same of claimed rows; of a sealed board, these have other oracles."""
    original_accuracy: float | None
    """Mean test accuracy of the board's originals."""


def read_ranking_input(session: Session, board: Board) -> RankingInput:
    """Read what `rank_board` needs."""
    rows = session.execute(
        select(
            Entry.id,
            Entry.tier,
            Entry.sentinel,
            Entry.changes_training,
            Entry.suspended,
            Entry.flags,
            Score.brief,
        )
        .join(Score, Score.entry_id == Entry.id)
        .where(Entry.board_id == board.id, Entry.state.in_(states.PUBLIC_STATES), ~Entry.baseline)
        .order_by(Entry.received_at, Entry.id)
    )
    examples = (
        select(Score.card, Score.public)
        .join(Entry, Entry.id == Score.entry_id)
        .where(Entry.board_id == board.id, Score.card["protocol"].as_integer() == PROTOCOL)
    )
    if board.sealed:
        examples = examples.where(Entry.tier != "claimed")
    example = session.execute(examples.order_by(~Entry.baseline).limit(1)).first()
    accuracy = session.scalar(
        select(MetricValue.value)
        .join(Entry, Entry.id == MetricValue.entry_id)
        .where(Entry.board_id == board.id, Entry.baseline, Entry.method == "none")
        .where(MetricValue.metric == "accuracy.test")
    )
    rows_read = [RankingRow(*row) for row in rows]
    card, public_card = (example.card, example.public or example.card) if example else (None, None)
    return RankingInput(rows_read, _earlier_attempts(session, board), card, public_card, accuracy)


def _earlier_attempts(session: Session, board: Board) -> frozenset[str]:
    """Entries that a later one of their submitter replaces: the same method, by name or source, in the same ranking.

    Entries that were listed and then withdrawn or quarantined count, because the best of many attempts would remain
    otherwise. The operator's own rows are not replaced.
    """
    query = (
        select(Entry.id, Entry.tier, Entry.changes_training, Entry.submitter, Entry.method, Entry.fingerprint)
        .where(Entry.board_id == board.id, ~Entry.baseline, Entry.tier != "reference", Entry.listed_at.is_not(None))
        .order_by(Entry.received_at.desc(), Entry.id.desc())
    )
    later: set[tuple[object, ...]] = set()
    earlier = set()
    for row in session.execute(query):
        ranking = row.submitter, ranking_scope(row.tier, changes_training=row.changes_training)
        keys = {(*ranking, "name", row.method), (*ranking, "source", row.fingerprint)}
        if keys & later:
            earlier.add(row.id)
        later |= keys
    return frozenset(earlier)


def rank_board(settings: Settings, board: Board, stored: RankingInput) -> Ranking:
    """Rank the entries of a board: verified and reference rows, and claimed rows among themselves.

    Scores by an earlier protocol are not ranked.
    """
    current = [row for row in stored.rows if row.brief["protocol"] == PROTOCOL]
    contestants = [row for row in current if not row.sentinel and not _without_place(row, stored)]
    placings: list[PlacingRow] = []
    unranked: dict[str, str] = {}
    for scope in RANKING_SCOPES:
        selected = [
            row for row in contestants if ranking_scope(row.tier, changes_training=row.changes_training) == scope
        ]
        for place in rank([_parse_scorecard(row.brief) for row in selected]).rows:
            entry_id = selected[place.index].id
            if place.rank is not None:
                placings.append(
                    {
                        "entry_id": entry_id,
                        "scope": scope,
                        "board_id": board.id,
                        "position": place.rank,
                        "low": place.low,
                        "high": place.high,
                    }
                )
            else:
                unranked[entry_id] = place.reason
    for row in stored.rows:
        if row not in current:
            unranked[row.id] = f"protocol {row.brief['protocol']}: not yet scored by protocol {PROTOCOL}"
        elif row.sentinel:
            unranked[row.id] = "sentinel: audits the metrics, does not compete"
        elif reason := _without_place(row, stored):
            unranked[row.id] = reason
        elif row.changes_training:
            unranked[row.id] = own_originals_reason(row.brief, stored.original_accuracy)
    if stored.example is None or stored.public_example is None:
        return Ranking(placings, unranked, board.summary)
    summary = _summary_of(seals.ranking_bundle(settings, board), stored.example)
    if board.sealed:  # claims are compared with the oracles of the public draws
        summary["claimed"] = _summary_of(reference.bundle_folder(settings, board), stored.public_example)
    return Ranking(placings, unranked, summary)


def _without_place(row: RankingRow, stored: RankingInput) -> str:
    """Why an entry has no place whatever its score is; "" if that does not hold."""
    if states.UNCHANGED in (row.flags or ()):
        return f"{states.UNCHANGED}: {states.ORIGIN_FLAGS[states.UNCHANGED]}"
    if row.suspended:
        return "suspended: its answers raised an alarm; it has no place until a moderator has looked"
    if row.id in stored.earlier:
        return "earlier attempt: only the last row of a submitter and method is ranked"
    return ""


def _summary_of(bundle: Path, example: JsonObject) -> JsonObject:
    return board_summary(get_scorer(bundle).bands, _parse_scorecard(example), phi_histograms(bundle))


def _parse_scorecard(document: JsonObject) -> Scorecard:
    """A stored scorecard; through JSON text, which pydantic parses by JSON's own rules (numbers, lists as tuples)."""
    return Scorecard.model_validate_json(json.dumps(document))


def own_originals_reason(card: JsonObject, accuracy: float | None) -> str:
    """Why an entry with its own originals is not ranked, with the utility and cost of these originals.

    Args:
        card: The entry's scorecard.
        accuracy: Mean test accuracy of the board's originals.
    """
    own_accuracy, training_cost = card.get("own_originals"), card["cost"].get("training")
    if own_accuracy is None or accuracy is None:
        return "own originals: it changes the original training"
    cost = f"; trained at {training_cost:.2f} times the FLOPs of retraining" if training_cost else ""
    return f"own originals: {own_accuracy:.1%} test accuracy, the board's have {accuracy:.1%}{cost}"


def board_summary(bands: Bands, example: Scorecard, phi: JsonObject) -> JsonObject:
    """Everything that a board's pages need besides its rows: columns with bands, and whether and how it ranks.

    Args:
        bands: Bands of the board.
        example: Any scorecard of the board, for its metrics and bands.
        phi: Histograms of oracles and originals.
    """
    columns: list[JsonObject] = []
    for spec in (metrics.get(name) for name in metrics.names() if name in example.metrics):
        role, reference_value = spec.role(bands.track), bands.references.get(spec.name)
        band, ranks, reason = example.metrics[spec.name].band, spec.name in bands.ranking, ""
        if role == "efficacy" and not ranks:
            reason = "it does not distinguish No unlearning from the oracles here"
        if reference_value is not None and reference_value.reason:
            reason = reference_value.reason
        columns.append(
            {
                **spec.model_dump(mode="json", exclude={"efficacy", "harm"}),
                "shown_unit": spec.display.unit,
                "scale": spec.display.scale,
                "role": role,
                "ranks": ranks,
                "why": reason,
                "band": band.model_dump(include={"mean", "low", "high", "sd"}) if band else None,
            }
        )
    columns.sort(key=lambda column: (_ROLE_ORDER.index(column["role"]), column["name"]))
    return {
        "columns": columns,
        "ranking": list(bands.ranking),
        "family_limit": bands.family_limit,
        "informational": bands.unranked_reason,
        "seeds": bands.seeds,
        "halvings": bands.split_halves,
        "phi": phi,
    }


def enqueue_outdated(session: Session) -> int:
    """Enqueue all entries of boards that an earlier protocol scored, to be scored again; returns their number.

    Quarantined entries are included, because they may be listed again. It happens once, when the first worker of this
    version starts; the old scores stay visible and unranked until the new ones are written.
    """
    count = 0
    for board in session.scalars(select(Board).where(Board.protocol < PROTOCOL)):
        public = Entry.state.in_((*states.PUBLIC_STATES, "accepted", "quarantined"))
        ids = session.scalars(select(Entry.id).join(Score).where(Entry.board_id == board.id, public)).all()
        for entry_id in ids:
            queue.enqueue(session, "rescore", entry_id)
        queue.enqueue(session, "rank", str(board.id))
        board.protocol = PROTOCOL
        count += len(ids)
    return count


def write_ranking(session: Session, board_id: int, ranking: Ranking) -> None:
    """Replace the placings of a board, keep those that changed as history, and update the status of its entries."""
    columns = (Placing.entry_id, Placing.scope, Placing.position, Placing.low, Placing.high)
    before = {row[0]: tuple(row) for row in session.execute(select(*columns).where(Placing.board_id == board_id))}
    session.execute(delete(Placing).where(Placing.board_id == board_id))
    if ranking.placings:
        session.execute(insert(Placing), ranking.placings)
    _keep_history(session, board_id, before, ranking)
    if changes := _status_changes(session, board_id, ranking):
        session.execute(update(Entry), changes)
    session.execute(
        update(Board)
        .where(Board.id == board_id)
        .values(summary=ranking.summary, ranked_at=utc_now(), revision=Board.revision + 1)
    )


def _keep_history(session: Session, board_id: int, before: dict[str, tuple[object, ...]], ranking: Ranking) -> None:
    """Write the places that changed as those of today; a place that was lost has no position."""
    names = ("entry_id", "scope", "position", "low", "high")
    after = {place["entry_id"]: tuple(place[name] for name in names) for place in ranking.placings}  # type: ignore[literal-required]
    lost = {entry: (entry, place[1], None, None, None) for entry, place in before.items() if entry not in after}
    changed = {entry: place for entry, place in (after | lost).items() if before.get(entry) != place}
    today, ids = utc_now().date(), list(changed)
    for first in range(0, len(ids), _BATCH):
        batch = ids[first : first + _BATCH]
        session.execute(delete(PastPlacing).where(PastPlacing.entry_id.in_(batch), PastPlacing.day == today))
        rows = session.execute(select(Entry.id, Entry.distance, Entry.verdict).where(Entry.id.in_(batch))).all()
        lines = [
            dict(zip(names, changed[entry_id], strict=True))
            | {"day": today, "board_id": board_id, "distance": distance, "verdict": verdict}
            for entry_id, distance, verdict in rows
        ]
        session.execute(insert(PastPlacing), lines)


def _status_changes(session: Session, board_id: int, ranking: Ranking) -> Sequence[dict[str, object]]:
    """Entries whose status differs, so that the others are not rewritten."""
    ranked = {placing["entry_id"] for placing in ranking.placings}
    rows = session.execute(select(Entry.id, Entry.status, Entry.reasons).where(Entry.board_id == board_id)).all()
    changes: list[dict[str, object]] = []
    for row in rows:
        reason = ranking.unranked.get(row.id, "")
        status = "ranked" if row.id in ranked else reason.partition(":")[0][:32] if reason else None
        reasons = [reason] if reason else []
        if (row.status, row.reasons or []) != (status, reasons):
            changes.append({"id": row.id, "status": status, "reasons": reasons})
    return changes
