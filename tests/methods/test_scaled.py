"""Hyper-parameters that scale with the recipe: what a text comes to, and that it gives the bits of that number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import make_examples, make_network, make_recipe, same_weights

from forgetbench.errors import UsageError
from forgetbench.methods import load_method_file, methods, parse_method
from forgetbench.methods._presets import _read
from forgetbench.methods.base import ForgetRequest, Method
from forgetbench.runner.method_spec import parse_methods
from forgetbench.tasks.task import Setting

RECIPE = {"epochs": 20, "lr": 0.1, "batch_size": 8}
FAST: dict[str, Any] = {"noise_steps": 2, "floor": 1.0, "samples": 2}
"""Values for parameters of these names, so that a test takes a second."""


def request(network: str = "cnn", **fields: Any) -> ForgetRequest:
    return ForgetRequest(
        forget=make_examples(12, seed=1),
        retain=make_examples(24, seed=2),
        validation=make_examples(8, seed=3),
        seed=4,
        recipe=make_recipe(**RECIPE | fields),
        new_network=lambda: make_network(network, **VIT if network == "vit" else {}),
    )


ADAM = {"amnesiac", "bad-teacher", "gs-lora", "gs-lora++", "iau", "lotus", "unsir"}
"""Methods that use it by default; the others use SGD."""
VIT = {"dim": 16, "depth": 1, "heads": 2, "patch": 4}


def scaled(field: str) -> list[str]:
    """Names of the methods with an option that scales with this field of the recipe."""
    return [name for name in methods.names() if any(each.scales_with == field for each in methods.get(name).options())]


def unlearned(name: str, **values: Any) -> tuple[torch.nn.Module, ForgetRequest]:
    kind = methods.get(name)
    network = "vit" if "vit" in kind.card.networks else "cnn"
    given = request(network)
    known = {each.name: FAST[each.name] for each in kind.options() if each.name in FAST}
    model = make_network(network, **VIT if network == "vit" else {})
    return kind.from_dict(known | values).unlearn(model, given), given


@pytest.mark.parametrize(
    ("value", "lr", "result"), [("0.1x", 0.1, 0.01), ("3x", 0.1, 0.3), ("0.05x", 0.003, 0.00015), ("1x", 1 / 3, 1 / 3)]
)
def test_resolve_lr_multiplies_the_rate_of_the_recipe(value, lr, result):
    given = request(lr=lr)
    assert given.resolve_lr(value, "sgd", "repair_lr") == pytest.approx(result, rel=1e-11)
    assert given.notes == {"repair_lr": pytest.approx(result, rel=1e-11)}


@pytest.mark.parametrize(
    ("recipe", "optimizer", "result"),
    [
        ("sgd", "sgd", 0.006),  # a fifth of 0.03
        ("sgd", "adam", 0.0002),
        ("sgd", "adamw", 0.0002),
        ("adam", "adamw", 0.006),
        ("adamw", "sgd", 0.18),
    ],
)
def test_resolve_lr_converts_between_sgd_and_adam(recipe, optimizer, result):
    assert request(lr=0.03, optimizer=recipe).resolve_lr("0.2x", optimizer) == result


def test_resolve_lr_of_a_multiple_has_the_bits_of_its_decimal():
    for multiple, lr, result in (("0.1x", 0.1, 0.01), ("0.3x", 0.1, 0.03), ("0.07x", 0.1, 0.007), ("0.2x", 0.05, 0.01)):
        assert float(multiple[:-1]) * lr == pytest.approx(result)
        assert request(lr=lr).resolve_lr(multiple, "sgd") == result


@pytest.mark.parametrize(
    ("value", "examples", "batch_size", "epochs"),
    [
        (3, 100, 16, 3),
        ("0.1x", 100, 16, 2),  # of 20 epochs
        ("0.13x", 100, 16, 3),  # 2.6
        ("0.01x", 100, 16, 1),  # at least one
        ("2x", 100, 16, 40),
        ("40steps", 100, 16, 6),  # an epoch has 7 steps: 6 x 16 + 4
        ("40steps", 36, 64, 40),  # an epoch is one step
        ("40steps", 5000, 64, 1),  # one epoch has 79
        ("10steps", 33, 16, 5),  # two: a last batch of one example joins the one before it
    ],
)
def test_resolve_epochs_counts_epochs_multiples_and_steps(value, examples, batch_size, epochs):
    given = request()
    assert given.resolve_epochs(value, examples, batch_size) == epochs
    assert given.notes == ({} if value == 3 else {"epochs": epochs})


def test_resolve_numbers_are_not_changed_or_logged():
    given = request()
    assert (given.resolve_lr(0.1 + 1e-16, "adam"), given.resolve_epochs(7, 10, 1), given.notes) == (0.1 + 1e-16, 7, {})


def test_resolve_other_texts_raise():
    for text in ("fast", "0x", "-1x", "40steps"):
        with pytest.raises(UsageError, match=r"is not a multiple such as 0\.1x"):
            request().resolve_lr(text, "sgd")
    with pytest.raises(UsageError, match=r"'all' is not a multiple such as 0\.1x or steps such as 40steps"):
        request().resolve_epochs("all", 10, 5)


@pytest.mark.parametrize("name", scaled("lr"))
def test_a_multiple_gives_the_bits_of_its_rate(name):
    rates = [each.name for each in methods.get(name).options() if each.scales_with == "lr"]
    epochs = {each.name: 1 for each in methods.get(name).options() if each.scales_with == "epochs"}
    multiple, given = unlearned(name, **epochs, **dict.fromkeys(rates, "0.3x"))
    lr = 0.001 if name in ADAM else 0.03  # of 0.1 for SGD, which is 0.1 / 30 for Adam
    number, other = unlearned(name, **epochs, **dict.fromkeys(rates, lr))
    assert same_weights(multiple, number)
    assert {rate: given.notes[rate] for rate in rates} == dict.fromkeys(rates, lr)
    assert not set(rates) & set(other.notes)
    assert not same_weights(multiple, unlearned(name, **epochs, **dict.fromkeys(rates, "1x"))[0])


@pytest.mark.parametrize("name", scaled("epochs"))
def test_a_multiple_gives_the_bits_of_its_epochs(name):
    multiple, given = unlearned(name, epochs="0.1x")
    assert given.notes["epochs"] == 2
    assert same_weights(multiple, unlearned(name, epochs=2)[0])


def test_steps_of_a_method_count_the_passes_that_it_makes():
    for name, per_epoch in (("delete", 3), ("finetune", 6), ("amnesiac", 9), ("salun", 9)):  # 12, 24 and both by 4
        _, given = unlearned(name, epochs="18steps", batch_size=4)
        assert given.notes["epochs"] == 18 // per_epoch, name


@pytest.mark.parametrize(("method", "preset"), [(name, each) for name, group in _read().items() for each in group])
def test_presets_name_numbers_and_no_multiples(method, preset):
    kinds = {each.name: each.scales_with for each in methods.get(method).options()}
    for name, value in preset.parameters.items():
        if kinds[name]:
            assert type(value) in (int, float), f"{method} {preset.name} {name}"


def test_a_row_is_labeled_by_the_text_that_was_given():
    setting = Setting("cnn", "digits", "class")
    [row] = parse_methods(["iau:lr=0.010x"], [], setting)
    assert (row.label, row.parameters["lr"], row.named) == ("iau:lr=0.010x", "0.01x", ("lr",))
    assert row.with_parameters({"lr": "0.02x"}).with_label_diff(row).label == "iau:lr=0.010x,lr=0.02x"
    assert parse_method("delete:epochs=40steps,lr=1e-3x").to_dict()["epochs"] == "40steps"
    with pytest.raises(UsageError, match=r"method iau: lr must be a number > 0 or Nx, such as 0.1x .* not '0x'"):
        parse_method("iau:lr=0x")


OWN = """
from dataclasses import dataclass
from forgetbench.methods import Duration, Method, Rate, param

@dataclass(frozen=True, kw_only=True)
class Own(Method):
    "Trains a little."
    lr: Rate = param("0.1x", gt=0)
    epochs: Duration = param("0.1x", ge=1)

    def unlearn(self, model, request):
        request.log("seen", request.resolve_lr(self.lr, "sgd"))
        return model
"""


def test_a_method_of_a_file_can_have_scaled_options(tmp_path: Path):
    (tmp_path / "own.py").write_text(OWN)
    kind: type[Method] = load_method_file(f"{tmp_path / 'own.py'}:Own")
    given = request()
    kind().unlearn(make_network(), given)
    assert given.notes == {"lr": 0.01, "seen": 0.01}
    assert [each.scales_with for each in kind.options()] == ["lr", "epochs"]
