"""On an embedded task: oracles that are in no band fall outside the family band as seldom as the protocol promises."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.scoring.score import reference_bands, score
from forgetbench.suite import Options, extra_oracles, run
from forgetbench.tasks import read_task

POOL = 96
"""Oracles that are trained; each board takes three sets out of them, so that boards are not independent."""
BOARDS = 300


@pytest.mark.slow
def test_unused_oracles_of_a_task_are_seldom_outside_its_family_band(own_home):
    task, options = read_task("digits/cnn/mislabelled-20"), Options()
    [done] = run([task], lambda _: [], options)
    [pool] = extra_oracles(task.with_counts(seeds=POOL), options)
    originals = [
        {name: logits for name, logits in draw.items() if name in pool} for draw in done.pack.population("originals")
    ]
    random, outside = np.random.default_rng(3), 0
    for _ in range(BOARDS):
        order = random.permutation(POOL)[: 3 * task.seeds]
        references, controls, fresh = (
            [{name: logits[rows] for name, logits in pool.items()}] for rows in order.reshape(3, task.seeds)
        )
        bands = reference_bands(
            done.pack.labels, references, controls, originals, done.pack.card.track, ranking_only=True
        )
        card = score(
            fresh, name="fresh", references=references, labels=done.pack.labels, bands=bands, ranking_only=True
        )
        outside += not card.distance.inside
    assert 1 <= outside <= 0.08 * BOARDS
