"""Selectors, on answers whose worth is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.metrics.roc import auc
from forgetbench.tuning.selectors import (
    by_distance,
    check_labels,
    development_bands,
    oracle_free,
    pooling_note,
    same_predictions,
)

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


def few(validation: list[int], forget: list[int], retain: list[int]) -> tuple[dict, dict]:
    """Labels with few validation rows, and random answers of one model."""
    random = np.random.default_rng(3)
    labels = {"forget": np.array(forget), "retain": np.array(retain), "validation": np.array(validation)}
    return labels, {name: random.normal(size=(1, len(rows), CLASSES)) for name, rows in labels.items()}


def loss_of(model: dict, labels: dict, name: str) -> np.ndarray:
    logits = model[name][0]
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), labels[name]]


def test_oracle_free_pools_labels_with_few_rows():
    labels, model = few([0] * 6 + [1] * 3 + [2] * 3, [0] * 4 + [1] * 4 + [2] * 8, [0, 1, 2, 3] * 4)
    loss = {name: loss_of(model, labels, name) for name in ("forget", "validation")}
    matched = auc(-loss["forget"][:4], -loss["validation"][:6])
    pooled = auc(-loss["forget"][4:], -loss["validation"][6:])
    found = oracle_free([model], [model], [labels], mislabelled=False)
    assert found.parts["auc"] == pytest.approx((4 * matched + 12 * pooled) / 16)
    note = pooling_note([labels], CLASSES, mislabelled=False)
    assert note.startswith("2 of 3 forgotten labels have fewer than five validation examples")
    check_labels([labels], CLASSES, mislabelled=False)


def test_oracle_free_tiny_pool_is_compared_with_all_rows():
    labels, model = few([0] * 4 + [1] * 2 + [3] * 9, [1] * 5, [0, 1, 2, 3] * 4)
    loss = {name: loss_of(model, labels, name) for name in ("forget", "validation")}
    found = oracle_free([model], [model], [labels], mislabelled=False)
    assert found.parts["auc"] == pytest.approx(auc(-loss["forget"], -loss["validation"]))


def test_oracle_free_class_task_pools_forgotten_classes_only():
    labels, model = few([0] * 20 + [2] * 3 + [3] * 3, [2] * 6 + [3] * 6, [0, 1] * 8)
    loss = {name: loss_of(model, labels, name) for name in ("forget", "validation")}
    found = oracle_free([model], [model], [labels], mislabelled=False)
    assert found.parts["auc"] == pytest.approx(auc(-loss["forget"], -loss["validation"][20:]))


def test_oracle_free_class_task_without_validation_rows():
    labels, model = few([0] * 22 + [2] * 2 + [3] * 2, [2] * 6 + [3] * 6, [0, 1] * 8)
    original = {**model, "validation": np.eye(CLASSES)[labels["validation"]][None]}
    found = oracle_free([model], [original], [labels], mislabelled=False)
    answers = {name: model[name][0].argmax(axis=1) == labels[name] for name in ("forget", "validation")}
    left, drop = answers["forget"].mean(), 1 - answers["validation"][:22].mean()
    assert dict(found.parts) == pytest.approx({"drop": drop, "left": left})
    assert found.value == pytest.approx(drop + left)
    note = pooling_note([labels], CLASSES, mislabelled=False)
    assert "takes the accuracy on the forget set instead of an attack" in note
    check_labels([labels], CLASSES, mislabelled=False)


def test_oracle_free_refuses_fewer_than_five_rows_in_all():
    labels, _ = few([0, 1, 2, 3], [0] * 6, [0, 1, 2, 3] * 4)
    with pytest.raises(UsageError, match=r"at least five validation examples; here there are fewer\."):
        check_labels([labels], CLASSES, mislabelled=False)


def test_pooling_note_is_empty_where_labels_have_rows():
    labels, model = plain(3)
    assert not pooling_note([labels], CLASSES, mislabelled=False)
    assert same_predictions([model], [dict(model)])
    assert not same_predictions([model], [{**model, "forget": model["forget"] + 1}])
