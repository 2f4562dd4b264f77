"""The audit: metrics that put sentinels where they must be pass, metrics that do not are named."""

from __future__ import annotations

import numpy as np
import pytest
from support.boards import Simulation

from forgetbench.auditing.criteria import LINE, agreement, audit, interpolate
from forgetbench.errors import UsageError
from forgetbench.metrics import metrics
from forgetbench.scoring.score import reference_bands, score
from forgetbench.scoring.scorecards import Value


@pytest.fixture(scope="module")
def board():
    task = Simulation(rows={"forget": 60, "retain": 120, "test": 200}, seed=1)
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
        "no-op": scored(nudge),
        "collapse": scored(task.models(memory=-3.0, retain=-1.0, test=-1.0)),
        "relabelled": scored(uniform),
    }
    line = [scored(interpolate(controls, originals, share)) for share in LINE]
    return bands, sentinels, line


def test_audit_sound_task_all_ranking_metrics_fit(board):
    bands, sentinels, line = board
    found = audit(sentinels, bands, line=line, contestants=list(sentinels.values()))
    assert found.excluded_metrics == ()
    whole = {item.sentinel: item.passed for item in found.findings if item.metric is None}
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
    assert all(item.fit == "fit" and item.detectable > 0 for item in ranking)
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_audit_misplaced_sentinel_is_named(board):
    bands, sentinels, _ = board
    card = sentinels["third"]
    broken = card.metrics | {"gap.test": card.metrics["gap.test"].model_copy(update={"z": 9.0})}
    found = audit(sentinels | {"third": card.model_copy(update={"metrics": broken})}, bands)
    assert found.excluded_metrics == ("gap.test",)
    fitness = {item.metric: item for item in found.metrics}["gap.test"]
    assert (fitness.fit, fitness.third) == ("UNFIT", 9.0)
    assert fitness.why == ("third: z +9.00",)


def test_audit_sentinels_that_do_not_move_fail(board):
    bands, sentinels, _ = board
    swapped = sentinels | {
        "retrain": sentinels["none"],
        "none": sentinels["retrain"],
        "collapse": sentinels["third"],
        "relabelled": sentinels["none"],
        "no-op": sentinels["third"],
    }
    found = audit(swapped, bands)
    whole = {item.sentinel: item.passed for item in found.findings if item.metric is None}
    assert whole == {"retrain": False, "third": True, "none": False, "collapse": False, "relabelled": False}
    assert set(found.excluded_metrics) >= {"gap.forget", "lira.forget"}


def test_audit_undistinguished_no_unlearning_is_blind(board):
    bands, sentinels, line = board
    card = sentinels["none"]
    inside = {
        name: card.metrics[name].model_copy(update={"z": 1.93})
        for name in ("mia.loss", "js", "gap.withheld")
        if name in card.metrics
    }
    found = audit(sentinels | {"none": card.model_copy(update={"metrics": card.metrics | inside})}, bands, line=line)
    fitness = {item.metric: item for item in found.metrics}
    for name in ("mia.loss", "js"):
        assert fitness[name].fit == "blind"
        assert fitness[name].why == ("none: z +1.93: indistinguishable from retraining",)
    assert fitness["gap.test"].fit == "fit"  # of harm nothing is demanded of No unlearning


def test_audit_no_unlearning_better_than_retraining_fails(board):
    bands, sentinels, _ = board
    card = sentinels["none"]
    assert {item.metric: item for item in audit(sentinels, bands).metrics}["tow"].fit == "fit"
    better = card.metrics | {"tow": card.metrics["tow"].model_copy(update={"z": 8.0})}
    found = audit(sentinels | {"none": card.model_copy(update={"metrics": better})}, bands)
    fitness = {item.metric: item for item in found.metrics}["tow"]
    assert (fitness.fit, fitness.why) == ("UNFIT", ("none: z +8.00: better than retraining",))


@pytest.mark.parametrize(
    ("sentinel", "metric"),
    [
        ("collapse", "gap.forget"),
        ("collapse", "shift.forget"),
        ("collapse", "gap.test"),
        ("collapse", "gap.retain"),
        ("relabelled", "gap.forget"),
        ("relabelled", "shift.forget"),
    ],
)
def test_audit_collapse_and_relabelled_on_their_side(board, sentinel, metric):
    bands, sentinels, _ = board

    def fitness(cards):
        return {item.sentinel: item.passed for item in audit(cards, bands).findings if item.metric == metric}[sentinel]

    assert fitness(sentinels) is True
    card = sentinels[sentinel]
    value = card.metrics[metric]
    turned = card.metrics | {metric: value.model_copy(update={"z": -value.z})}
    swapped = sentinels | {sentinel: card.model_copy(update={"metrics": turned})}
    assert fitness(swapped) is False
    assert {item.metric: item.fit for item in audit(swapped, bands).metrics}[metric] == "UNFIT"


def test_audit_every_metric_is_judged_or_has_a_reason(board):
    bands, sentinels, line = board
    found = {item.metric: item for item in audit(sentinels, bands, line=line).metrics}
    assert set(found) == {name for name in metrics.names() if metrics.get(name).on_boards}
    assert not {"flops", "re-emergence", "legacy.zrf"} & set(found)
    assert found["accuracy.forget"].fit == "fit"
    assert found["forgetting-quality"].fit == "fit"  # by the spread of its control
    assert found["indiscernibility"].fit in {"fit", "blind"}
    for name, reason in (
        ("zrf", "needs forget, teacher"),
        ("h-mean", "needs test, test-forgotten"),
        ("neurips-score", "neither a band nor values by seed"),
    ):
        assert found[name].fit == "not judged"
        assert reason in found[name].why[0]


def test_audit_metric_without_band_is_judged_by_seeds(board):
    bands, sentinels, _ = board

    def with_values(**seeds):
        cards = dict(sentinels)
        for name, values in seeds.items():
            value = Value(value=float(np.mean(values)), seeds=tuple(values))
            cards[name] = cards[name].model_copy(update={"metrics": cards[name].metrics | {"aus": value}})
        return {item.metric: item for item in audit(cards, bands).metrics}["aus"]

    oracle, other = [0.80, 0.81, 0.79, 0.80, 0.82, 0.78], [0.81, 0.80, 0.80, 0.79, 0.80, 0.80]
    low, high = [0.5, 0.51, 0.5, 0.49, 0.5, 0.5], [0.95, 0.96, 0.95, 0.94, 0.95, 0.95]
    assert with_values(retrain=oracle, third=other, none=low).fit == "fit"
    assert with_values(retrain=oracle, third=other, none=other).fit == "blind"
    better = with_values(retrain=oracle, third=other, none=high)
    assert better.fit == "UNFIT"
    assert better.why[0].endswith("better than retraining")
    assert with_values(retrain=oracle, third=high, none=low).fit == "UNFIT"


def test_audit_falling_line_fails(board):
    bands, sentinels, line = board
    found = audit(sentinels, bands, line=line[::-1])
    assert {item.metric: item.passed for item in found.findings if item.sentinel == "line"}["lira.forget"] is False


def test_audit_excluded_metric_does_not_rank():
    task = Simulation(seed=2)
    populations = task.models(), task.models(), task.models(memory=2.0)
    bands = reference_bands(
        task.labels, *populations, "match-oracle", excluded_metrics={"gap.forget": "third: z +9.00"}
    )
    assert "gap.forget" not in bands.ranking
    assert "gap.forget" in bands.bands
    assert bands.excluded_metrics == ("gap.forget",)
    assert bands.references["gap.forget"].reason == "failed the audit: third: z +9.00"
    none = reference_bands(
        task.labels, *populations, "match-oracle", excluded_metrics=dict.fromkeys(("gap.forget", "lira.forget"), "z")
    )
    assert none.unranked_reason == "every metric that could distinguish No unlearning from the oracles failed the audit"


def test_audit_head_mask_of_a_class_task():
    task = Simulation(rows={"forget": 60, "retain": 120, "test": 200, "test-forgotten": 50}, seed=3)
    references, controls, originals = task.models(), task.models(), task.models(memory=2.0)
    bands = reference_bands(task.labels, references, controls, originals, "erase")
    masked = task.models()
    truth = task.labels[0]["test-forgotten"]
    masked[0]["test-forgotten"][:, np.arange(50), truth] = -1e4
    card = score(masked, name="m", references=references, labels=task.labels, bands=bands, originals=originals)
    found = audit({"head-mask": card}, bands)
    assert [(item.metric, item.passed) for item in found.findings] == [("gap.test-forgotten", True)]
    assert {item.metric: item.fit for item in found.metrics}[
        "gap.test-forgotten"
    ] == "not judged"  # nothing was untouched
    legible = card.metrics | {"probe": Value(value=0.97, z=50.0, band=card.metrics["gap.test"].band)}
    seen = audit(
        {"head-mask": card.model_copy(update={"metrics": legible})},
        bands.model_copy(update={"bands": bands.bands | {"probe": bands.bands["gap.test"]}}),
    )
    assert ("probe", True) in [(item.metric, item.passed) for item in seen.findings]


def test_audit_relabelled_not_judged_if_oracles_disagree(board):
    bands, sentinels, _ = board
    card = sentinels["relabelled"]
    value = card.metrics["accuracy.forget"]
    low = value.model_copy(update={"band": value.band.model_copy(update={"mean": 0.02})})
    found = audit({"relabelled": card.model_copy(update={"metrics": card.metrics | {"accuracy.forget": low}})}, bands)
    assert [item.passed for item in found.findings if item.metric is None] == [None]


def test_agreement_equals_kendalls_tau(board):
    _, sentinels, _ = board
    cards = list(sentinels.values())
    found = agreement(cards, ["gap.forget", "accuracy.forget", "js", "nothing"])
    assert found["gap.forget"]["accuracy.forget"] == pytest.approx(1.0)
    assert found["gap.forget"]["js"] == pytest.approx(found["js"]["gap.forget"])
    assert "nothing" not in found
    assert agreement(cards[:2], ["gap.forget"]) == {}


def test_audit_wrong_calls_are_refused(board):
    bands, sentinels, _ = board
    with pytest.raises(UsageError, match="Unknown sentinel 'retrained'"):
        audit({"retrained": sentinels["retrain"]}, bands)
    with pytest.raises(UsageError, match="share must be in"):
        interpolate([], [], 1.5)
