"""The shared hyper-parameter `batch_norm`: one declaration and one meaning in every method that trains."""

from __future__ import annotations

import copy
import inspect
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from forgetbench.errors import UsageError
from forgetbench.methods import methods
from forgetbench.methods._training import BATCH_NORM, batch_norm_option
from forgetbench.methods.base import ForgetRequest
from forgetbench.networks import NetworkSpec
from forgetbench.options import option_specs
from forgetbench.training import Examples, Recipe, predict, recalibrate_batch_norm

SPEC = NetworkSpec(name="cnn", channels=1, height=8, width=8, outputs=3, mean=(0.5,), std=(0.3,), options={"width": 2})
FEW = {"epochs": 1, "repair_epochs": 1, "k": 2, "noise_steps": 8, "samples": 1, "floor": 1.0}
WITHOUT = {"gs-lora", "gs-lora++"}
"""Only for transformers, which have no batch-norm."""


def trains(name: str) -> bool:
    """Whether a method of a paper has a training loop, or inherits one."""
    kind = methods.get(name)
    sources = [
        inspect.getsource(sys.modules[base.__module__]) for base in kind.__mro__ if base.__module__ != "builtins"
    ]
    return not kind.card.sentinel and any("with train_loop(" in source for source in sources)


TRAINING = [name for name in methods.names() if trains(name) and name not in WITHOUT]


WITH_RETAIN = [name for name in TRAINING if "retain" in methods.get(name).card.needs]
"""Methods that may read retained images, and so can estimate the statistics again."""


def recalibrated(network: nn.Module) -> nn.Module:
    """A network after a pass over the retained images."""
    return recalibrate_batch_norm(network, request().retain, request().recipe)


def request() -> ForgetRequest:
    """Class 2 is forgotten."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (30, 1, 8, 8), generator=generator, dtype=torch.uint8)
    everything = Examples(images, torch.arange(30) // 12)
    return ForgetRequest(
        forget=everything.take(range(24, 30)),
        retain=everything.take(range(24)),
        validation=everything.take(range(0, 30, 3)),
        seed=4,
        recipe=Recipe(),
        new_network=lambda: SPEC.build(9),
    )


def statistics(network: nn.Module) -> torch.Tensor:
    """Running means and variances of the last layer of batch-norm, which every method trains."""
    last = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    assert last.running_mean is not None
    assert last.running_var is not None
    return torch.cat([last.running_mean, last.running_var])


@pytest.mark.parametrize("name", TRAINING)
def test_batch_norm_moves_statistics_only_in_train(name):
    kind, forget_request = methods.get(name), request()
    values = {key: value for key, value in FEW.items() if key in {each.name for each in kind.parameters()}}
    before = statistics(forget_request.new_network() if name == "eu-k" else SPEC.build(0))
    for mode in ("train", "eval"):
        method = kind.from_dict({**values, "batch_norm": mode})
        network = SPEC.build(0)
        if name == "fanchuan":  # the rounds of the retain set are always in train mode
            method.train_to_uniform(network, forget_request)
        else:
            network = method.unlearn(network, forget_request)
        after = statistics(network)
        assert torch.equal(before, after) == (mode == "eval"), mode


@pytest.mark.parametrize("name", TRAINING)
def test_batch_norm_is_declared_by_the_helper(name):
    spec = option_specs(methods.get(name))["batch_norm"]
    declared = batch_norm_option("train").metadata["option"]
    assert declared.choices == BATCH_NORM
    assert spec.choices == (BATCH_NORM if name in WITH_RETAIN else BATCH_NORM[:2])
    assert spec.help.rpartition(": ")[2].startswith(declared.help.rpartition(": ")[2].partition(";")[0])


def test_batch_norm_wrong_value_names_the_choices():
    with pytest.raises(UsageError, match=r"batch_norm must be one of train \| eval \| recalibrate, not 'frozen'"):
        methods.get("finetune").from_dict({"batch_norm": "frozen"})


@pytest.mark.parametrize("name", sorted(set(TRAINING) - set(WITH_RETAIN)))
def test_batch_norm_forget_only_refuses_recalibrate(name):
    message = rf"{name}: batch_norm must be one of train \| eval, not 'recalibrate'"
    with pytest.raises(UsageError, match=message):
        methods.get(name).from_dict({"batch_norm": "recalibrate"})


@pytest.mark.parametrize("name", WITH_RETAIN)
def test_batch_norm_recalibrate_equals_a_fresh_pass(name, monkeypatch):
    """The model that is returned: a second pass changes no bit. There is one pass, however many loops there are."""
    passes = []

    def count(network, *args, **options):
        passes.append(network)
        return recalibrate_batch_norm(network, *args, **options)

    monkeypatch.setattr("forgetbench.methods._training.recalibrate_batch_norm", count)
    kind, forget_request = methods.get(name), request()
    values = {key: value for key, value in FEW.items() if key in {each.name for each in kind.parameters()}}
    state = torch.random.get_rng_state()
    network = kind.from_dict({**values, "batch_norm": "recalibrate"}).unlearn(SPEC.build(0), forget_request)
    assert torch.equal(state, torch.random.get_rng_state())
    assert passes == [network]
    assert not network.training
    again = recalibrate_batch_norm(copy.deepcopy(network), forget_request.retain, forget_request.recipe)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", sorted(set(WITH_RETAIN) - {"lotus"}))
def test_batch_norm_recalibrate_trains_as_train(name):
    """Weights are those of train mode; lotus alone looks at accuracies of eval mode before its end."""
    kind, weights = methods.get(name), []
    values = {key: value for key, value in FEW.items() if key in {each.name for each in kind.parameters()}}
    for mode in ("train", "recalibrate"):
        network = kind.from_dict({**values, "batch_norm": mode}).unlearn(SPEC.build(0), request())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    assert torch.equal(*weights)


def test_batch_norm_lotus_without_epochs_is_recalibrated():
    """The gap is closed before the first epoch: no training, but the statistics are those of retained images."""
    network, given = SPEC.build(0), request()
    answers = [torch.tensor(predict(network, part).argmax(1)) for part in (given.forget, given.validation)]
    closed = replace(
        given,
        forget=given.forget.relabel((answers[0] == 0).long()),  # always wrong, and never a class of its own
        validation=given.validation.relabel(answers[1]),
    )
    unlearned = methods.get("lotus")(batch_norm="recalibrate").unlearn(network, closed)
    assert "epochs" not in closed.notes
    assert torch.equal(statistics(unlearned), statistics(recalibrated(SPEC.build(0))))


def test_random_label_batch_norm_follows_the_retained_examples():
    """Unless it is given: by the batch where retained examples are part of it."""
    before = statistics(SPEC.build(0))
    for retain, moved in ((0, False), (3, True)):
        method = methods.get("random-label")(epochs=1, retain=retain)
        assert torch.equal(before, statistics(method.unlearn(SPEC.build(0), request()))) != moved
