"""Columns: the same bits from float16, block by block, as from all logits at once; with little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.metrics import columns, divergence
from forgetbench.metrics import logit_statistics as statistics
from forgetbench.metrics.accuracy_gap import correct
from forgetbench.metrics.board_rules import Draw
from forgetbench.metrics.columns import Answers


@pytest.fixture(params=["classes", "attributes"])
def answers(request, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", 90)  # two rows at a time
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 4, (3, 41, 15)).astype(np.float16)
    logits[:, 7] = logits[:, 7, :1]  # equal logits
    logits[0, 3, 1:] = -60_000
    shape = (41, 15) if request.param == "attributes" else 41
    return Answers({"forget": logits}, {"forget": generator.integers(0, 2, shape)})


def test_columns_in_blocks_equal_the_definitions(answers):
    logits, truth = answers["forget"].astype(np.float64), answers.labels["forget"]
    attributes = truth.ndim == 2
    margin = statistics.signed_logits(logits, truth) if attributes else statistics.phi(logits, truth)
    expected = {
        "margin": margin,
        "phi": statistics.phi(logits, truth),
        "confidence": statistics.confidence(logits, truth),
        "loss": np.logaddexp(0.0, -margin),
        "entropy": statistics.entropy(logits, attributes=attributes),
        "modified-entropy": statistics.modified_entropy(logits, truth),
        "predicted": divergence.predictions(logits, attributes=attributes),
        "correct": correct(logits, truth),
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(answers.column(name, "forget"), values, err_msg=name)
        assert answers.column(name, "forget") is answers.column(name, "forget")
    if not attributes:
        np.testing.assert_array_equal(answers.column("place", "forget") == 0, correct(logits, truth) == 1)


def test_columns_infinite_logit_names_model_and_row(answers):
    answers["forget"][2, 40, 5] = np.nan
    with pytest.raises(UsageError, match="row 40 of model 2"):
        answers.column("correct", "forget")
    with pytest.raises(UsageError, match="missing on one side"):
        answers.column("phi", "retain")


def test_columns_are_shared_by_draws_with_the_same_labels(answers):
    truth = answers.labels
    draws = [Draw([other, answers], truth) for other in (answers, dict(answers))]
    assert draws[0].sides[1] is draws[1].sides[1] is answers
    assert draws[1].sides[0] is not answers
    np.testing.assert_array_equal(draws[1].column("phi", "forget")[:3], answers.column("phi", "forget"))
    assert Draw([answers], {"forget": truth["forget"]}).sides[0] is not answers


def test_columns_need_less_memory_than_the_logits(monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", 2**14)
    logits = np.random.default_rng(0).normal(0, 4, (2, 3000, 200)).astype(np.float16)
    answers = Answers({"test": logits}, {"test": np.arange(3000) % 200})
    columns.expit(np.zeros(1))  # scipy is imported now
    tracemalloc.start()
    for name in ("correct", "phi", "loss", "confidence", "entropy", "modified-entropy"):
        answers.column(name, "test")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < logits.nbytes  # at once in float64, entropies alone take 24 times as much
