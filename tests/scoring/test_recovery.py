"""*Recovered* and the flag *recoverable*, on boards of which every accuracy is set by hand."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.evidence.arrays import RECALIBRATED
from forgetbench.scoring.recovery import NOT_RECORDED, ROW_NOT_RECORDED
from forgetbench.scoring.score import reference_bands, score
from forgetbench.scoring.scorecards import Bands, Scorecard
from forgetbench.scoring.statistics import split_halves

ROWS, SEEDS, CLASSES = 100, 6, 4
LABELS = {name: np.arange(ROWS) % CLASSES for name in ("forget", "retain", "test")}
ORIGINALS = [98, 99, 97, 98, 100, 99]
REFERENCES = [30, 33, 28, 31, 29, 32]
CONTROLS = [31, 29, 32, 30, 33, 27]
"""Right answers on the forget set, of 100, by seed."""
AFTER = {"originals": [100] * 6, "references": [33, 34, 30, 33, 31, 33], "controls": [32, 32, 33, 31, 33, 30]}


def answers(rights, seed):
    """Logits (S, 100, 4) of models with these numbers of right answers; noise changes margins, never answers."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 0.1, (SEEDS, ROWS, CLASSES))
    for model, right in enumerate(rights):
        target = np.where(np.arange(ROWS) < right, LABELS["forget"], (LABELS["forget"] + 1) % CLASSES)
        logits[model, np.arange(ROWS), target] += 4.0 + rng.normal(0, 0.3)
    return logits


def population(forget, after=None, *, test=90, test_after=90, seed=0):
    """One draw of models; with `after`, they also answered after recalibration."""
    arrays = {"forget": answers(forget, seed), "retain": answers([99] * 6, seed + 1)}
    arrays["test"] = answers([test] * 6, seed + 2)
    if after is not None:
        arrays[RECALIBRATED + "forget"] = answers(after, seed + 3)
        arrays[RECALIBRATED + "test"] = answers([test_after] * 6, seed + 4)
    return [arrays]


def board(*, after: bool = True, track="match-oracle") -> tuple[dict, Bands]:
    sides = {"originals": ORIGINALS, "references": REFERENCES, "controls": CONTROLS}
    models = {
        role: population(rights, AFTER[role] if after else None, seed=10 * number)
        for number, (role, rights) in enumerate(sides.items())
    }
    return models, reference_bands([LABELS], models["references"], models["controls"], models["originals"], track)


def card_of(contestant, models, bands) -> Scorecard:
    return score(
        contestant,
        name="x",
        references=models["references"],
        labels=[LABELS],
        bands=bands,
        originals=models["originals"],
    )


@pytest.fixture(scope="module")
def tested():
    return board()


def share(rights, state):
    """Forgotten, by hand: the mean accuracies of originals, the row and control oracles on one line."""
    originals, controls = (ORIGINALS, CONTROLS) if state == "before" else (AFTER["originals"], AFTER["controls"])
    return (np.mean(originals) - np.mean(rights)) / (np.mean(originals) - np.mean(controls))


def test_recovered_equals_the_values_by_hand(tested):
    before, after = [32, 30, 35, 31, 33, 30], [52, 58, 49, 61, 55, 50]
    card = card_of(population(before, after, test_after=88, seed=50), *tested)
    found = card.recalibration
    assert found.before.value == pytest.approx(share(before, "before"))
    assert found.after.value == pytest.approx(share(after, "after"))
    assert found.before == card.forgotten
    assert found.recovered.value == pytest.approx(share(before, "before") - share(after, "after"))
    parts = []
    for seed in range(SEEDS):  # seed left out of all sides
        keep = [other for other in range(SEEDS) if other != seed]
        sides = [np.array(side)[keep].mean() for side in (ORIGINALS, before, CONTROLS)]
        changed = [np.array(side)[keep].mean() for side in (AFTER["originals"], after, AFTER["controls"])]
        parts.append([(side[0] - side[1]) / (side[0] - side[2]) for side in (sides, changed)])
    left_out = np.subtract(*np.transpose(parts))
    pseudo = found.recovered.value + (SEEDS - 1) * (left_out.mean() - left_out)
    assert found.recovered.pseudo_values == pytest.approx(pseudo)
    half = 2.5706 * pseudo.std(ddof=1) / np.sqrt(SEEDS)
    assert (found.recovered.low, found.recovered.high) == pytest.approx(
        (found.recovered.value - half, found.recovered.value + half), rel=1e-4
    )
    assert found.p == pytest.approx(1 / 32)
    assert {name: (one.before, one.after) for name, one in found.accuracies.items()} == {
        "forget": pytest.approx((np.mean(before) / 100, np.mean(after) / 100)),
        "test": pytest.approx((0.9, 0.88)),
    }
    assert found.recoverable
    assert "recoverable" in card.flags
    assert found.reason == ""


def test_recovered_band_is_that_of_oracle_halvings(tested):
    """One half of the pooled oracles against the other one, in both states."""
    _, bands = tested
    pools = [
        np.array([*REFERENCES, *CONTROLS], float),
        np.array([*AFTER["references"], *AFTER["controls"]], float),
    ]
    tops = [np.mean(ORIGINALS), np.mean(AFTER["originals"])]
    values = []
    for left, right in split_halves(SEEDS):
        for one, other in ((left, right), (right, left)):
            shares = [(top - pool[one].mean()) / (top - pool[other].mean()) for top, pool in zip(tops, pools)]  # noqa: B905
            values.append(shares[0] - shares[1])
    band = bands.recalibration.band
    assert (band.mean, band.sd) == pytest.approx((np.mean(values), np.std(values)))
    assert (band.low, band.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    assert band.floor == pytest.approx(0.005 / (np.mean(ORIGINALS) - np.mean(CONTROLS)) * 100)


def test_recoverable_never_for_the_reference_rows(tested):
    """No unlearning forgot nothing, whatever its statistics hide; Retrain is what it is compared with."""
    models, bands = tested
    untouched, retrain = (card_of(models[role], models, bands) for role in ("originals", "controls"))
    assert (untouched.recalibration.recoverable, retrain.recalibration.recoverable) == (False, False)
    assert (untouched.forgotten.value, retrain.forgotten.value) == pytest.approx((0.0, 1.0))
    assert (untouched.recalibration.recovered.value, retrain.recalibration.recovered.value) == pytest.approx((0, 0))
    assert untouched.recalibration.p == 1.0
    assert "recoverable" not in (*untouched.flags, *retrain.flags)


@pytest.mark.parametrize(
    ("before", "after", "recoverable"),
    [
        ([30] * 6, [100] * 6, True),  # undone
        ([30] * 6, [31, 33, 32, 31, 32, 32], False),  # moves as oracles do
        ([98, 99, 97, 98, 100, 99], [100] * 6, False),  # nothing had been forgotten
        ([80, 99, 97, 98, 100, 99], [100] * 6, False),  # by one seed alone: not significant
        ([30] * 6, [5] * 6, False),  # forgets more afterwards
        ([30] * 6, [90, 33, 31, 33, 31, 33], False),  # one seed alone
        ([30] * 6, [98, 99, 97, 98, 33, 34], True),  # four seeds of six
    ],
)
def test_recoverable_needs_forgetting_and_a_return(tested, before, after, recoverable):
    card = card_of(population(before, after, seed=70), *tested)
    assert card.recalibration.recoverable is recoverable
    assert ("recoverable" in card.flags) is recoverable
    assert Scorecard.model_validate_json(card.model_dump_json()) == card


def test_recoverable_row_does_not_reach_retraining(tested):
    """As it is, it cannot be told from oracles; so the verdict depends on the flag alone."""
    models, bands = tested
    honest, hiding = (
        models["controls"][0] | {RECALIBRATED + "forget": answers(after, 5)} for after in (CONTROLS, [100] * 6)
    )
    cards = [card_of([contestant], models, bands) for contestant in (honest, hiding)]
    assert [card.distance.within_band for card in cards] == [True, True]
    assert cards[0].verdict == "reaches retraining"
    assert cards[1].flags == ("recoverable",)
    assert cards[1].verdict != "reaches retraining"


def test_recalibration_missing_answers_are_not_tested(tested):
    """Of the row, or of the board: never "not recoverable"."""
    models, bands = tested
    plain = card_of(population([30] * 6, seed=90), models, bands)
    assert plain.recalibration.recoverable is None
    assert plain.recalibration.reason == ROW_NOT_RECORDED
    assert plain.recalibration.accuracies == {}
    earlier_models, earlier = board(after=False)
    assert earlier.recalibration is None
    card = card_of(population([30] * 6, [100] * 6, seed=90), earlier_models, earlier)
    assert card.recalibration.recoverable is None
    assert card.recalibration.reason == NOT_RECORDED
    assert card.recalibration.accuracies["forget"].after == 1.0
    assert "recoverable" not in card.flags
    assert plain.distance == card_of(population([30] * 6, [100] * 6, seed=90), models, bands).distance


def test_recalibration_is_not_scored_for_tuning(tested):
    models, _ = tested
    populations = models["references"], models["controls"], models["originals"]
    fast = reference_bands([LABELS], *populations, "match-oracle", ranking_only=True)
    card = score(
        models["controls"], name="x", references=models["references"], labels=[LABELS], bands=fast, ranking_only=True
    )
    assert (fast.recalibration, card.recalibration.recoverable) == (None, None)
