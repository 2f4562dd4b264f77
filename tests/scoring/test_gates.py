"""The utility gate and the flags, at and around their thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.scoring.gates import gate_of, pass_gate
from forgetbench.scoring.score import reference_bands, score


def answers(labels, right, *, classes=2, order=None):
    """Models that get the first ``right[s]`` test rows (of ``order``) right."""
    rows = len(labels)
    order = np.arange(rows) if order is None else order
    logits = np.zeros((len(right), rows, classes))
    for model, count in enumerate(right):
        hit = np.isin(np.arange(rows), order[:count])
        logits[model, np.arange(rows), np.where(hit, labels, 1 - labels)] = 5.0
    return [{"test": logits}]


LABELS = [{"test": np.tile([0, 1], 500)}]
TRUTH = LABELS[0]["test"]


def test_gate_thresholds_by_hand():
    oracle, control = answers(TRUTH, [900, 910, 890]), answers(TRUTH, [900, 920, 880])
    gate = gate_of(answers(TRUTH, [950, 950, 950]), [oracle, control], LABELS)
    sd = np.std([0.90, 0.91, 0.89, 0.90, 0.92, 0.88], ddof=1)
    assert gate.reference == pytest.approx(0.90)
    assert gate.floor == pytest.approx(0.90 - 2 * sd)
    assert gate.seed_floor == pytest.approx(0.90 - 5 * sd)
    assert [(cell.kind, cell.key, cell.rows) for cell in gate.classes] == [("class", 0, 500), ("class", 1, 500)]
    tight = gate_of(answers(TRUTH, [800] * 3), [answers(TRUTH, [900] * 3)], LABELS)
    assert (tight.reference, tight.floor, tight.seed_floor) == pytest.approx((0.80, 0.79, 0.75))


def test_gate_mean_below_the_floor_is_harm():
    gate = gate_of(answers(TRUTH, [900] * 3), [answers(TRUTH, [900] * 3)], LABELS)
    assert not pass_gate(answers(TRUTH, [890] * 3), LABELS, gate).harmed
    found = pass_gate(answers(TRUTH, [889, 890, 890]), LABELS, gate)
    assert (found.harmed, found.collapsed) == (True, False)
    assert found.reasons == ("test accuracy 88.97% is below 89.00%",)
    assert not found.unstable


def test_gate_one_low_seed_is_unstable():
    gate = gate_of(answers(TRUTH, [900] * 3), [answers(TRUTH, [900] * 3)], LABELS)
    found = pass_gate(answers(TRUTH, [930, 930, 849]), LABELS, gate)
    assert (found.harmed, found.unstable, found.unstable_models, found.models) == (False, True, 1, 3)
    assert found.median == pytest.approx(0.93)
    assert not pass_gate(answers(TRUTH, [930, 930, 850]), LABELS, gate).unstable


def test_gate_lost_class_is_harm():
    base = answers(TRUTH, [700] * 3)
    gate = gate_of(base, [base], LABELS)
    ones_first = np.argsort(-TRUTH, kind="stable")  # all of class 1 right, the rest of class 0
    found = pass_gate(answers(TRUTH, [720] * 3, order=ones_first), LABELS, gate)
    assert (found.harmed, found.collapsed) == (True, False)
    assert found.reasons == ("test accuracy of class 0 is 44.0%, below 50.0%",)


def test_gate_small_class_is_ignored_group_is_not():
    labels = [{"test": np.r_[np.zeros(951, int), np.ones(49, int)], "groups:test": np.repeat([7, 8], [900, 100])}]
    truth = labels[0]["test"]
    base = answers(truth, [1000] * 2)
    gate = gate_of(base, [base], labels)
    assert [(cell.kind, cell.key) for cell in gate.classes] == [("class", 0), ("group", 7), ("group", 8)]
    lost = np.r_[np.arange(930), np.arange(951, 1000), np.arange(930, 951)]
    assert not pass_gate(answers(truth, [995] * 2, order=lost), labels, gate).harmed
    group = pass_gate(answers(truth, [1000 - 21] * 2, order=lost), labels, gate)
    assert any("group 8" in reason for reason in group.reasons)


def test_gate_forgotten_classes_and_groups_have_no_floor():
    truth = {"test": TRUTH, "groups:test": TRUTH + 5, "forget": np.ones(9, int), "groups:forget": np.full(9, 6)}
    kept = truth | {"retain": np.zeros(9, int), "groups:retain": np.full(9, 5)}
    base = answers(TRUTH, [900] * 3)
    for labels, expected in ((truth, [0, 1, 5, 6]), (kept, [0, 5])):
        assert [cell.key for cell in gate_of(base, [base], [labels]).classes] == expected


def test_gate_chance_is_the_most_frequent_class_or_one_in_k():
    skewed = [{"test": np.repeat([0, 1, 2], [700, 200, 100])}, {"test": np.repeat([0, 1, 2], [100, 400, 500])}]
    models = [{"test": np.zeros((3, 1000, 3))} for _ in skewed]
    assert gate_of(None, [models], skewed).chance == pytest.approx((0.7 + 0.5) / 2)
    few = [{"test": np.repeat([0, 1], 50)}]
    assert gate_of(None, [[{"test": np.zeros((3, 100, 2))}]], few).chance == 0.5
    attributes = [{"test": np.stack([np.arange(100) < 80, np.arange(100) < 30], axis=1).astype(int)}]
    assert gate_of(None, [[{"test": np.zeros((3, 100, 2))}]], attributes).chance == pytest.approx((0.8 + 0.7) / 2)


def test_gate_more_than_half_beyond_chance_lost_is_collapse():
    labels = [{"test": np.repeat([0, 1], [600, 400])}]
    truth = labels[0]["test"]
    base = answers(truth, [900] * 4)
    gate = gate_of(base, [base], labels)
    assert (gate.chance, gate.collapse_floor) == pytest.approx((0.6, 0.75))  # with 1/K it would be 0.7
    at, below = (pass_gate(answers(truth, [right] * 4), labels, gate) for right in (750, 749))
    assert (at.collapsed, at.harmed) == (False, True)
    assert below.collapsed
    assert below.reasons[0] == (
        "test accuracy 74.9% is below 75.0%: more than half of what the reference (90.0%) knows beyond chance (60.0%) "
        "is lost"
    )


def test_gate_half_of_the_seeds_lost_is_collapse():
    base = answers(TRUTH, [900] * 4)
    gate = gate_of(base, [base], LABELS)
    one, two = (
        pass_gate(answers(TRUTH, rights), LABELS, gate) for rights in ([950, 950, 950, 600], [950, 950, 600, 600])
    )
    assert (one.collapsed, one.unstable) == (False, True)
    assert two.collapsed
    assert two.reasons[0].startswith("test accuracy is below 70.0% in 2 of 4 seeds")


def test_gate_noise_near_chance_is_no_collapse():
    base = answers(TRUTH, [505] * 3)
    gate = gate_of(base, [base], LABELS)
    assert gate.collapse_floor == gate.floor  # half of 0.5 points is less than the margin of harm
    assert not pass_gate(answers(TRUTH, [500] * 3), LABELS, gate).collapsed


@pytest.fixture
def board(simulate):
    task = simulate(seed=3)
    references, originals = task.models(), task.models(memory=2.0)
    bands = reference_bands(task.labels, references, task.models(), originals, "match-oracle")

    def scored(population):
        return score(population, name="x", references=references, labels=task.labels, bands=bands)

    return task, scored


def test_flags_sides_of_forgetting(board):
    task, scored = board
    assert scored(task.models(memory=1.5)).flags == ("under-forgotten",)
    assert scored(task.models(memory=-1.5)).flags == ("over-forgotten",)


def test_flags_uniform_outputs_are_over_forgotten(board):
    task, scored = board
    population = task.models()
    population[0]["forget"] = task.generator.normal(0, 0.01, population[0]["forget"].shape)
    assert "over-forgotten" in scored(population).flags


def test_flags_copies_of_oracles_are_suspicious(simulate):
    task = simulate(seed=4)
    references = task.models()
    bands = reference_bands(task.labels, references, task.models(), task.models(memory=2.0), "match-oracle")
    copies = [{name: array + task.generator.normal(0, 1e-3, array.shape) for name, array in references[0].items()}]
    card = score(copies, name="copy", references=references, labels=task.labels, bands=bands)
    assert "suspicious" in card.flags
    assert card.distance.value >= abs(card.metrics["lira.forget"].z)  # and it does not make a row better


def test_flags_collapse(board):
    task, scored = board
    card = scored(task.models(memory=-3.0, retain=-1.0, test=-1.0))
    assert {"collapsed", "over-forgotten", "unstable"} <= set(card.flags)
    assert "harmed" not in card.flags
    assert card.exclusion_reason.startswith("collapsed: test accuracy")
