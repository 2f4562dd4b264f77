"""Cosine heads and CosFace's margin, by the formula of Wang et al. 2018."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.training import make_examples, make_network, make_recipe, same_weights

from forgetbench.errors import UsageError
from forgetbench.methods import methods
from forgetbench.methods.base import ForgetRequest
from forgetbench.tasks.task import Task
from forgetbench.training import fit, lower_own_class

QUICK = ("finetune", "gs-lora", "gs-lora++", "iau", "ssd")
CONTESTANTS = [name for name in methods.names() if methods.get(name).card.is_contestant and name != "boundary-expand"]


def cosface(features, weights, labels, scale, margin):
    """Mean over rows of -log softmax of s (cos theta_k - m [k = y])."""
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (features, weights)]
    logits = scale * (unit[0] @ unit[1].T - margin * np.eye(len(weights))[labels])
    return float(np.mean([np.log(np.exp(row - row[label]).sum()) for row, label in zip(logits, labels, strict=True)]))


def test_loss_with_margin_is_that_of_cosface():
    network = make_network("cnn", width=4, cosine=64.0).double()
    images, labels = next(make_examples().batches(21))
    with torch.no_grad():
        features = network.features(images.double())
        logits = lower_own_class(network.head(features), labels, network, make_recipe(margin=0.35))
        loss = torch.nn.functional.cross_entropy(logits, labels)
    expected = cosface(features.numpy(), network.head.weight.detach().numpy(), labels.numpy(), 64.0, 0.35)
    assert float(loss) == pytest.approx(expected, rel=1e-9)
    assert network.head.bias is None


def test_margin_shapes_training_and_not_prediction():
    trained = {}
    for margin in (0.0, 0.35):
        network = make_network("cnn", width=4, cosine=16.0)
        trained[margin] = fit(network, make_examples(), make_recipe(margin=margin), 0)
    assert not same_weights(trained[0.0], trained[0.35])
    images, _ = next(make_examples().batches(21))
    with torch.no_grad():
        assert float(trained[0.35](images).abs().max()) <= 16.0001


def test_a_margin_needs_cosines():
    task = {
        "name": "a/b/c",
        "title": "A",
        "image_set": {"name": "digits"},
        "network": {"name": "cnn"},
        "recipe": {"margin": 0.35},
        "scenario": {"name": "class"},
    }
    with pytest.raises(ValueError, match="margin needs a network with option cosine"):
        Task.model_validate(task)
    Task.model_validate({**task, "network": {"name": "cnn", "options": {"cosine": 64.0}}})


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CONTESTANTS]
)
def test_methods_run_on_cosines(name: str):
    network = "cnn" if methods.get(name).card.networks == ("*",) else "vit"
    options = {"width": 4} if network == "cnn" else {"dim": 8, "heads": 2}
    data = make_examples(40)
    rows = torch.arange(40)
    request = ForgetRequest(
        forget=data.take(rows[data.labels == 2]),
        retain=data.take(rows[data.labels != 2]),
        validation=make_examples(20, seed=1),
        seed=0,
        recipe=make_recipe(margin=0.35),
        new_network=lambda: make_network(network, cosine=16.0, **options),
    )
    original = make_network(network, cosine=16.0, **options)
    unlearned = methods.get(name)().unlearn(original, request)
    assert all(bool(value.isfinite().all()) for value in unlearned.state_dict().values())


def test_boundary_expand_refuses_cosines():
    data = make_examples(40)
    request = ForgetRequest(
        forget=data.take(torch.arange(5)),
        retain=data.take(torch.arange(5, 40)),
        validation=data,
        seed=0,
        recipe=make_recipe(),
        new_network=lambda: make_network("cnn", width=4, cosine=16.0),
    )
    with pytest.raises(UsageError, match="does not apply to cosines"):
        methods.get("boundary-expand")().unlearn(make_network("cnn", width=4, cosine=16.0), request)
