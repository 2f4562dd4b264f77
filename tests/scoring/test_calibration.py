"""The error rates that the protocol promises, on simulated boards of one law."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
from scipy import stats

from forgetbench.scoring.score import rank, reference_bands, score

BOARDS = 1000
JUST_SEEN = 300
"""Boards whose originals remember about as much as can just be seen."""
EQUAL = (2, 5, 10, 20)
"""Counts of equal contestants; the smaller are the first of the larger, so that one board serves for all."""
LEVEL = (0.02, 0.08)
"""Within this the family-wise false alarm at a nominal 5 % must lie."""


@dataclass
class Outcome:
    """What one board said."""

    false: bool
    """Fresh oracles were outside the family band."""
    feasible: bool
    """Something was declared to tell No unlearning from the oracles."""
    found: bool
    """No unlearning was outside the family band."""
    separated: dict = field(default_factory=dict)
    """Count of equal contestants -> whether the first was separated from any; only on a board that ranks."""


def outcome(simulate, seeds, equal, memory, board):
    """One board: references, controls, fresh oracles, originals that remember so much, and equal contestants."""
    task = simulate(seeds=seeds, rows={"forget": 50, "retain": 80, "test": 120}, classes=4, seed=board)
    if memory is None:  # about as much as can just be seen
        memory = float(np.random.default_rng(board).uniform(0.1, 0.9))
    references, controls, fresh, originals = task.models(), task.models(), task.models(), task.models(memory=memory)
    bands = reference_bands(task.labels, references, controls, originals, "match-oracle", ranking_only=True)
    scored = partial(score, name="x", references=references, labels=task.labels, bands=bands, ranking_only=True)
    found = Outcome(
        false=not scored(fresh).distance.within_band,
        feasible=not bands.unranked_reason,
        found=not scored(originals).distance.within_band,
    )
    cards = [scored(task.models(memory=0.7)) for _ in range(max(equal, default=0))]
    for count in equal if found.feasible else ():
        rows = [row for row in rank(cards[:count]).rows if row.rank is not None]
        found.separated[count] = any(row.index == 0 and (row.low, row.high) != (1, len(rows)) for row in rows)
    return found


def outcomes(simulate, seeds, boards, *, equal=(), memory=2.0, first=0):
    """All boards, many of them on all cores; each has a seed of its own: it does not matter where it is made."""
    work = partial(outcome, simulate, seeds, equal, memory)
    if boards < 100:
        return [work(board) for board in range(first, first + boards)]
    with multiprocessing.get_context("fork").Pool() as pool:
        return pool.map(work, range(first, first + boards), chunksize=5)


@pytest.mark.parametrize(("seeds", "boards"), [(6, 20), (10, 10)])
def test_fresh_oracles_fall_outside_in_4_percent_of_boards(simulate, seeds, boards):
    found = outcomes(simulate, seeds, boards, equal=(2, 5))
    assert stats.binomtest(sum(one.false for one in found), boards, LEVEL[1], alternative="greater").pvalue > 0.01
    feasible = [one for one in found if one.feasible]
    assert len(feasible) > 0.9 * boards
    assert all(one.found for one in feasible)
    for count in (2, 5):
        separated = sum(one.separated[count] for one in feasible)
        assert stats.binomtest(separated, len(feasible), 0.08, alternative="greater").pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [6, 10])
def test_error_rates_over_a_thousand_boards(simulate, seeds):
    found = outcomes(simulate, seeds, BOARDS, equal=EQUAL, first=10_000)
    false = sum(one.false for one in found) / BOARDS
    separated = {count: sum(one.separated.get(count, False) for one in found) / BOARDS for count in EQUAL}
    said = f"false alarms {false:.3f}, false separations {separated}"
    assert LEVEL[0] <= false <= LEVEL[1], said
    assert all(one.feasible and one.found for one in found), said
    assert max(separated.values()) <= LEVEL[1], said


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [6, 10])
def test_no_unlearning_is_found_on_feasible_boards(simulate, seeds):
    found = outcomes(simulate, seeds, JUST_SEEN, memory=None, first=90_000)
    feasible = [one for one in found if one.feasible]
    assert 0.2 * JUST_SEEN < len(feasible) < 0.95 * JUST_SEEN  # some can just be seen, and some cannot
    assert sum(one.found for one in feasible) == len(feasible)
