"""Specs: complete, true to the functions they name, and what docs/metrics.md is made of."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from forgetbench.errors import UsageError
from forgetbench.metrics import MetricSpec, metrics, ranking_metrics
from forgetbench.metrics.docs import metrics_page

ROOT = Path(__file__).parents[2]
NAMES = metrics.names()


@pytest.mark.parametrize("name", NAMES)
def test_spec_says_everything_and_names_a_function(name):
    spec = metrics.get(name)
    assert spec.name == name
    for field in ("title", "symbol", "meaning", "misses", "misuse", "formula", "example", "source"):
        assert getattr(spec, field).strip(), field
    assert "\n" not in spec.meaning + spec.misses
    assert len(spec.meaning) <= 130
    assert spec.requires
    low, high = spec.range
    assert low is None or high is None or low < high
    module, function = spec.function.rsplit(".", 1)
    assert callable(getattr(importlib.import_module(f"forgetbench.metrics.{module}"), function))
    assert MetricSpec.model_validate_json(spec.model_dump_json()) == spec
    json.dumps(spec.model_dump(mode="json"), allow_nan=False)


def test_what_ranks_is_what_the_protocol_lists():
    assert [spec.name for spec in ranking_metrics("match-oracle")] == [
        "gap.forget",
        "lira.forget",
        "gap.retain",
        "gap.test",
        "lira.retain",
    ]
    assert [spec.name for spec in ranking_metrics("erase")] == [
        "gap.test-forgotten",
        "probe",
        "gap.retain",
        "gap.test",
        "lira.retain",
    ]


def test_nothing_uncalibrated_or_from_the_literature_ranks():
    for name in NAMES:
        spec = metrics.get(name)
        if spec.group == "literature" or spec.legacy or not spec.calibrated:
            assert not spec.efficacy, name
            assert not spec.harm, name


def test_floors_are_the_protocols():
    floors = {name: metrics.get(name).floor for name in NAMES}
    assert {value for name, value in floors.items() if name.startswith("gap.")} == {0.005}
    assert (floors["lira.forget"], floors["lira.retain"]) == (0.01, 0.05)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"gap\.forget"):
        metrics.get("gap.froget")


def test_the_page_is_what_the_specs_say():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == metrics_page(), "stale: write it again with forgetbench.metrics.docs.write_page"
    for name in NAMES:
        assert f"### `{name}`" in page
