"""Hyper-parameters, cards, requests, and methods out of an author's own file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import forgetbench.methods as methods_package
from forgetbench.datasets.scenarios import scenarios
from forgetbench.errors import UsageError
from forgetbench.methods import load_method_file, methods, parse_method, parse_method_file, setting_defaults
from forgetbench.methods.base import ForgetRequest, Method, TaskFacts, param
from forgetbench.methods.contract import check_method
from forgetbench.networks import networks
from forgetbench.runner.method_spec import parse_methods
from forgetbench.tasks.task import Setting
from forgetbench.training import Examples, Recipe
from forgetbench.tuning.study import _number

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_method.py"


def examples(count: int) -> Examples:
    return Examples(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))


def test_parse_method_reads_and_converts_values():
    method = parse_method("ssd:alpha=5, importance=batch,batch_size=32")
    others = {"dampening": 1.0, "importance": "batch", "order": "auto"}
    assert method.to_dict() == {"alpha": 5.0, "batch_size": 32} | others
    assert isinstance(method.to_dict()["alpha"], float)


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("sham", "no-op"),
        ("salun:share=0.3,over=other,redraw=true", "salun:mask_ratio=0.3,label_space=wrong,resample=true"),
        ("random-label:over=all", "random-label:label_space=all"),
        ("msg:share=0.2,slow=0.5", "msg:mask_ratio=0.2,gradient_scale=0.5"),
        ("sebastian:rarity=0.0", "sebastian:class_weight_power=0.0"),
        ("lotus:retain_share=0.5", "lotus:retain_ratio=0.5"),
        ("boundary-shrink:released=true", "boundary-shrink:as_published=true"),
    ],
)
def test_former_names_are_accepted_and_translated(former, present):
    assert parse_method(former, Setting("cnn")) == parse_method(present, Setting("cnn"))
    [spec] = parse_methods([former], [], Setting("cnn"))
    assert spec.label == present


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sdd", ["sdd", "ssd"]),
        ("ssd:alhpa=5", ["ssd", "alhpa", "alpha"]),
        ("ssd:alpha=0", ["ssd", "alpha", "> 0", "0"]),
        ("ssd:alpha=nan", ["alpha"]),
        ("ssd:alpha=big", ["ssd", "alpha", "a number", "big"]),
        ("ssd:importance=both", ["importance", "per-sample | batch", "both"]),
        ("ssd:batch_size=1.5", ["batch_size", "a whole number", "1.5"]),
        ("ssd:batch_size=true", ["batch_size"]),
        ("ssd:alpha", ["alpha", "ssd:PARAMETER=VALUE"]),
        ("finetune:momentum=1", ["momentum", "[0, 1)"]),
    ],
)
def test_parse_method_wrong_value_names_parameter_and_range(text, words):
    with pytest.raises(UsageError) as caught:
        parse_method(text)
    assert all(word in str(caught.value) for word in words)


def test_parse_method_value_overrides_network_default():
    known = setting_defaults("ssd", Setting("vit"))["alpha"]
    assert known != parse_method("ssd").to_dict()["alpha"]
    assert parse_method("ssd", Setting("vit")).to_dict()["alpha"] == known
    assert parse_method("ssd:alpha=7", Setting("vit")).to_dict()["alpha"] == 7
    assert parse_method("ssd", Setting("mlp")) == parse_method("ssd")


def test_parse_method_scenario_default_before_network_default():
    vit, stream = (setting_defaults("delete", Setting("vit", scenario=scenario)) for scenario in ("class", "stream"))
    assert vit != stream
    assert parse_method("delete", Setting("vit", scenario="stream")).to_dict() == {
        **parse_method("delete", Setting("vit", scenario="class")).to_dict(),
        **stream,
    }


def test_setting_defaults_name_known_settings_and_methods():
    tables = tomllib.loads((Path(str(methods_package.__file__)).parent / "defaults.toml").read_text())
    for setting, table in tables.items():
        network, _, scenario = setting.partition("/")
        assert network in networks.names()
        assert scenario in ("", *scenarios.names())
        for name, values in table.items():
            elsewhere = parse_method(name, Setting(network, scenario="another") if scenario else None)
            found = parse_method(name, Setting(network, scenario=scenario))
            assert found == methods.get(name).from_dict({**elsewhere.to_dict(), **values}) != elsewhere


def test_search_range_is_valid_and_contains_the_default():
    tuned = [name for name in methods.names() if any(each.search for each in methods.get(name).parameters())]
    cards = [methods.get(name).card for name in methods.names()]
    assert sorted(tuned) == sorted(card.name for card in cards if not card.sentinel and not card.reference)
    for name in tuned:
        defaults = [parse_method(name, Setting(network)).to_dict() for network in networks.names()]
        for each in methods.get(name).parameters():
            for value in each.search or ():
                methods.get(name).from_dict({each.name: value})
            if each.search and each.is_ordered:
                (least, unit), (largest, other) = (_number(end) for end in each.search)
                assert unit == other, f"{name}: {each.name}"
                assert least <= _number(each.default)[0] <= largest, f"{name}: {each.name}"
                assert {_number(values[each.name])[1] for values in defaults} == {unit}, f"{name}: {each.name}"


def test_forget_request_without_examples_raises():
    recipe = Recipe.model_validate({})
    for forget, retain, words in ((0, 3, "empty"), (3, 0, "whole training set"), (3, 1, "at least two")):
        with pytest.raises(UsageError, match=words):
            ForgetRequest(
                forget=examples(forget),
                retain=examples(retain),
                validation=examples(1),
                seed=0,
                recipe=recipe,
                new_network=nn.Identity,
            )


def test_applies_to_gives_a_reason():
    facts = {"network": "cnn", "scenario": "random", "attributes": False, "outputs": 3}
    assert "class" in methods.get("head-mask")().applies_to(TaskFacts(**facts))
    facts["scenario"] = "class"
    assert methods.get("head-mask")().applies_to(TaskFacts(**facts)) is None
    facts["attributes"] = True
    assert "attributes" in methods.get("head-mask")().applies_to(TaskFacts(**facts))


@pytest.mark.parametrize("name", methods.names())
def test_card_agrees_with_its_class(name):
    kind = methods.get(name)
    assert kind.card.name == name
    assert kind.__doc__
    assert all(fact.help for fact in kind.parameters())
    if kind.card.year is not None:
        assert kind.card.authors
        assert kind.card.link.startswith("https://")
        assert f"year = {{{kind.card.year}}}" in kind.card.bibtex


def test_example_method_passes_the_contract():
    kind = load_method_file(f"{EXAMPLE}:NoisyFineTune")
    assert [result for result in check_method(kind, options={"width": 4}) if not result.ok] == []
    assert kind.card.name == "noisy-fine-tune"
    assert kind.card.title.startswith("Adds noise")
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_parse_method_file_reads_values():
    method = parse_method_file(f"{EXAMPLE}:NoisyFineTune:lr=0.5,epochs=2")
    assert method.to_dict() == {"noise": 0.1, "lr": 0.5, "epochs": 2}
    assert parse_method_file(str(EXAMPLE)).to_dict()["lr"] == 0.02


BAD_FILES = [
    ("", "X", "no class 'X'"),
    ("class X: pass", "X", "not a method"),
    ("import nothing_of_this_name", "X", "cannot be imported"),
    ("from forgetbench.methods import Method\nclass X(Method): pass", "X", "lacks unlearn"),
    (
        "from forgetbench.methods import Method\nclass X(Method):\n lr: float = 1\n def unlearn(self, m, r): return m",
        "X",
        "dataclass",
    ),
    ("a = 1", "", "0 methods"),
]


@pytest.mark.parametrize(("source", "name", "words"), BAD_FILES)
def test_load_method_file_wrong_content_raises(tmp_path, source, name, words):
    path = tmp_path / "bad.py"
    path.write_text(source)
    with pytest.raises(UsageError, match=words):
        load_method_file(f"{path}:{name}" if name else str(path))


def test_load_method_file_missing_file_raises(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        load_method_file(f"{tmp_path}/none.py:X")
    with pytest.raises(UsageError, match="Python file"):
        load_method_file("somewhere")


def test_check_method_finds_a_changed_model():
    @dataclass(frozen=True, kw_only=True)
    class InPlace(Method):
        """Edits the model that it was given."""

        size: float = param(0.1, gt=0, help="How much.")

        def unlearn(self, model, request):  # noqa: ARG002
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(self.size)
            return model

    class Random(InPlace):
        card = InPlace.card.model_copy(update={"random": True})

    failed = {result.name: result.message for result in check_method(Random, network="mlp") if not result.ok}
    assert "the given model was changed" in failed["the result is equivalent and the given network unchanged"]
    assert "random" in failed["the seed determines the result"]


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (lambda model: model.train(), "mode or requires_grad of the given model"),
        (lambda model: model.head.requires_grad_(requires_grad=False), "mode or requires_grad of the given model"),
        (lambda model: model.zero_grad(), "gradients of the given model"),
    ],
)
def test_check_method_finds_a_changed_mode(deed, words):
    @dataclass(frozen=True, kw_only=True)
    class Careless(methods.get("none")):
        def unlearn(self, model, request):
            edited = super().unlearn(model, request)
            deed(model)
            return edited

    failed = {result.name: result.message for result in check_method(Careless, network="mlp") if not result.ok}
    assert words in failed["the result is equivalent and the given network unchanged"]


@pytest.mark.parametrize("passed", ["0", "2", "nan", "'no-such-choice'"])
def test_check_method_finds_missing_range_checks(passed):
    @dataclass(frozen=True, kw_only=True)
    class Lenient(methods.get("none")):
        size: float = param(0.1, gt=0, le=1, help="How much.")
        way: str = param("up", choices=("up", "down"), help="Where to.")

        @classmethod
        def from_dict(cls, values):
            return super().from_dict({name: value for name, value in values.items() if repr(value) != passed})

    failed = {result.name: result.message for result in check_method(Lenient, network="mlp") if not result.ok}
    assert list(failed) == ["wrong hyper-parameters are refused"]
    assert f"={passed} was not refused" in failed["wrong hyper-parameters are refused"]


def test_check_method_finds_errors_without_the_range():
    @dataclass(frozen=True, kw_only=True)
    class Curt(methods.get("none")):
        size: float = param(0.1, gt=0, le=1, help="How much.")

        @classmethod
        def from_dict(cls, values):
            try:
                return super().from_dict(values)
            except UsageError:
                raise UsageError(f"bad {list(values)}") from None

    failed = {result.name: result.message for result in check_method(Curt, network="mlp") if not result.ok}
    assert "does not say (0, 1]" in failed["wrong hyper-parameters are refused"]


def test_check_method_finds_reads_beyond_needs():
    @dataclass(frozen=True, kw_only=True)
    class Greedy(methods.get("none")):
        def unlearn(self, model, request):
            list(request.validation.batches(2))
            return super().unlearn(model, request)

    failed = {result.name: result.message for result in check_method(Greedy, network="mlp") if not result.ok}
    assert list(failed) == ["only the needed examples are read"]
    assert "validation" in failed["only the needed examples are read"]


def test_default_card_does_not_state_randomness(tmp_path: Path) -> None:
    file = tmp_path / "plain.py"
    file.write_text(
        "import copy\nfrom dataclasses import dataclass\nfrom forgetbench.methods import Method\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Plain(Method):\n    'Copies.'\n"
        "    def unlearn(self, model, request):\n        return copy.deepcopy(model)\n"
    )
    kind = load_method_file(f"{file}:Plain")
    assert kind.card.random is None
    assert all(result.ok for result in check_method(kind, network="mlp"))


def test_applies_to_networks_built_like_a_named_one() -> None:
    facts = {"scenario": "class", "attributes": False, "outputs": 3}
    gs_lora, msg = methods.get("gs-lora")(), methods.get("msg")()
    assert gs_lora.applies_to(TaskFacts(network="timm/deit_tiny", like="vit", **facts)) is None
    assert "not to timm/resnet34" in gs_lora.applies_to(TaskFacts(network="timm/resnet34", like="resnet18", **facts))
    assert "layers=all" in msg.applies_to(TaskFacts(network="timm/deit_tiny", like="vit", **facts))
    assert msg.applies_to(TaskFacts(network="timm/resnet34", like="resnet18", **facts)) is None


def test_check_method_finds_a_gradient_of_another_layout():
    @dataclass(frozen=True, kw_only=True)
    class Strided(methods.get("none")):
        def unlearn(self, model, request):
            copy = super().unlearn(model, request)
            weight = next(part for part in copy.parameters() if part.ndim == 4)
            optimizer = torch.optim.Adam([weight], fused=True)
            weight.grad = torch.ones_like(weight).contiguous(memory_format=torch.channels_last)
            optimizer.step()
            return copy

    failed = {result.name: result.message for result in check_method(Strided, network="cnn") if not result.ok}
    assert "a fused Adam took a step" in failed["the result is equivalent and the given network unchanged"]
    assert "gradient.contiguous()" in failed["the result is equivalent and the given network unchanged"]


def test_check_method_finds_changed_global_state():
    @dataclass(frozen=True, kw_only=True)
    class Leaky(methods.get("none")):
        def unlearn(self, model, request):
            torch.set_grad_enabled(False)
            torch.manual_seed(2)
            return super().unlearn(model, request)

    failed = {result.name: result.message for result in check_method(Leaky, network="mlp") if not result.ok}
    [message] = failed.values()
    assert "global state was changed: gradients switched off" in message
    assert "torch's random state" in message
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (lambda _: None, "unlearn returned None"),
        (lambda model: model.state_dict(), "a state dict"),
        (torch.nn.DataParallel, "wrapped in DataParallel"),
        (lambda model: model.double(), "float64 instead of torch.float32"),
    ],
)
def test_check_method_finds_a_wrong_result(deed, words):
    @dataclass(frozen=True, kw_only=True)
    class Wrong(methods.get("none")):
        def unlearn(self, model, request):
            return deed(super().unlearn(model, request))

    failed = {result.name: result.message for result in check_method(Wrong, network="mlp") if not result.ok}
    assert words in failed["the result is equivalent and the given network unchanged"]
    assert words in failed["one forget example"]
