"""Specs: complete, true to the functions they name, and what the page of metrics is generated from."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import forgetbench.metrics
from forgetbench.errors import UsageError
from forgetbench.metrics import MetricSpec, metrics, ranking_metrics
from forgetbench.metrics import published_code as legacy
from forgetbench.metrics._docs import metrics_page

ROOT = Path(__file__).parents[2]
NAMES = metrics.names()


@pytest.mark.parametrize("name", NAMES)
def test_spec_is_complete_and_names_its_function(name):
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


@pytest.mark.parametrize("name", [name for name in NAMES if not metrics.get(name).legacy])
def test_spec_function_is_exported_by_the_package(name):
    module, function = metrics.get(name).function.rsplit(".", 1)
    kept = importlib.import_module(f"forgetbench.metrics.{module}")
    assert getattr(forgetbench.metrics, function) is getattr(kept, function)
    assert function in forgetbench.metrics.__all__


def test_published_code_has_legacy_specs():
    own = {name for name, each in vars(legacy).items() if getattr(each, "__module__", "") == legacy.__name__}
    public = {f"published_code.{name}" for name in own if not name.startswith("_")}
    assert {metrics.get(name).function for name in NAMES if metrics.get(name).legacy} == public


def test_package_import_needs_no_scipy_or_scikit_learn():
    code = (
        "import sys, forgetbench.metrics as m\n"
        "assert not {'scipy', 'sklearn', 'torch'} & set(sys.modules), 'imported'\n"
        "assert all(hasattr(m, name) for name in m.__all__) and set(m.__all__) <= set(dir(m))\n"
        "assert not hasattr(m, 'nothing')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert answer.returncode == 0, answer.stderr


def test_ranking_metrics_equal_the_protocol():
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


def test_spec_uncalibrated_or_literature_never_ranks():
    for name in NAMES:
        spec = metrics.get(name)
        if spec.group == "literature" or spec.legacy or not spec.calibrated:
            assert not spec.efficacy, name
            assert not spec.harm, name


def test_spec_floors_equal_the_protocol():
    floors = {name: metrics.get(name).floor for name in NAMES}
    assert {value for name, value in floors.items() if name.startswith("gap.")} == {0.005}
    assert (floors["lira.forget"], floors["lira.retain"]) == (0.01, 0.05)


def test_registry_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match=r"gap\.forget"):
        metrics.get("gap.froget")


def test_page_has_a_section_for_every_metric():
    page = metrics_page()
    for name in NAMES:
        assert f"### `{name}`" in page
