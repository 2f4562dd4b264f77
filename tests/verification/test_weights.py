"""Weights that come out of the sandbox."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save
from support.training import make_network, same_weights

from forgetbench.verification.weights import WeightsError, load_weights, max_bytes


def test_load_weights_of_a_trained_copy_gives_its_network():
    original, trained = make_network(seed=0), make_network(seed=1)
    data = save(trained.state_dict())
    assert len(data) <= max_bytes(original)
    loaded = load_weights(data, original)
    assert same_weights(loaded, trained)
    assert not same_weights(loaded, original)
    assert not loaded.training


def changed(**tensors):
    """The weights of a network with some tensors replaced."""
    return save({**make_network().state_dict(), **tensors})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pickle.dumps(make_network().state_dict()), "not safetensors; it is a pickle. Nothing of it was read"),
        (b"garbage", "not safetensors"),
        (b"", "an empty file"),
        (changed(extra=torch.zeros(1)), "other tensors than the original network: extra"),
        (changed(**{"head.bias": torch.zeros(5)}), r"head.bias is torch.float32 \(5,\) instead of"),
        (changed(**{"head.bias": torch.zeros(4, dtype=torch.float64)}), "head.bias is torch.float64"),
    ],
)
def test_load_weights_of_anything_else_is_refused(data, words):
    with pytest.raises(WeightsError, match=words):
        load_weights(data, make_network())
