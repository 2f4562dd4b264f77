"""Selectors, on answers whose worth is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.tuning.selectors import by_distance, development_bands, oracle_free

CLASSES, SEEDS = 4, 2


def answers(right: dict[str, np.ndarray], margin: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Logits (S, n, K) that answer a label with a margin."""
    return {
        name: np.stack([np.eye(CLASSES)[labels] * margin[name][:, None] for _ in range(SEEDS)])
        for name, labels in right.items()
    }


def plain(forget_margin: float, validation_right: float = 1.0) -> tuple[dict, dict]:
    """Labels, and a model that is so sure of its forget rows and right on a share of validation."""
    random = np.random.default_rng(0)
    labels = {name: np.arange(n) % CLASSES for name, n in (("forget", 40), ("retain", 80), ("validation", 80))}
    said = dict(labels)
    wrong = np.arange(80) >= 80 * validation_right
    said["validation"] = np.where(wrong, (labels["validation"] + 1) % CLASSES, labels["validation"])
    margin = {name: random.normal(3, 1, len(rows)) for name, rows in labels.items()}
    margin["forget"] = random.normal(forget_margin, 1, 40)
    return labels, answers(said, margin)


def test_oracle_free_prefers_forget_set_like_validation():
    labels, alike = plain(3)
    _, known = plain(9)
    judged = [oracle_free([model], [known], [labels], mislabelled=False) for model in (alike, known)]
    assert judged[0].value < 0.15
    assert judged[1].value == pytest.approx(0.5, abs=0.01)  # an AUC of 1: every forget row is surer
    assert judged[1].parts["drop"] == 0
    assert {one.utility for one in judged} == {"ok"}


def test_oracle_free_accuracy_drop_is_added_or_lowers_utility():
    labels, known = plain(3)
    _, harmed = plain(3, validation_right=0.95)
    _, worse = plain(3, validation_right=0.7)
    _, broken = plain(3, validation_right=0.5)
    whole, less, far, lost = (
        oracle_free([model], [known], [labels], mislabelled=False) for model in (known, harmed, worse, broken)
    )
    assert less.parts["drop"] == pytest.approx(0.05)
    assert lost.parts["drop"] == pytest.approx(0.5)
    assert [one.utility for one in (whole, less, far, lost)] == ["ok", "ok", "harmed", "collapsed"]


def test_oracle_free_mislabelled_is_matched_by_wrong_labels():
    labels, model = plain(3)
    true = labels["forget"]
    labels = {**labels, "forget": (true + 1) % CLASSES}
    oracle = {**model, "forget": np.eye(CLASSES)[true][None].repeat(SEEDS, 0) * 3.0}
    memorised = {**model, "forget": np.eye(CLASSES)[labels["forget"]][None].repeat(SEEDS, 0) * 3.0}
    judged = [oracle_free([one], [memorised], [labels], mislabelled=True) for one in (oracle, memorised)]
    assert judged[0].parts["auc"] == pytest.approx(0.5, abs=0.1)
    assert judged[1].parts["auc"] > 0.99
    # met by right labels, what was memorised would look like an unseen row, and an oracle like none
    plainly = [oracle_free([one], [memorised], [labels], mislabelled=False).value for one in (oracle, memorised)]
    assert plainly[0] > plainly[1]


def test_oracle_free_forgotten_class_counts_what_remains():
    labels, known = plain(3)
    labels = {**labels, "forget": np.full(40, 3), "retain": np.arange(81) % 3}
    gone = {**known, "validation": np.where(labels["validation"] == 3, 0, labels["validation"])}
    gone["validation"] = np.eye(CLASSES)[gone["validation"]][None].repeat(SEEDS, 0) * 3.0
    judged = [oracle_free([one], [known], [labels], mislabelled=False) for one in (gone, known)]
    assert judged[0].parts["drop"] == 0
    assert judged[0].parts["left"] == 0
    assert judged[1].parts["left"] == 1
    assert judged[0].utility == "ok"


def test_oracle_selector_is_the_development_distance():
    random = np.random.default_rng(1)
    labels = {name: np.arange(n) % CLASSES for name, n in (("forget", 60), ("retain", 80), ("validation", 80))}
    labels["test"] = np.arange(200) % CLASSES

    def population(sure: float) -> list[dict[str, np.ndarray]]:
        made = {}
        for name, rows in labels.items():
            strength = sure if name == "forget" else 2.0
            made[name] = random.normal(size=(3, len(rows), CLASSES)) + np.eye(CLASSES)[rows] * strength
        return [made]

    references, controls, originals = population(1), population(1), population(6)
    bands = development_bands([labels], references, controls, originals, "match-oracle")
    near, far = (by_distance(one, references, originals, [labels], bands) for one in (population(1), population(4)))
    assert near.value < 3 < far.value
    assert set(bands.ranking) == set(far.parts)
    assert far.value == pytest.approx(max(abs(z) for z in far.parts.values()), rel=0.5)
