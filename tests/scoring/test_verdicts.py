"""Verdicts, flags, *forgotten* and *harm*: built by hand, and against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from forgetbench.metrics import phi
from forgetbench.scoring.flags import flags_of, sides_of
from forgetbench.scoring.forgotten import anchors, forgetting_metric, forgotten_by
from forgetbench.scoring.gates import gate_of
from forgetbench.scoring.score import reference_bands, score, unscored
from forgetbench.scoring.scorecards import (
    Bands,
    Distance,
    GateResult,
    MetricBand,
    Reference,
    Scorecard,
    Value,
)
from forgetbench.scoring.statistics import sign_flip_p
from forgetbench.scoring.verdicts import with_verdict
from forgetbench.scoring.vocabulary import VERDICTS, Verdict

NOISE = np.array([-0.5, 0.2, 0.4, -0.3, 0.6, -0.4])
GATE = gate_of(None, [[{"test": np.zeros((6, 10, 2))}]], [{"test": np.zeros(10, int)}])
PASSED = GateResult(collapsed=False, harmed=False, unstable=False, unstable_models=0, models=6, median=0.9)
HARMED = PASSED.model_copy(update={"harmed": True, "reasons": ("test accuracy 80.0% is below 89.0%",)})
COLLAPSED = HARMED.model_copy(update={"collapsed": True})
BAND = MetricBand(mean=0.0, low=-0.1, high=0.1, sd=0.05, floor=0.0)


def distance(value, noise=NOISE, limit=4.0):
    """A distance whose pseudo-values are the value plus noise around 0."""
    pseudo = tuple((value + noise - noise.mean()).tolist())
    return Distance(
        value=value, low=None, high=None, metric="gap.forget", pseudo_values=pseudo, within_band=value < limit
    )


def bands(**changes):
    """A board on which doing nothing has the distance 10."""
    fields = {
        "track": "match-oracle",
        "seeds": 6,
        "draws": 1,
        "split_halves": 924,
        "bands": dict.fromkeys(("gap.forget", "lira.forget", "shift.forget", "gap.test"), BAND),
        "references": {
            name: Reference(original=1.0, original_z=20.0, feasible=True)
            for name in ("gap.forget", "lira.forget", "shift.forget", "gap.test")
        },
        "ranking": ("gap.forget", "lira.forget", "gap.test"),
        "family_limit": 4.0,
        "gate": GATE,
        "no_unlearning": distance(10.0),
    }
    return Bands(**(fields | changes))


def row(value, noise=NOISE[::-1], **changes):
    """A scorecard with a distance, not yet judged."""
    fields = {"name": "x", "track": "match-oracle", "seeds": 6, "draws": 1, "gate": PASSED}
    return Scorecard(**(fields | {"distance": distance(value, noise)} | changes))


@pytest.mark.parametrize(
    ("card", "verdict"),
    [
        (row(2.0, gate=COLLAPSED), Verdict.COLLAPSED),
        (row(2.0), Verdict.REACHES_RETRAINING),
        (row(2.0, gate=HARMED), Verdict.AT_A_PRICE),
        (row(2.0, flags=("recoverable",)), Verdict.BETTER),
        (row(6.0, gate=HARMED), Verdict.AT_A_PRICE),
        (row(6.0), Verdict.BETTER),
        (row(14.0), Verdict.WORSE),
        (row(14.0, gate=HARMED), Verdict.WORSE),
        (row(10.1), Verdict.AS_NOTHING),
        (row(10.1, gate=HARMED), Verdict.AS_NOTHING),
        (row(6.0, noise=40 * NOISE), Verdict.AS_NOTHING),
    ],
)
def test_verdict_is_the_first_that_applies(card, verdict):
    judged = with_verdict(card, bands())
    assert judged.verdict == verdict
    assert Scorecard.model_validate_json(judged.model_dump_json()) == judged


def test_verdict_words_are_those_of_the_protocol():
    assert [verdict.value for verdict in Verdict] == [
        "collapsed",
        "reaches retraining",
        "forgets at a price",
        "better than doing nothing",
        "worse than doing nothing",
        "as doing nothing",
    ]
    assert list(VERDICTS) == list(Verdict)


def test_verdict_none_where_the_board_or_row_has_no_rank():
    informational = {"unranked_reason": "5 seeds: a board needs 6 for ranks"}
    assert with_verdict(row(2.0, **informational), bands(**informational)).verdict is None
    assert with_verdict(row(2.0, gate=COLLAPSED, **informational), bands(**informational)).verdict is None
    for status in ("failed", "diverged", "not-applicable"):
        assert with_verdict(unscored("x", status, "why", bands()), bands()).verdict is None
    assert with_verdict(row(2.0, distance=None), bands()).verdict is None
    assert with_verdict(row(2.0, distance=None, gate=COLLAPSED), bands()).verdict == Verdict.COLLAPSED


def test_distance_difference_is_paired_with_no_unlearning():
    judged = with_verdict(row(6.0), bands())
    pair = np.array(judged.distance.pseudo_values), np.array(bands().no_unlearning.pseudo_values)
    found = judged.delta_vs_no_unlearning
    test = stats.ttest_rel(*pair)
    assert found.value == pytest.approx(-4.0)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))
    expected = stats.permutation_test(pair, lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=10**4)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.p == 1 / 32


@pytest.mark.parametrize("seeds", [2, 6, 9])
def test_sign_flip_p_equals_scipy(seeds):
    generator = np.random.default_rng(seeds)
    for shift in (0.0, 0.4, 2.0):
        left, right = generator.normal(shift, 1, seeds), generator.normal(0, 1, seeds)
        expected = stats.permutation_test(
            (left, right), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=10**4
        )
        assert sign_flip_p(left - right) == pytest.approx(expected.pvalue)


def test_sign_flip_p_twenty_seeds_is_exact():
    weights = np.ones(20)
    weights[:4] = -1.0  # the sum of 20 signs is binomial: |sum| >= 12 has 16 or more equal signs
    assert sign_flip_p(weights) == pytest.approx(2 * stats.binom.sf(15, 20, 0.5), abs=1e-12)
    assert sign_flip_p(np.zeros(20)) == 1.0
    assert sign_flip_p(np.ones(24)) == 2.0**-23
    assert sign_flip_p(np.ones(25)) < 1e-4  # sampled above 24 seeds


def values(**z):
    """Values of the four metrics with these z; above 2 they are outside their own band."""
    names = {"gap": "gap.forget", "lira": "lira.forget", "shift": "shift.forget", "test": "gap.test"}
    return {
        names[name]: Value(value=0.05 * number, z=number, band=BAND, within_band=abs(number) < 2)
        for name, number in ({"gap": 0.0, "lira": 0.0, "shift": 0.0, "test": 0.0} | z).items()
    }


def flags(value=10.0, board=None, **z):
    board = board or bands()
    found = values(**z)
    return flags_of(found, board, PASSED, distance(value), sides_of(found, board))


def test_flags_side_of_the_farthest_ranking_metric():
    assert flags(gap=6.0, lira=3.0, shift=-5.0) == ("under-forgotten",)
    assert flags(gap=-6.0, lira=3.0, shift=5.0) == ("over-forgotten",)
    assert flags(gap=3.0, lira=8.0, shift=-5.0) == ("under-forgotten",)  # lira has no side: that of gap.forget
    assert flags(gap=1.0, lira=8.0, shift=-5.0) == ("over-forgotten",)  # gap.forget is inside its band: the shift's
    assert flags(gap=1.0, lira=8.0, shift=1.0) == ()
    assert flags(gap=1.0, lira=1.0, shift=9.0, test=-9.0) == ()  # the shift does not rank here
    below = bands(references={n: Reference(original=-1.0, original_z=-20.0, feasible=True) for n in bands().references})
    assert flags(gap=6.0, board=below) == ("over-forgotten",)


def test_flags_none_inside_the_family_band():
    assert flags(value=3.9, gap=3.8, shift=-3.0) == ()
    assert flags(value=4.1, gap=3.8, shift=-3.0) == ("under-forgotten",)


def test_flags_never_both_sides(simulate):
    task = simulate(seed=5)
    references, controls, originals = task.models(), task.models(), task.models(memory=2.0)
    board = reference_bands(task.labels, references, controls, originals, "match-oracle")
    for memory in np.linspace(-2, 2, 9):
        population = task.models(memory=memory)
        population[0]["forget"] *= 0.3  # right answers with little confidence: gap and shift on different sides
        card = score(population, name="x", references=references, labels=task.labels, bands=board)
        assert not {"under-forgotten", "over-forgotten"} <= set(card.flags)
        if card.distance.within_band:
            assert not {"under-forgotten", "over-forgotten"} & set(card.flags)
        assert set(card.sides) <= {"gap.forget", "shift.forget"}


@pytest.fixture(scope="module")
def board(simulate_once):
    task = simulate_once(seed=8, draws=2)
    populations = {"references": task.models(), "controls": task.models(), "originals": task.models(memory=2.0)}
    return task, populations, reference_bands(task.labels, *populations.values(), "match-oracle")


def scored(board, population, name="x"):
    task, populations, limits = board
    return score(population, name=name, references=populations["references"], labels=task.labels, bands=limits)


def accuracy(task, population, subset, without=None):
    """Mean accuracy over draws and seeds, with one seed left out."""
    parts = []
    for answers, truth in zip(population, task.labels, strict=True):
        right = (answers[subset].argmax(-1) == truth[subset]).mean(-1)
        parts.append(np.delete(right, without).mean() if without is not None else right.mean())
    return np.mean(parts)


def jackknife(whole, parts):
    """Pseudo-values and their 95 % interval."""
    pseudo = whole + (len(parts) - 1) * (np.mean(parts) - np.array(parts))
    half = stats.t.ppf(0.975, len(parts) - 1) * pseudo.std(ddof=1) / np.sqrt(len(parts))
    return pseudo, whole - half, whole + half


def test_forgotten_from_the_accuracy_gap_by_hand(board):
    task, populations, limits = board
    assert limits.forgetting.metric == "gap.forget"
    population = task.models(memory=0.7)

    def share(without=None):
        untouched, row, retrain = (
            accuracy(task, side, "forget", without)
            for side in (populations["originals"], population, populations["controls"])
        )
        return (untouched - row) / (untouched - retrain)

    found = scored(board, population).forgotten
    pseudo, low, high = jackknife(share(), [share(seed) for seed in range(6)])
    assert found.value == pytest.approx(share())
    np.testing.assert_allclose(found.pseudo_values, pseudo)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.metric == "gap.forget"


def test_harm_is_the_larger_loss_beyond_retrain(board):
    task, populations, _ = board
    for options, metric in (({"test": -0.5}, "gap.test"), ({"retain": 0.5}, "gap.retain")):
        population = task.models(**options)

        def loss(without=None, population=population):
            return max(
                accuracy(task, populations["controls"], subset, without) - accuracy(task, population, subset, without)
                for subset in ("test", "retain")
            )

        found = scored(board, population).harm
        _, low, high = jackknife(loss(), [loss(seed) for seed in range(6)])
        assert (found.value, found.low, found.high) == pytest.approx((loss(), low, high))
        assert found.metric == metric


def test_reference_rows_are_zero_and_one_forgotten(board):
    _, populations, limits = board
    untouched, retrain = (scored(board, populations[role]) for role in ("originals", "controls"))
    assert untouched.forgotten.value == untouched.forgotten.low == untouched.forgotten.high == 0.0
    assert retrain.forgotten.value == retrain.forgotten.low == retrain.forgotten.high == 1.0
    assert retrain.harm.value == retrain.harm.low == 0.0
    assert untouched.distance == limits.no_unlearning
    assert untouched.delta_vs_no_unlearning.value == 0.0
    assert untouched.delta_vs_no_unlearning.p == 1.0
    assert (untouched.verdict, retrain.verdict) == (Verdict.AS_NOTHING, Verdict.REACHES_RETRAINING)


def test_forgotten_from_the_shift_where_accuracy_shows_nothing(simulate):
    task = simulate(seed=2)
    for truth, base in zip(task.labels, task.base, strict=True):  # everything is answered right, by everyone
        base["forget"][np.arange(60), truth["forget"]] += 60.0
    references, controls, originals = task.models(), task.models(), task.models(memory=1.0)
    limits = reference_bands(task.labels, references, controls, originals, "match-oracle")
    assert limits.forgetting.metric == "shift.forget"
    population = task.models(memory=0.4)
    found = scored((task, {"references": references}, limits), population).forgotten
    sides = [phi(side[0]["forget"], task.labels[0]["forget"]) for side in (originals, population, controls, references)]
    sigma = np.sqrt(sides[3].var(axis=0, ddof=1).mean())
    shifts = [(side.mean(0) - sides[3].mean(0)).mean() / sigma for side in sides[:3]]
    assert found.value == pytest.approx((shifts[0] - shifts[1]) / (shifts[0] - shifts[2]))
    scale = anchors("shift.forget", originals, controls, references, task.labels)
    assert forgotten_by(population, references, task.labels, scale) == found


def test_forgotten_metric_skips_audited_and_weak_metrics():
    strong, weak = (Reference(original=0.1, original_z=z, feasible=None) for z in (9.0, 1.5))
    both = {"gap.forget": strong, "shift.forget": strong}
    assert forgetting_metric("match-oracle", both) == ("gap.forget", "")
    assert forgetting_metric("match-oracle", both, ("gap.forget",)) == ("shift.forget", "")
    assert forgetting_metric("match-oracle", {"gap.forget": weak, "shift.forget": strong})[0] == "shift.forget"
    metric, reason = forgetting_metric("match-oracle", {"gap.forget": weak, "shift.forget": weak})
    assert metric is None
    assert reason == ("No unlearning is not distinguishable from Retrain (gap.forget z +1.5, shift.forget z +1.5)")
    assert forgetting_metric("erase", {"gap.test-forgotten": strong, **both}) == ("gap.test-forgotten", "")
