"""Presets: complete, of one source, resolved by task, and no more than a name for their values."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

import forgetbench as fb
from forgetbench.datasets import datasets
from forgetbench.datasets.scenarios import scenarios
from forgetbench.errors import UsageError
from forgetbench.methods import methods, parse_method
from forgetbench.methods._presets import Preset, _read, find_preset, presets
from forgetbench.networks import networks
from forgetbench.runner.method_spec import parse_methods
from forgetbench.tasks.task import Setting

pytestmark = pytest.mark.unit
VIT_CLASS = Setting("timm/vit_base_patch16_224", "cifar20", "class")
RESNET_CLASS = Setting("resnet18", "cifar20", "class")
EVERY = [(method, preset) for method, group in _read().items() for preset in group]


@pytest.mark.parametrize(("method", "preset"), EVERY, ids=[f"{name}-{each.name}" for name, each in EVERY])
def test_a_preset_names_every_hyper_parameter(method: str, preset: Preset):
    cls = methods.get(method)
    assert set(preset.values) == {each.name for each in cls.parameters()}
    assert cls.from_dict(preset.parameters).to_dict() == preset.parameters
    assert preset.source


@pytest.mark.parametrize(("method", "preset"), EVERY, ids=[f"{name}-{each.name}" for name, each in EVERY])
def test_patterns_of_a_preset_match_something(method: str, preset: Preset):
    known = [*networks.names(), "timm/vit_base_patch16_224", "timm/deit_tiny_patch16_224"]
    for patterns, names in (
        (preset.networks, known),
        (preset.image_sets, datasets.names()),
        (preset.scenarios, scenarios.names()),
    ):
        for pattern in patterns:
            assert any(fnmatchcase(name, pattern) for name in names), pattern


def test_the_first_preset_that_fits_counts_and_none_is_hidden():
    for method, group in _read().items():
        for place, preset in enumerate(group):
            earlier = [one for one in group[:place] if one.name == preset.name]
            wide = ("*",)
            hidden = any(
                all(
                    getattr(one, part) in (wide, getattr(preset, part))
                    for part in ("networks", "image_sets", "scenarios")
                )
                for one in earlier
            )
            assert not hidden, f"{method}: {preset.name} for {preset.where} can never apply"


def test_a_preset_is_resolved_by_the_task():
    assert parse_method("ssd:preset=paper", RESNET_CLASS).to_dict()["alpha"] == 10
    assert parse_method("ssd:preset=paper", VIT_CLASS).to_dict()["alpha"] == 5
    assert parse_method("ssd:preset=paper", VIT_CLASS._replace(scenario="subclass")).to_dict()["alpha"] == 25
    pins = parse_method("ssd:preset=paper", Setting("resnet18", "pins", "class")).to_dict()
    assert (pins["alpha"], pins["dampening"]) == (50, 0.1)


def test_a_preset_shapes_the_same_artifact_as_its_values():
    [named] = parse_methods(["ssd:preset=paper"], [], RESNET_CLASS)
    values = ",".join(f"{name}={value}" for name, value in named.parameters.items())
    [typed] = parse_methods([f"ssd:{values}"], [], RESNET_CLASS)
    assert named.label == "ssd:preset=paper"
    assert named.identity() == typed.identity()
    with pytest.raises(UsageError, match="Duplicate method"):
        parse_methods(["ssd:preset=paper", f"ssd:{values}"], [], RESNET_CLASS)


def test_given_values_replace_those_of_a_preset():
    [spec] = parse_methods(["ssd:preset=paper,alpha=7"], [], RESNET_CLASS)
    assert spec.parameters == {**parse_method("ssd:preset=paper", RESNET_CLASS).to_dict(), "alpha": 7.0}


def test_tuning_leaves_the_values_of_a_preset_alone():
    [spec] = parse_methods(["ssd:preset=paper"], [], RESNET_CLASS)
    assert set(spec.named) == set(spec.parameters)


def test_all_takes_only_methods_that_have_the_preset(caplog):
    rows = parse_methods(["all"], [], RESNET_CLASS, "paper")
    assert {spec.name for spec in rows} == {
        name for name in methods.names() if find_preset(name, "paper", RESNET_CLASS) is not None
    }
    assert all(spec.label == f"{spec.name}:preset=paper" for spec in rows)
    assert "have no preset paper for network resnet18" in caplog.text


def test_messages_name_the_presets_that_there_are():
    with pytest.raises(UsageError, match=r"Unknown preset 'authors'.*Available: .*paper"):
        parse_method("ssd:preset=authors", RESNET_CLASS)
    with pytest.raises(UsageError, match=r"ssd has no preset 'paper' for network mlp.*Available: paper \("):
        parse_method("ssd:preset=paper", Setting("mlp", "digits", "class"))
    with pytest.raises(UsageError, match="needs a task"):
        parse_method("ssd:preset=paper")


def test_a_method_file_runs_next_to_presets():
    [own, ssd] = fb.plan(["examples/my_method.py:NoisyFineTune", "ssd"], "cifar20/resnet18/subclass", preset="paper")
    assert {own.label, ssd.label} == {"noisy-fine-tune", "ssd:preset=paper"}


def test_plan_tells_where_values_come_from():
    task = "cifar20/resnet18/subclass"
    [row] = fb.plan("ssd", task, preset="paper")
    assert row.parameters["alpha"] == 10
    assert "Foster" in row.source
    [row] = fb.plan("ssd:preset=paper,alpha=3", task)
    assert row.parameters["alpha"] == 3
    assert row.source.startswith("alpha as given; otherwise preset paper: ")
    [row] = fb.plan("ssd", task)
    assert row.source == "defaults"
    assert presets("no-op") == ()
