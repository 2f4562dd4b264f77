"""The shared hyper-parameter `batch_norm`: one declaration and one meaning in every method that trains."""

from __future__ import annotations

import inspect
import sys

import pytest
import torch
from torch import nn

from forgetbench.errors import UsageError
from forgetbench.methods import methods
from forgetbench.methods._training import BATCH_NORM, batch_norm_option
from forgetbench.methods.base import ForgetRequest
from forgetbench.networks import NetworkSpec
from forgetbench.options import option_specs
from forgetbench.training import Examples, Recipe

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
    for mode in BATCH_NORM:
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
    assert spec.choices == declared.choices == BATCH_NORM
    assert spec.help.rpartition(": ")[2] == declared.help.rpartition(": ")[2]


def test_batch_norm_wrong_value_names_the_choices():
    with pytest.raises(UsageError, match=r"batch_norm must be one of train \| eval, not 'frozen'"):
        methods.get("finetune").from_dict({"batch_norm": "frozen"})


def test_random_label_batch_norm_follows_the_retained_examples():
    """Unless it is given: by the batch where retained examples are part of it."""
    before = statistics(SPEC.build(0))
    for retain, moved in ((0, False), (3, True)):
        method = methods.get("random-label")(epochs=1, retain=retain)
        assert torch.equal(before, statistics(method.unlearn(SPEC.build(0), request()))) != moved
