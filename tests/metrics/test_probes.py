"""The linear probe and its ratio."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.metrics import Rows, linear_probe, recoverability


def features(generator, separable):
    rows = {}
    for name, counts in {"train": 60, "validation": 20, "forgotten": 30}.items():
        labels = np.repeat([0, 1, 2], counts) if name != "forgotten" else np.full(counts, 2)
        centers = np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 4.0 if separable else 0.0]])
        rows[name] = Rows(generator.normal(size=(len(labels), 2)) + centers[labels], labels)
    return rows["train"], rows["validation"], rows["forgotten"]


def test_linear_probe_reads_separable_features():
    generator = np.random.default_rng(5)
    there, gone = linear_probe(*features(generator, True)), linear_probe(*features(generator, False))
    assert there.accuracy > 0.9
    assert gone.accuracy < 0.75
    assert there.shuffled < 0.75
    assert linear_probe(*features(np.random.default_rng(6), True)) == linear_probe(
        *features(np.random.default_rng(6), True)
    )


def test_linear_probe_mismatched_rows_are_refused():
    train, validation, forgotten = features(np.random.default_rng(7), True)
    with pytest.raises(UsageError, match="lack a forgotten class"):
        linear_probe(train, validation, Rows(forgotten.features, forgotten.labels + 1))
    with pytest.raises(UsageError, match="one class each"):
        linear_probe(Rows(train.features[1:], train.labels), validation, forgotten)


def test_recoverability_by_hand():
    assert recoverability([0.75], [0.60], [0.90]) == pytest.approx(0.5)
    assert recoverability([0.75], [0.90], [0.91]) is None
