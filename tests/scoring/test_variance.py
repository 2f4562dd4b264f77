"""Variance of training and of unlearning, by hand and on simulated values."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.scoring.scorecards import Distance, Scorecard, Value
from forgetbench.scoring.variance import split_variance, with_variance


def test_split_variance_by_hand() -> None:
    # runs of an original differ by 2: variance 2; means 1 and 5: variance 8, minus half of 2
    found = split_variance(np.array([[0.0, 4.0], [2.0, 6.0]]))
    assert found.unlearning == pytest.approx(np.sqrt(2))
    assert found.training == pytest.approx(np.sqrt(7))
    assert found.repeats == 2


def test_split_variance_recovers_both_parts() -> None:
    random = np.random.default_rng(0)
    values = 3.0 * random.normal(size=(1, 4000)) + 0.5 * random.normal(size=(3, 4000))
    found = split_variance(values)
    assert found.training == pytest.approx(3.0, rel=0.05)
    assert found.unlearning == pytest.approx(0.5, rel=0.05)


def test_split_variance_of_a_method_without_seeds_is_training() -> None:
    found = split_variance(np.array([[0.1, 0.5], [0.1, 0.5]]))
    assert found.unlearning == 0
    assert found.training == pytest.approx(np.std([0.1, 0.5], ddof=1))


@pytest.mark.parametrize("shape", [(1, 3), (3, 1)])
def test_split_variance_needs_two_of_both(shape: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="2 runs on each of 2 originals"):
        split_variance(np.zeros(shape))


def card(*seeds: float, status: str = "ok") -> Scorecard:
    distance = Distance(value=1.0, low=0.0, high=2.0, metric="gap.test", pseudo_values=seeds, within_band=True)
    value = Value(value=float(np.mean(seeds)), seeds=seeds)
    metrics = {"gap.test": value, "js": Value(value=1.0)}
    return Scorecard(name="row", track="erase", seeds=2, draws=1, status=status, metrics=metrics, distance=distance)


def test_scorecard_has_the_split_of_what_has_seeds() -> None:
    found = with_variance(card(0.0, 4.0), [card(2.0, 6.0)])
    assert found.variance.keys() == {"gap.test", "distance"}
    assert found.variance["distance"].unlearning == pytest.approx(np.sqrt(2))
    assert Scorecard.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("others", [[], [card(1.0, 2.0, status="failed")]])
def test_scorecard_without_repeats_has_no_split(others: list[Scorecard]) -> None:
    assert with_variance(card(0.0, 4.0), others).variance == {}
