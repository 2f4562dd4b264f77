"""The probe as a ranking metric of the erase track, from recorded features."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.scoring.score import rank, reference_bands, score

ROWS = {"forget": 40, "retain": 120, "validation": 60, "test": 120, "test-forgotten": 50}
FORGOTTEN = 2


def models(generator, labels, legible, answered):
    """Three classes; the forgotten one stands apart in the features as far as it is legible, and is answered or not."""
    population = {}
    for name, truth in labels.items():
        # Beside their own direction, forgotten rows look like class 0 to whoever cannot read it.
        centers = np.array([[3.0, 0, 0, 0], [0, 3.0, 0, 0], [3.0, 0, legible, 0]])
        features = generator.normal(size=(6, len(truth), 4)) + centers[truth]
        logits = 2 * features[..., :3] + generator.normal(0, 0.1, (6, len(truth), 3))
        logits[..., FORGOTTEN] += 4.0 * answered - 4.0
        population[name] = logits
        if name != "test":
            population[f"features:{name}"] = features.astype(np.float16)
    return [population]


@pytest.fixture(scope="module")
def board():
    generator = np.random.default_rng(0)
    labels = {name: generator.integers(0, 2, count) for name, count in ROWS.items()}
    for name in ("forget", "test-forgotten"):
        labels[name] = np.full(ROWS[name], FORGOTTEN)
    references, controls = (models(generator, labels, 1.0, 0.0) for _ in range(2))
    originals = models(generator, labels, 5.0, 1.0)
    bands = reference_bands([labels], references, controls, originals, "erase")
    contestants = {
        "Retrain": controls,
        "No unlearning": originals,
        "head mask": models(generator, labels, 5.0, -1e4),
        "half": models(generator, labels, 2.0, 0.0),
    }
    cards = {
        name: score(answers, name=name, references=references, labels=[labels], bands=bands, originals=originals)
        for name, answers in contestants.items()
    }
    return bands, cards


def test_probe_is_feasible_and_ranks(board):
    bands, _ = board
    assert bands.references["probe"].feasible
    assert bands.references["probe"].original == pytest.approx(1.0)
    assert bands.ranking[:2] == ("gap.test-forgotten", "probe")


def test_probe_reads_a_masked_head(board):
    _, cards = board
    masked = cards["head mask"]
    assert masked.metrics["accuracy.test-forgotten"].value == 0.0
    assert masked.metrics["probe"].value == pytest.approx(1.0, abs=0.1)
    assert not masked.metrics["probe"].within_band
    assert 0.1 < cards["half"].metrics["probe"].value < 0.95
    assert cards["Retrain"].metrics["probe"].value == pytest.approx(0.0, abs=0.15)
    assert cards["Retrain"].distance.within_band
    assert masked.metrics["probe.shuffled"].value < 0.8
    low, high = masked.metrics["probe"].low, masked.metrics["probe"].high
    assert low < masked.metrics["probe"].value < high


def test_probe_masked_head_ranks_below_retraining(board):
    _, cards = board
    rows = rank(list(cards.values())).rows
    assert rows[0].name == "Retrain"
    assert {row.name: row.low for row in rows}["head mask"] > 1


def test_gate_reads_remaining_classes_only(board):
    _, cards = board
    assert not any(card.gate.collapsed for card in cards.values())
