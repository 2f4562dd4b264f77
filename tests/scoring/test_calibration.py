"""The error rates that the protocol promises, on simulated boards."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from forgetbench.scoring.score import rank, reference_bands, score


def outside(simulate, seeds, boards, first=0):
    """How many fresh sets of oracles fall outside the family band, and how many boards find No unlearning outside."""
    false, found, feasible = 0, 0, 0
    for board in range(first, first + boards):
        task = simulate(seeds=seeds, rows={"forget": 50, "retain": 80, "test": 120}, classes=4, seed=board)
        references, controls, fresh = task.models(), task.models(), task.models()
        originals = task.models(memory=2.0)
        bands = reference_bands(task.labels, references, controls, originals, "match-oracle", ranking_only=True)
        cards = [
            score(answers, name="x", references=references, labels=task.labels, bands=bands, ranking_only=True)
            for answers in (fresh, originals)
        ]
        false += not cards[0].distance.inside
        if not bands.informational:
            feasible += 1
            found += not cards[1].distance.inside
    return false, found, feasible


@pytest.mark.parametrize(("seeds", "boards"), [(6, 20), (10, 10)])
def test_fresh_oracles_are_outside_in_about_one_board_of_twenty_five(simulate, seeds, boards):
    false, found, feasible = outside(simulate, seeds, boards)
    assert stats.binomtest(false, boards, 0.08, alternative="greater").pvalue > 0.01
    assert found == feasible > 0.9 * boards


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [6, 10])
def test_family_wise_error_over_a_thousand_boards(simulate, seeds):
    false, found, feasible = outside(simulate, seeds, 1000, first=10_000)
    assert 0.02 <= false / 1000 <= 0.08
    assert found == feasible


@pytest.mark.slow
@pytest.mark.parametrize("contestants", [2, 5, 10, 20])
def test_equal_contestants_of_whole_boards_are_seldom_separated(simulate, contestants):
    boards, separated = 250, 0
    for board in range(boards):
        task = simulate(rows={"forget": 50, "retain": 80, "test": 120}, classes=4, seed=50_000 + board)
        references = task.models()
        bands = reference_bands(
            task.labels, references, task.models(), task.models(memory=2.0), "match-oracle", ranking_only=True
        )
        cards = [
            score(
                task.models(memory=0.7),
                name=str(k),
                references=references,
                labels=task.labels,
                bands=bands,
                ranking_only=True,
            )
            for k in range(contestants)
        ]
        groups = [row.group for row in rank(cards).rows if row.group is not None]
        separated += max(groups, default=1) > 1
    assert separated / boards <= 0.08 + 2 * np.sqrt(0.08 * 0.92 / boards)
