"""Board rules: what a metric declares at its function is all that a board needs to show it."""

from __future__ import annotations

import numpy as np
import pytest
from support.boards import Simulation

from forgetbench.errors import UsageError
from forgetbench.metrics import MetricSpec, metric, metrics
from forgetbench.metrics.board_rules import Draw, LogitsRule, PerModelRule, PerSeedRule
from forgetbench.metrics.registry import declarations
from forgetbench.scoring.score import reference_bands, score


def spec(**fields):
    texts = dict.fromkeys(("title", "meaning", "misses", "misuse", "formula", "example", "source"), "text")
    default = {"name": "mean-logit", "group": "utility", "unit": "", "requires": ("forget",)}
    return MetricSpec(**default | texts | fields)


@pytest.fixture
def declare():
    """Declares a metric until the end of the test."""
    before = len(declarations)

    def declare(function, board, **fields):
        return metric(spec(range=(None, None), **fields), board=board)(function)

    yield declare
    for declaration in declarations[before:]:
        for each in declaration.specs:
            metrics._targets.pop(each.name)
    del declarations[before:]


@pytest.fixture
def task():
    return Simulation(rows={"forget": 20, "retain": 30, "test": 40})


def scored(task):
    """The bands of a board, the scorecard of a contestant, and the logits of both sides."""
    references, controls, originals = task.models(), task.models(), task.models(memory=2.0)
    contestant = task.models(memory=1.0)
    bands = reference_bands(task.labels, references, controls, originals, "match-oracle")
    card = score(contestant, name="x", references=references, labels=task.labels, bands=bands, originals=originals)
    return bands, card, (contestant[0], references[0], originals[0])


def test_logits_rule_function_alone_gets_band_and_interval(task, declare):
    def mean_logit(unlearned, oracle, labels):
        rows = np.arange(len(labels))
        return unlearned[:, rows, labels].mean() - oracle[:, rows, labels].mean()

    declare(mean_logit, LogitsRule("odd"))
    bands, card, (contestant, references, originals) = scored(task)
    labels = task.labels[0]["forget"]
    value, reference = card.metrics["mean-logit"], bands.references["mean-logit"]
    assert value.value == pytest.approx(mean_logit(contestant["forget"], references["forget"], labels))
    assert value.low < value.value < value.high
    assert value.z == pytest.approx((value.value - value.band.mean) / value.band.sd)
    assert reference.original == pytest.approx(mean_logit(originals["forget"], references["forget"], labels))
    assert "mean-logit" not in bands.ranking


def test_logits_rule_declared_efficacy_ranks(task, declare):
    def mean_logit(unlearned, oracle, labels):
        rows = np.arange(len(labels))
        return unlearned[:, rows, labels].mean() - oracle[:, rows, labels].mean()

    declare(mean_logit, LogitsRule("odd"), efficacy=("match-oracle",))
    bands, card, _ = scored(task)
    assert "mean-logit" in bands.ranking
    assert card.distance is not None


def test_logits_rule_error_becomes_the_reason(task, declare):
    def undefined(unlearned, oracle, labels):
        raise UsageError("undefined: no reason at all")

    declare(undefined, LogitsRule())
    bands, card, _ = scored(task)
    assert "mean-logit" not in bands.bands
    assert card.metrics["mean-logit"].value is None
    assert card.metrics["mean-logit"].reason == "undefined: no reason at all"


def test_logits_rule_missing_subset_leaves_the_metric_out(task, declare):
    declare(lambda *_: 0.0, LogitsRule(), requires=("unseen",))
    _, card, _ = scored(task)
    assert "mean-logit" not in card.metrics


def test_per_model_rule_shows_the_unlearned_value(task, declare):
    declare(lambda: None, PerModelRule(lambda draw: draw.logits("forget").mean(axis=(1, 2))))
    bands, card, (contestant, references, originals) = scored(task)
    means = [side["forget"].mean(axis=(1, 2)) for side in (contestant, references)]
    value = card.metrics["mean-logit"]
    assert value.value == pytest.approx(means[0].mean())
    assert value.seeds == pytest.approx(means[0])
    assert value.z * value.band.sd == pytest.approx(value.value - value.band.mean)
    assert bands.references["mean-logit"].original == pytest.approx(originals["forget"].mean())


def test_per_model_rule_reads_another_metric(task, declare):
    rule = PerModelRule(lambda draw: 2 * draw.values["mia.loss"], reads=("mia.loss",))
    declare(lambda: None, rule)
    _, card, _ = scored(task)
    assert card.metrics["mean-logit"].value == pytest.approx(2 * card.metrics["mia.loss"].value)


def test_per_seed_rule_has_an_interval_but_no_band(task, declare):
    declare(lambda: None, PerSeedRule(lambda populations: populations.unlearned[0]["forget"].mean(axis=(1, 2))))
    _, card, (contestant, _, _) = scored(task)
    value = card.metrics["mean-logit"]
    assert value.value == pytest.approx(contestant["forget"].mean())
    assert value.low < value.value < value.high
    assert value.band is None


def test_metric_same_name_twice_is_refused(declare):
    declare(lambda: None, None)
    with pytest.raises(Exception, match="registered twice"):
        declare(lambda: None, None)


def test_draw_pools_its_sides_and_computes_phi_once():
    labels = {"forget": np.array([0, 1])}
    sides = [{"forget": np.zeros((2, 2, 3))}, {"forget": np.ones((3, 2, 3))}]
    draw = Draw(sides, labels)
    assert draw.logits("forget").shape == (5, 2, 3)
    assert draw.phi("forget") is draw.phi("forget")
    assert draw.has("forget")
    assert not draw.has("forget", "test")
    with pytest.raises(UsageError, match="rows and outputs"):
        Draw([sides[0], {"forget": np.ones((3, 2, 4))}], labels).logits("forget")


@pytest.mark.parametrize(
    ("unit", "signed", "value", "text", "shown"),
    [
        ("share", False, 0.1234, "12.3", "%"),
        ("share", True, 0.1234, "+12.3", "points"),
        ("sd", True, -1.23456, "-1.235", "sd"),
        ("", False, 1.5, "1.500", ""),
    ],
)
def test_display_scales_rounds_and_signs(unit, signed, value, text, shown):
    display = spec(unit=unit, signed=signed).display
    assert (display.text(value), display.unit) == (text, shown)
