"""Score the evidence of attacks: what an attack finds in an entry beyond what it finds in oracles."""

from __future__ import annotations

from collections.abc import Sequence

from forgetbench.evidence.attacks import REFERENCE_POPULATIONS
from forgetbench.evidence.run import Manifest, Run
from forgetbench.leaderboard.db.models import Board, Entry, KnownAttack
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import reference, seals
from forgetbench.leaderboard.submissions.attacks import ScoredAttack, evidence_of
from forgetbench.leaderboard.worker import scoring
from forgetbench.metrics.board_rules import Population
from forgetbench.scoring.attacks import attack_bands, read_board, score_attacks, untouched_board
from forgetbench.scoring.scorer import Scorer


def score_records(
    settings: Settings,
    board: Board,
    records: Sequence[tuple[KnownAttack, Entry]],
    compared: Sequence[KnownAttack],
) -> dict[str, ScoredAttack]:
    """What attacks find, by the id of their record.

    Args:
        settings: Folders of the server.
        board: The board.
        records: The records to score, with their entries.
        compared: Records of the runner, over whose attacks the family limit is taken as well.

    Raises:
        ForgetBenchError: Evidence is missing or damaged.
    """
    scorer = scoring.get_scorer(reference.bundle_folder(settings, board))
    untouched = untouched_board(scorer)
    evidence = {one.id: evidence_of(settings, one) for one in (*compared, *(record for record, _ in records))}
    by_label = {one.label: one.id for one in (*compared, *(record for record, _ in records))}
    boards = {
        label: read_board({name: evidence[identity][name] for name in REFERENCE_POPULATIONS})
        for label, identity in by_label.items()
    }
    bands = attack_bands(list(boards.values()), untouched)
    found = {}
    for record, entry in records:
        after = evidence[record.id]["row"].answers()
        row = _population(settings, board, entry, scorer)
        card = score_attacks(entry.label, row, {record.label: after}, [boards[record.label]], untouched, bands)
        found[record.id] = ScoredAttack(card.scores[0], bands.scale(record.label), bands.family_limit, len(boards))
    return found


def _population(settings: Settings, board: Board, entry: Entry, scorer: Scorer) -> Population:
    """The answers of an entry on public draws, before the attack."""
    if entry.baseline:
        return scorer.originals if entry.method == "none" else scorer.bundle.population("controls")
    if board.sealed and entry.tier != "claimed":
        return seals.verified_run(settings, entry, "public").population(board.draws, board.seeds)
    run = Run(settings.evidence / entry.id, Manifest.model_validate(entry.manifest))
    return run.population(board.draws, board.seeds)
