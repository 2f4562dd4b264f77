"""On an embedded task: oracles that are in no band fall outside the family band as seldom as the protocol promises."""

from __future__ import annotations

import multiprocessing
from functools import partial

import numpy as np
import pytest

from forgetbench.runner.config import RunConfig
from forgetbench.runner.run import run, train_audit_oracles
from forgetbench.scoring.score import reference_bands, score
from forgetbench.tasks.task import read_task

POOL = 96
"""Oracles that are trained. Each board takes three sets of S out of them, so that boards are not independent."""
BOARDS = 1000
LEVEL = (0.02, 0.08)
"""Within this the family-wise false alarm at a nominal 5 % must lie, with as many oracles as one likes."""


def is_outside(pool, labels, originals, track, seeds, board):
    """Whether a third set of oracles is outside the family band of two others."""
    order = np.random.default_rng([3, board]).permutation(POOL)[: 3 * seeds]
    references, controls, fresh = (
        [{name: logits[rows] for name, logits in pool.items()}] for rows in order.reshape(3, seeds)
    )
    bands = reference_bands(labels, references, controls, originals, track, ranking_only=True)
    card = score(fresh, name="fresh", references=references, labels=labels, bands=bands, ranking_only=True)
    return not card.distance.within_band


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """One home for both counts of seeds, so that the pool is trained once."""
    return RunConfig(home=tmp_path_factory.mktemp("home"))


def outside(options, seeds):
    """Share of boards on which fresh oracles are outside."""
    task = read_task("faces/cnn/random-10").with_counts(seeds=seeds)
    [done] = run([task], lambda _: [], options)
    [pool] = train_audit_oracles(task.with_counts(seeds=POOL), options)
    originals = [
        {name: logits for name, logits in draw.items() if name in pool}
        for draw in done.reference.population("originals")
    ]
    work = partial(is_outside, pool, done.reference.labels, originals, done.reference.card.track, seeds)
    with multiprocessing.get_context("fork").Pool() as processes:
        return float(np.mean(processes.map(work, range(BOARDS), chunksize=10)))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [6, 10])
def test_family_band_unused_oracles_are_seldom_outside(options, seeds, record_property):
    rate = outside(options, seeds)
    record_property("rate", rate)
    assert LEVEL[0] <= rate <= LEVEL[1]
