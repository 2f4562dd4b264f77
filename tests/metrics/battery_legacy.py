"""Published code that deviates, and which properties it has all the same; what a case means stands in battery.py."""

from __future__ import annotations

import numpy as np
from battery import INF, Case, add, certain, even, put

from forgetbench.metrics import published_code as legacy
from forgetbench.metrics import shadow_models as shadow

LEGACY = {
    "legacy.modified_entropy": Case(
        lambda p: legacy.modified_entropy(p, np.arange(len(p)) % 3), "ik", share=True, range=(0, INF), rows="",
        constant=lambda v: v > 0, fewest=0,
        why="which classes are in the batch matters: that is its fault",
    ),
    "legacy.zrf": Case(
        legacy.zrf, "ik ik", range=(-INF, 1), shift=(0,), swap=even, constant=1.0,
        apart=(certain(0, 1), lambda v: not v > -9),
    ),
    "legacy.lira_offline": Case(
        lambda a, b: legacy.lira_offline(a, shadow.fit_normal(b)), "i si", out="i", shift=(0, 1), loose=1e-5,
        more=add(99, -99), constant=lambda v: v < 0, apart=(add(99, -99), lambda v: v > 99),
    ),
    "legacy.fixed_variance": Case(
        lambda a: legacy.fixed_variance(a, np.indices(a.shape)[0] < 2)[1].sd, "si", range=(0, INF),
        out="i", shift=(0,), more=lambda a: [2 * a], constant=0.0,
        apart=(lambda a: [99 * (a * 0 + [[1], [-1], [0], [0]])], 99.0),
    ),
    "legacy.klom": Case(
        legacy.klom, "si ti", range=(0, np.log(1e5 + 20)), out="i", shift=(0, 1), more=lambda a, _: [a, a], sign=-1,
        apart=(lambda a, b: [0 * a + 999, 0 * b], 0.0), rounds=False, ties=False,
        why="where all values are equal none is in a bin, and it is NaN",
    ),
    "legacy.rmia_population": Case(
        legacy.rmia_population, "si", share=True, range=(0, 1), out="i", more=add(0.1), constant=0.5,
        apart=(put(1), 1.0),
    ),
    "legacy.loss_score": Case(
        legacy.loss_score, "i", share=True, range=(-1, 0), out="i", more=add(0.1), sign=-1, constant=-0.5,
        apart=(put(1), -1.0), fewest=0,
    ),
    "legacy.tpr_nearest": Case(
        lambda a, b: legacy.tpr_nearest(a, b, 0.5), "i j", range=(0, 1), rows="ij", shift=(0, 1), more=add(99, None),
        constant=lambda v: v in {0, 1}, apart=(add(99, -99), lambda v: 0 <= v <= 1),
    ),
}  # fmt: skip
