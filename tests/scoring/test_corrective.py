"""Scores on the corrective track: models with and without a backdoor, without any training."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.metrics import attack_success, metrics, ranking_metrics
from forgetbench.scoring.bands import IN_ITS_PLACE
from forgetbench.scoring.score import rank, reference_bands, score
from forgetbench.scoring.vocabulary import PARTIAL, REFERENCES, reference_rows

SEEDS, CLASSES, TARGET = 6, 5, 0
ROWS = {"forget": 8, "withheld": 40, "retain": 150, "test": 200, "test-triggered": 120}


def make_labels(rng):
    labels = {name: rng.integers(0, CLASSES, rows) for name, rows in ROWS.items()}
    labels["forget"][:] = labels["withheld"][:] = TARGET
    labels["test-triggered"] = rng.integers(1, CLASSES, ROWS["test-triggered"])
    return labels | {"targets:test-triggered": np.full(ROWS["test-triggered"], TARGET)}


def make_models(labels, rng, backdoor, *, harm=0.0, true=None):
    """Logits of models; ``backdoor`` is the share of triggered and poisoned images that get the target."""
    population = {}
    for name, rows in ROWS.items():
        answers = np.tile(labels[name] if name not in ("forget", "withheld") else true[name], (SEEDS, 1))
        if name in ("forget", "withheld", "test-triggered"):
            answers = np.where(rng.random((SEEDS, rows)) < backdoor, TARGET, answers)
        wrong = rng.random((SEEDS, rows)) < 0.03 + (harm if name in ("test", "retain") else 0.0)
        answers = np.where(wrong, rng.integers(0, CLASSES, (SEEDS, rows)), answers)
        population[name] = rng.normal(0, 0.5, (SEEDS, rows, CLASSES)) + 5.0 * np.eye(CLASSES)[answers]
    return [population]


@pytest.fixture(scope="module")
def board():
    rng = np.random.default_rng(7)
    labels = make_labels(rng)
    true = {name: rng.integers(1, CLASSES, ROWS[name]) for name in ("forget", "withheld")}
    sides = {
        role: make_models(labels, rng, share, true=true)
        for role, share in (("original", 0.97), ("reference", 0.0), ("control", 0.0), ("partial", 0.9), ("half", 0.5))
    }
    sides["harmed"] = make_models(labels, rng, 0.0, harm=0.3, true=true)
    bands = reference_bands([labels], sides["reference"], sides["control"], sides["original"], "corrective")
    cards = {
        role: score(
            side,
            name=role,
            references=sides["reference"],
            originals=sides["original"],
            labels=[labels],
            bands=bands,
        )
        for role, side in sides.items()
        if role != "reference"
    }
    return labels, sides, bands, cards


def test_attack_success_counts_answers_of_target(board):
    labels, sides, _, cards = board
    logits, hits = sides["half"][0]["test-triggered"], 0
    for model in logits:
        for row, target in zip(model, labels["targets:test-triggered"], strict=True):
            hits += sorted(range(CLASSES), key=lambda k, row=row: -row[k])[0] == target
    value = cards["half"].metrics["attack-success"]
    assert value.value == pytest.approx(hits / logits[..., 0].size)
    assert value.low < value.value < value.high
    gap = cards["half"].metrics["gap.attack-success"]
    assert gap.value == pytest.approx(value.value - value.band.mean, abs=0.02)
    corrected = (logits.argmax(-1) == labels["test-triggered"]).mean()
    assert cards["half"].metrics["accuracy.test-triggered"].value == pytest.approx(corrected)


def test_goal_oracle_is_inside_and_partial_retraining_is_not(board):
    _, _, bands, cards = board
    assert bands.unranked_reason == ""
    assert bands.ranking == ("gap.attack-success", "gap.test-triggered", "gap.retain", "gap.test")
    assert all(bands.references[name].feasible for name in IN_ITS_PLACE)
    assert "lira.retain" not in bands.ranking
    assert bands.forgetting.metric == "gap.attack-success"
    assert cards["control"].distance.within_band
    assert cards["control"].forgotten.value == pytest.approx(1, abs=0.05)
    assert cards["original"].forgotten.value == pytest.approx(0, abs=1e-9)
    assert not cards["partial"].distance.within_band
    for role in ("original", "partial", "half"):
        assert "under-forgotten" in cards[role].flags
        assert cards[role].sides["gap.test-triggered"] == "under-forgotten"
    assert cards["partial"].distance.value < cards["original"].distance.value


def test_rows_rank_by_distance_to_goal(board):
    _, _, _, cards = board
    order = ("half", "partial", "original")
    rows = {
        card.name: row
        for card, row in zip([cards[name] for name in order], rank([cards[name] for name in order]).rows, strict=True)
    }
    assert rows["half"].low <= rows["partial"].low <= rows["original"].low
    assert cards["half"].distance.value < cards["partial"].distance.value < cards["original"].distance.value
    assert "harmed" in cards["harmed"].flags
    assert cards["harmed"].harm.value > 0.15


def test_other_tracks_rank_as_before():
    for track in ("match-oracle", "erase"):
        names = [spec.name for spec in ranking_metrics(track)]
        assert not {"gap.attack-success", "gap.test-triggered", "gap.withheld"} & set(names)
        assert reference_rows(track) == REFERENCES
    assert reference_rows("corrective") == (*REFERENCES, PARTIAL)
    assert [metrics.get(name).role("corrective") for name in ("gap.test", "gap.retain", "lira.forget")] == [
        "harm",
        "harm",
        None,
    ]


def test_attack_success_refuses_rows_without_targets(board):
    labels, sides, _, _ = board
    with pytest.raises(UsageError, match="not defined without rows"):
        attack_success(np.zeros((2, 0, 3)), np.zeros(0, int))
    bare = {name: array for name, array in labels.items() if not name.startswith("targets:")}
    bands = reference_bands([bare], sides["reference"], sides["control"], sides["original"], "corrective")
    assert "targets:test-triggered" in bands.references["gap.attack-success"].reason
    assert bands.forgetting.metric == "gap.test-triggered"
    assert {*IN_ITS_PLACE, "gap.test-triggered"} < set(bands.ranking)


def test_labels_of_harmful_rows_rank_without_attack_success(board):
    """Where it failed the audit, or where nothing shows on test images, as of wrong labels at random."""
    labels, sides, _, _ = board
    reference = (sides["reference"], sides["control"], sides["original"])
    unfit = reference_bands([labels], *reference, "corrective", excluded_metrics={"gap.attack-success": "unfit"})
    assert {*IN_ITS_PLACE} < set(unfit.ranking)
    hidden = [[{name: array for name, array in draw.items() if "triggered" not in name} for draw in side]
              for side in ([labels], *reference)]  # fmt: skip
    assert {*IN_ITS_PLACE} < set(reference_bands(*hidden, "corrective").ranking)
