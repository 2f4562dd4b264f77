"""Scores of attacks: by hand, on simulated boards, and how often honest rows are flagged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from forgetbench.metrics.roc import auc
from forgetbench.scoring.attacks import AttackedBoard, UntouchedBoard, attack_bands, score_attacks
from forgetbench.scoring.bands import reference_bands

SEEDS, CLASSES, FORGOTTEN = 6, 4, 3
LABELS = [
    {
        "forget": np.full(40, FORGOTTEN),
        "retain": np.arange(60) % FORGOTTEN,
        "test": np.arange(60) % FORGOTTEN,
        "test-forgotten": np.full(40, FORGOTTEN),
    }
]


def population(random: np.random.Generator, known: float, noise: float = 0.05) -> list[dict[str, np.ndarray]]:
    """Models that answer rightly on about this share of the rows of the forgotten class, and on 90 % of the others."""
    answers = {}
    for subset, labels in LABELS[0].items():
        share = known if subset in ("forget", "test-forgotten") else 0.9
        shares = np.clip(share + noise * random.normal(size=(SEEDS, 1)), 0, 1)
        right = random.random((SEEDS, len(labels))) < shares
        guesses = np.where(right, labels, (labels + 1) % CLASSES)
        answers[subset] = np.eye(CLASSES)[guesses] * 4.0 + random.normal(size=(SEEDS, len(labels), CLASSES)) * 0.1
    return [answers]


def make_board(random: np.random.Generator, oracle: float = 0.2) -> UntouchedBoard:
    originals, references, controls = (population(random, known) for known in (0.9, oracle, oracle))
    bands = reference_bands(LABELS, references, controls, originals, "erase", ranking_only=True)
    return UntouchedBoard(originals=originals, references=references, controls=controls, labels=LABELS, bands=bands)


def attacked(random: np.random.Generator, label: str, original: float = 0.9, oracle: float = 0.2) -> AttackedBoard:
    sides = {"originals": original, "references": oracle, "controls": oracle}
    return AttackedBoard(label=label, name=label, **{side: population(random, known) for side, known in sides.items()})


def accuracy(answers: np.ndarray, subset: str) -> float:
    return float((answers.argmax(2) == LABELS[0][subset]).mean())


def test_recovered_is_forgotten_before_minus_after() -> None:
    random = np.random.default_rng(1)
    board, one = make_board(random), attacked(random, "dig")
    row, after = population(random, 0.2), population(random, 0.7)
    found = score_attacks("row", row, {"dig": after}, [one], board, attack_bands([one], board))
    subset, sides = "test-forgotten", []
    for original, control, model in (
        (board.originals, board.controls, row),
        (one.originals, one.controls, after),
    ):
        values = [accuracy(np.asarray(side[0][subset]), subset) for side in (original, control, model)]
        sides.append((values[0] - values[2]) / (values[0] - values[1]))
    [score] = found.scores
    assert score.before.value == pytest.approx(sides[0])
    assert score.after.value == pytest.approx(sides[1])
    assert score.statistic.value == pytest.approx(sides[0] - sides[1])
    assert score.recoverable is True
    assert (found.worst, found.recoverable) == ("dig", True)
    gap = accuracy(after[0][subset], subset) - accuracy(np.asarray(one.references[0][subset]), subset)
    assert score.accuracies[subset].difference == pytest.approx(gap)
    assert score.accuracies[subset].within_band is False


def test_no_unlearning_and_retrain_are_never_recoverable() -> None:
    random = np.random.default_rng(2)
    board, one = make_board(random), attacked(random, "dig")
    bands = attack_bands([one], board)
    for before, after in ((board.originals, one.originals), (board.controls, one.controls)):
        found = score_attacks("row", before, {"dig": after}, [one], board, bands)
        assert found.recoverable is False
        assert found.scores[0].statistic.value == pytest.approx(0)
    more = population(random, 0.99)  # knows more after the attack, but had forgotten nothing
    assert score_attacks("row", board.originals, {"dig": more}, [one], board, bands).recoverable is False


def test_attack_that_teaches_oracles_too_has_no_band() -> None:
    random = np.random.default_rng(3)
    board, one = make_board(random), attacked(random, "teach", original=0.9, oracle=0.9)
    bands = attack_bands([one], board)
    assert "not distinguishable from Retrain" in bands.scales[0].reason
    assert "it finds as much in oracles" in bands.scales[0].reason
    found = score_attacks("row", population(random, 0.2), {"teach": population(random, 0.9)}, [one], board, bands)
    assert (found.recoverable, found.worst) == (None, "")
    assert found.scores[0].accuracies["test-forgotten"].after > 0.8  # shown all the same


def test_membership_is_the_auc_minus_that_of_oracles() -> None:
    random = np.random.default_rng(4)
    board = make_board(random)

    def scores(shift: float) -> list[dict[str, np.ndarray]]:
        sizes = {subset: len(labels) for subset, labels in LABELS[0].items()}
        answers = {subset: random.normal(size=(SEEDS, count, 1)) for subset, count in sizes.items()}
        answers["forget"] += shift
        return [answers]

    sides = {side: scores(shift) for side, shift in (("originals", 2.0), ("references", 0.0), ("controls", 0.0))}
    one = AttackedBoard(label="guess", name="guess", membership=True, **sides)
    row = population(random, 0.2)
    leak = scores(1.0)
    found = score_attacks("row", row, {"guess": leak}, [one], board, attack_bands([one], board))
    expected = [
        np.mean([auc(side[0]["forget"][s, :, 0], side[0]["test-forgotten"][s, :, 0]) for s in range(SEEDS)])
        for side in (leak, sides["references"])
    ]
    assert found.scores[0].statistic.value == pytest.approx(expected[0] - expected[1])
    assert found.recoverable is True
    assert found.scores[0].accuracies == {}


def test_attack_with_recovery_in_control_oracles_is_unfit() -> None:
    random = np.random.default_rng(5)
    board, one = make_board(random), attacked(random, "dig")
    assert attack_bands([one], board).scales[0].fit is True
    # control oracles give way to the attack, reference oracles do not
    uneven = replace(one, references=population(random, 0.0, 0.0), controls=population(random, 0.5, 0.0))
    bands = attack_bands([uneven], board)
    assert (bands.scales[0].fit, bands.unfit) == (False, ("dig",))
    assert bands.scales[0].control_z > bands.family_limit
    found = score_attacks("row", population(random, 0.2), {"dig": population(random, 0.9)}, [uneven], board, bands)
    assert (found.scores[0].outside, found.recoverable) == (True, None)
    assert "unfit" in found.scores[0].reason


def flagged(board: UntouchedBoard, attacks: Sequence[AttackedBoard], random: np.random.Generator) -> bool:
    """Whether a further set of oracles is flagged, as if it were a method."""
    row = population(random, 0.2)
    after = {one.label: population(random, 0.2) for one in attacks}
    return bool(score_attacks("row", row, after, attacks, board, attack_bands(attacks, board)).recoverable)


def test_several_attacks_flag_few_honest_rows() -> None:
    """At most one in twenty halvings is above the limit; of new oracles, which are in no band, about as many."""
    random, rates, hits = np.random.default_rng(6), [], []
    for _ in range(4):
        board = make_board(random)
        attacks = [attacked(random, f"attack-{number}") for number in range(3)]
        bands = attack_bands(attacks, board)
        assert bands.false_flags is not None
        rates.append(bands.false_flags)
        hits.append(flagged(board, attacks, random))
    assert max(rates) <= 0.05
    assert sum(hits) <= 1
