"""What training and loading leave out because nobody would see it: initial weights, slow attention."""

from __future__ import annotations

import pytest
import torch
from support.training import make_network, make_spec
from torch import nn

from forgetbench.runner.artifacts import load_model, write_weights
from forgetbench.training import count_flops
from forgetbench.training.compute import fused_attention, skip_initialization

VIT = {"dim": 8, "depth": 2, "heads": 2}
CUDA = torch.device("cuda")


@pytest.mark.parametrize("kind", [nn.Linear, nn.Bilinear, nn.MultiheadAttention])
def test_skip_initialization_draws_no_random_number(kind):
    arguments = (4, 4, 4) if kind is nn.Bilinear else (4, 4)
    before = torch.random.get_rng_state()
    with skip_initialization():
        kind(*arguments)
    assert torch.equal(torch.random.get_rng_state(), before)
    kind(*arguments)
    assert not torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("cnn", 8, {"width": 4, "cosine": 8.0}),
        ("fast", 16, {"width": 4}),
        ("vit", 8, VIT),
        ("timm/resnet10t", 16, {}),
        ("timm/levit_128s", 16, {"enlarge": 224}),
    ],
)
def test_load_model_gives_the_model_that_was_written(name, size, options, tmp_path):
    spec = make_spec(name, size=size, **options)
    written, images = spec.build(3), torch.rand(2, 3, size, size)
    write_weights(tmp_path, written)
    loaded = load_model(spec, tmp_path, torch.device("cpu"))
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in written.state_dict().items())
    assert torch.equal(loaded(images), written(images))


def test_fused_attention_is_close_and_undone():
    network, images = make_network("vit", **VIT), torch.rand(3, 1, 8, 8)
    layers = [block.attn for block in network.blocks]
    plain = network(images)
    with fused_attention(network, CUDA):
        assert [layer.fused_attn for layer in layers] == [True, True]
        torch.testing.assert_close(network(images), plain)
    assert [layer.fused_attn for layer in layers] == [False, False]
    assert torch.equal(network(images), plain)


def test_fused_attention_is_for_gpus_that_count_nothing():
    network = make_network("vit", **VIT)
    with fused_attention(network, torch.device("cpu")):
        assert not network.blocks[0].attn.fused_attn
    with count_flops(), fused_attention(network, CUDA):
        assert not network.blocks[0].attn.fused_attn
