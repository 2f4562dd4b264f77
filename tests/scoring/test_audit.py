"""The audit: metrics that put sentinels where they must be pass, metrics that do not are named."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.scoring.audit import LINE, agreement, audit, interpolate
from forgetbench.scoring.score import reference_bands, score
from forgetbench.scoring.scorecards import Value


@pytest.fixture(scope="module")
def board(request):
    simulate = request.getfixturevalue("simulate_once")
    task = simulate(rows={"forget": 60, "retain": 120, "test": 200}, seed=1)
    references, controls, originals = task.models(), task.models(), task.models(memory=2.0)
    bands = reference_bands(task.labels, references, controls, originals, "match-oracle")

    def scored(answers, name="x"):
        return score(answers, name=name, references=references, labels=task.labels, bands=bands, originals=originals)

    uniform = task.models()
    uniform[0]["forget"] = task.generator.normal(0, 0.01, uniform[0]["forget"].shape)
    nudge = [{name: array + task.generator.normal(0, 1e-3, array.shape) for name, array in originals[0].items()}]
    sentinels = {
        "retrain": scored(controls),
        "third": scored(task.models()),
        "none": scored(originals),
        "sham": scored(nudge),
        "collapse": scored(task.models(memory=-3.0, retain=-1.0, test=-1.0)),
        "relabelled": scored(uniform),
    }
    line = [scored(interpolate(controls, originals, share)) for share in LINE]
    return bands, sentinels, line


def test_ranking_metrics_pass_on_a_task_where_all_is_as_it_should_be(board):
    bands, sentinels, line = board
    found = audit(sentinels, bands, line=line, contestants=list(sentinels.values()))
    assert found.unfit == ()
    whole = {item.sentinel: item.passed for item in found.verdicts if item.metric is None}
    assert whole == {
        "retrain": True,
        "third": True,
        "none": True,
        "collapse": True,
        "relabelled": True,
        "line": True,
    }
    ranking = [item for item in found.metrics if item.ranks]
    assert {item.metric for item in ranking} == set(bands.ranking)
    assert all(item.fit and item.detectable > 0 for item in ranking)
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_a_metric_that_misplaces_a_sentinel_is_named(board):
    bands, sentinels, _ = board
    card = sentinels["third"]
    broken = card.metrics | {"gap.test": card.metrics["gap.test"].model_copy(update={"z": 9.0})}
    found = audit(sentinels | {"third": card.model_copy(update={"metrics": broken})}, bands)
    assert found.unfit == ("gap.test",)
    fitness = {item.metric: item for item in found.metrics}["gap.test"]
    assert fitness.failures == ("third: z +9.00",)


def test_sentinels_that_are_not_out_of_place_fail(board):
    bands, sentinels, _ = board
    swapped = sentinels | {
        "retrain": sentinels["none"],
        "none": sentinels["retrain"],
        "collapse": sentinels["third"],
        "relabelled": sentinels["none"],
        "sham": sentinels["third"],
    }
    found = audit(swapped, bands)
    whole = {item.sentinel: item.passed for item in found.verdicts if item.metric is None}
    assert whole == {"retrain": False, "third": True, "none": False, "collapse": False, "relabelled": False}
    assert set(found.unfit) >= {"gap.forget", "lira.forget"}


def test_a_line_that_falls_fails(board):
    bands, sentinels, line = board
    found = audit(sentinels, bands, line=line[::-1])
    assert {item.metric: item.passed for item in found.verdicts if item.sentinel == "line"}["lira.forget"] is False


def test_an_unfit_metric_ranks_no_longer(simulate):
    task = simulate(seed=2)
    populations = task.models(), task.models(), task.models(memory=2.0)
    bands = reference_bands(task.labels, *populations, "match-oracle", unfit={"gap.forget": "third: z +9.00"})
    assert "gap.forget" not in bands.ranking
    assert "gap.forget" in bands.bands
    assert bands.unfit == ("gap.forget",)
    assert bands.references["gap.forget"].reason == "failed the audit: third: z +9.00"
    none = reference_bands(
        task.labels, *populations, "match-oracle", unfit=dict.fromkeys(("gap.forget", "lira.forget"), "z")
    )
    assert none.informational == "every metric that could tell No unlearning from the oracles failed the audit"


def test_head_mask_of_a_class_task(simulate):
    task = simulate(rows={"forget": 60, "retain": 120, "test": 200, "test-forgotten": 50}, seed=3)
    references, controls, originals = task.models(), task.models(), task.models(memory=2.0)
    bands = reference_bands(task.labels, references, controls, originals, "erase")
    masked = task.models()
    truth = task.labels[0]["test-forgotten"]
    masked[0]["test-forgotten"][:, np.arange(50), truth] = -1e4
    card = score(masked, name="m", references=references, labels=task.labels, bands=bands, originals=originals)
    found = audit({"head-mask": card}, bands)
    assert [(item.metric, item.passed) for item in found.verdicts] == [("gap.test-forgotten", True)]
    legible = card.metrics | {"probe": Value(value=0.97, z=50.0, band=card.metrics["gap.test"].band)}
    seen = audit(
        {"head-mask": card.model_copy(update={"metrics": legible})},
        bands.model_copy(update={"bands": bands.bands | {"probe": bands.bands["gap.test"]}}),
    )
    assert ("probe", True) in [(item.metric, item.passed) for item in seen.verdicts]


def test_relabelled_is_not_judged_where_oracles_answer_otherwise(board):
    bands, sentinels, _ = board
    card = sentinels["relabelled"]
    value = card.metrics["accuracy.forget"]
    low = value.model_copy(update={"band": value.band.model_copy(update={"mean": 0.02})})
    found = audit({"relabelled": card.model_copy(update={"metrics": card.metrics | {"accuracy.forget": low}})}, bands)
    assert [item.passed for item in found.verdicts if item.metric is None] == [None]


def test_agreement_is_kendalls(board):
    _, sentinels, _ = board
    cards = list(sentinels.values())
    found = agreement(cards, ["gap.forget", "accuracy.forget", "js", "nothing"])
    assert found["gap.forget"]["accuracy.forget"] == pytest.approx(1.0)
    assert found["gap.forget"]["js"] == pytest.approx(found["js"]["gap.forget"])
    assert "nothing" not in found
    assert agreement(cards[:2], ["gap.forget"]) == {}


def test_wrong_calls(board):
    bands, sentinels, _ = board
    with pytest.raises(UsageError, match="no sentinel 'retrained'"):
        audit({"retrained": sentinels["retrain"]}, bands)
    with pytest.raises(UsageError, match="share in"):
        interpolate([], [], 1.5)
