"""Boards: places, ties, and rows that take no place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from forgetbench.errors import UsageError
from forgetbench.scoring.ranking import detectable_difference, differences, reproduced
from forgetbench.scoring.score import rank
from forgetbench.scoring.scorecards import Board, Distance, GateResult, MetricBand, Scorecard, Value
from forgetbench.scoring.statistics import log_pseudo_values, pseudo_values

NORMAL = GateResult(collapsed=False, harmed=False, unstable=False, unstable_models=0, models=6, median=0.9)
COLLAPSED = NORMAL.model_copy(update={"collapsed": True, "reasons": ("test accuracy 10.0% is below 80.0%",)})
NOISE = np.array([-0.3, 0.1, 0.2, -0.1, 0.3, -0.2])


def card(name, distance=None, noise=NOISE, **fields):
    given = {"gate": NORMAL, "track": "match-oracle", "seeds": 6, "draws": 1} | fields
    if distance is not None:
        noise = noise - noise.mean()
        given["distance"] = Distance(
            value=distance, low=None, high=None, metric="js", pseudo_values=tuple(distance + noise), within_band=False
        )
    return Scorecard(name=name, **given)


def test_rank_places_and_ties():
    generator = np.random.default_rng(0)
    cards = [card("c", 9.0), card("a", 1.0, generator.normal(size=6)), card("b", 1.01, generator.normal(size=6))]
    board = rank(cards)
    assert [(row.name, row.index, row.rank, row.low, row.high) for row in board.rows] == [
        ("a", 1, 1, 1, 2),
        ("b", 2, 2, 1, 2),
        ("c", 0, 3, 3, 3),
    ]
    assert Board.model_validate_json(board.model_dump_json()) == board


def test_rank_excluded_rows_come_last_with_a_reason():
    cards = [
        card("failed", status="failed", reason="CUDA error", gate=None),
        card("collapsed", 0.1, gate=COLLAPSED),
        card("good", 5.0),
        card("never", status="not-applicable", reason="transformers only", gate=None),
        card("nan", status="diverged", reason="loss at epoch 2", gate=None),
    ]
    rows = rank(cards).rows
    assert [(row.name, row.rank) for row in rows] == [
        ("good", 1),
        ("collapsed", None),
        ("nan", None),
        ("failed", None),
        ("never", None),
    ]
    assert rows[1].reason == "collapsed: test accuracy 10.0% is below 80.0%"
    assert rows[3].reason == "failed: CUDA error"


def test_rank_ignores_the_order_of_scorecards():
    generator = np.random.default_rng(1)
    cards = [card(f"m{i}", float(i % 4), generator.normal(size=6)) for i in range(9)]
    names = [(row.name, row.rank, row.low, row.high) for row in rank(cards).rows]
    for _ in range(5):
        shuffled = [cards[i] for i in generator.permutation(9)]
        assert [(row.name, row.rank, row.low, row.high) for row in rank(shuffled).rows] == names


def test_rank_informational_board_ranks_no_row():
    why = "5 seeds: a board needs 6 for ranks"
    board = rank([card("b", 2.0, unranked_reason=why), card("a", 1.0, unranked_reason=why)])
    assert board.unranked_reason == why
    assert [(row.name, row.rank, row.reason) for row in board.rows] == [("a", None, why), ("b", None, why)]
    assert [row.detectable is None for row in board.rows] == [False, True]


def test_rank_scorecards_of_different_boards_are_refused():
    with pytest.raises(UsageError, match="different boards"):
        rank([card("a", 1.0), card("b", 1.0, draws=2)])


def test_rank_empty_board():
    assert rank([]).rows == ()


def test_detectable_difference_by_hand():
    left_out = np.array([[3.0, 4.0, 5.0, 3.5, 4.5], [9.0, 8.0, 10.0, 9.5, 8.5]])
    first, second = (pseudo_values(values.mean(), values) for values in left_out)
    logs = [pseudo_values(np.log1p(values.mean()), np.log1p(values)) for values in left_out]
    step = (stats.t.ppf(0.975, 4) + stats.t.ppf(0.8, 4)) * np.std(logs[0] - logs[1], ddof=1) / np.sqrt(5)
    assert detectable_difference(first, second) == pytest.approx(5 * (np.exp(step) - 1))
    with pytest.raises(UsageError, match="two or more seeds, not 5 and 4"):
        detectable_difference(first, second[:4])


def test_detectable_difference_has_80_percent_power():
    generator = np.random.default_rng(4)
    found = []
    for _ in range(600):
        first, noise = 200 + generator.normal(size=10), generator.normal(size=10)
        farther = detectable_difference(200 + generator.normal(size=10), 200 + generator.normal(size=10))
        difference = log_pseudo_values(np.stack([first, 200 + farther + noise]))
        found.append(stats.ttest_1samp(difference[1] - difference[0], 0).pvalue < 0.05)
    assert 0.72 < np.mean(found) < 0.9


def test_rank_detectable_is_of_each_pair_of_neighbors():
    cards = [card("far", 90.0, 40 * NOISE), card("a", 2.0), card("b", 3.0, -NOISE), card("bad", 1.0, gate=COLLAPSED)]
    rows = {row.name: row for row in rank(cards).rows}
    pseudo = {one.name: np.array(one.distance.pseudo_values) for one in cards}
    assert rows["a"].detectable == pytest.approx(detectable_difference(pseudo["a"], pseudo["b"]))
    assert rows["b"].detectable == pytest.approx(detectable_difference(pseudo["b"], pseudo["far"]))
    assert rows["b"].detectable > rows["a"].detectable
    assert rows["far"].detectable is rows["bad"].detectable is None


def test_rank_detectable_is_none_beyond_what_the_metric_reaches():
    band = MetricBand(mean=0.0, low=-0.01, high=0.01, sd=0.001, floor=0.005)
    ranking = {"ranking": ("gap.test",), "metrics": {"gap.test": Value(value=0.0, band=band)}}
    noisy = [
        card("a", 150.0, 99 * NOISE, **ranking),
        card("b", 160.0, -99 * NOISE, **ranking),
        card("c", 170.0, **ranking),
    ]
    first, second, _ = (np.array(one.distance.pseudo_values) for one in noisy)
    assert first.mean() + detectable_difference(first, second) > 200  # 1 / 0.005 is the largest distance
    assert [row.detectable is None for row in rank(noisy).rows] == [True, False, True]


def test_rank_ten_thousand_rows_takes_seconds():
    generator = np.random.default_rng(5)
    cards = [
        card(f"m{i}", float(d), generator.normal(size=6)) for i, d in enumerate(generator.exponential(900, 10_000))
    ]
    rows = rank(cards).rows
    assert [row.rank for row in rows] == list(range(1, 10_001))


def scored(noise, **shift):
    metrics = {}
    for name in ("gap.test", "lira.forget"):
        value = shift.get(name.replace(".", "_"), 0.0)
        metrics[name] = Value(value=value, pseudo_values=tuple(noise + value))
    return card("x", 1.0, noise, ranking=("gap.test", "lira.forget"), metrics=metrics)


def test_differences_are_paired_over_seeds():
    noise = NOISE - NOISE.mean()
    found = differences(scored(noise, gap_test=0.5), scored(noise / 2))
    expected = stats.t.interval(0.95, 5, 0.5, stats.sem(noise / 2))
    assert found["gap.test"] == pytest.approx((0.5, *expected))
    assert found["lira.forget"].value == pytest.approx(0.0)
    assert set(found) == {"gap.test", "lira.forget", "distance"}


def test_reproduced_if_no_difference_shows():
    noise = NOISE - NOISE.mean()
    assert reproduced(scored(noise), scored(-noise))
    assert not reproduced(scored(noise, lira_forget=3.0), scored(-noise))
    assert not reproduced(card("a", 1.0), card("b", 1.0))  # nothing ranks: nothing is borne out
    with pytest.raises(UsageError, match="different boards"):
        differences(card("a", 1.0), card("b", 1.0, draws=3))
