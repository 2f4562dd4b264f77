"""RMIA between two populations."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.metrics import population_rmia


def test_population_rmia_is_signed():
    generator = np.random.default_rng(2)

    def side(move):
        return (
            1 / (1 + np.exp(-generator.normal(1 + move, 1, (6, 80)))),
            1 / (1 + np.exp(-generator.normal(1, 1, (6, 300)))),
        )

    oracle = side(0.0)
    assert population_rmia(side(2.0), oracle) > 0.7
    assert population_rmia(side(-2.0), oracle) < 0.3
    null = [population_rmia(side(0.0), side(0.0)) for _ in range(20)]
    assert np.mean(null) == pytest.approx(0.5, abs=0.03)


def test_population_rmia_max_rows_limits_test_rows():
    generator = np.random.default_rng(3)
    sides = [[generator.uniform(size=(4, n)) for n in (30, 200)] for _ in range(2)]
    few = [(examples, rows[:, ::4]) for examples, rows in sides]
    assert population_rmia(*sides, max_rows=50) == population_rmia(*few) != population_rmia(*sides)
    for limit in (0, -1, 2.5):
        with pytest.raises(UsageError, match=r"^max_rows: "):
            population_rmia(*sides, max_rows=limit)
