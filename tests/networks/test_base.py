"""Networks: what each promises, whatever library it came from."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from support.training import make_spec
from torch import nn

from forgetbench.errors import UsageError
from forgetbench.networks import build_network, networks

CASES = [("cnn", 8), ("cnn", 28), ("cnn", 64), ("mlp", 8), ("mlp", 32), ("resnet18", 32), ("vit", 8), ("vit", 28)]
CASES += [("resnet9", 12), ("resnet9", 32), ("fast", 12), ("fast", 32), ("lenet", 16), ("lenet", 32)]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_network_output_is_head_of_features(name, size):
    net = make_spec(name, size).build(0)
    images = torch.rand(2, 3, size, size)
    assert not net.training
    assert isinstance(net.head, nn.Linear)
    assert net(images).shape == (2, 5)
    torch.testing.assert_close(net.head(net.features(images)), net(images))
    assert net.features(images).shape == (2, net.head.in_features)


@pytest.mark.parametrize(("name", "size"), [("cnn", 8), ("mlp", 8), ("resnet18", 8), ("vit", 8)])
def test_build_equal_seeds_give_equal_bits(name, size):
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first, again, other = (make_spec(name, size).build(seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize(("name", "count"), [("cnn", 3), ("mlp", 2), ("resnet18", 8), ("vit", 4)])
def test_blocks_are_in_order_of_forward_pass(name, count):
    net = make_spec(name).build(0)
    order = []
    for place, block in enumerate(net.blocks):
        block.register_forward_hook(lambda *_, place=place: order.append(place))
    net(torch.rand(1, 3, 8, 8))
    assert order == list(range(count))
    inside = {id(p) for block in net.blocks for p in block.parameters()}
    assert not inside & {id(p) for p in net.head.parameters()}


def test_network_normalizes_images():
    net = make_spec("mlp", channels=2).build(0)
    images = torch.rand(3, 2, 8, 8)
    by_hand = net.body((images - 0.4) / 0.2)
    torch.testing.assert_close(net.features(images), by_hand)


def test_vit_has_second_derivatives():
    net = make_spec("vit", dim=8, depth=1, heads=2).build(0)
    loss = net(torch.rand(2, 3, 8, 8)).square().sum()
    gradients = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    norm = sum(gradient.square().sum() for gradient in gradients)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(norm, list(net.parameters())))


def test_resnet18_keeps_small_images_large():
    net = make_spec("resnet18", 16).build(0)
    assert net.blocks[0](net.body.model.conv1(torch.rand(1, 3, 16, 16))).shape[-1] == 16


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("cnn", {"widht": 3}, "width"),
        ("cnn", {"width": 0}, "width"),
        ("mlp", {"hidden": []}, "hidden"),
        ("mlp", {"hidden": [0]}, "hidden"),
        ("vit", {"heads": 3}, "heads"),
        ("vit", {"patch": 3}, "patch"),
        ("vgg", {}, "cnn"),
    ],
)
def test_build_wrong_option_error_names_it(name, options, word):
    with pytest.raises(UsageError, match=word):
        make_spec(name, **options).build(0)


def test_build_wrong_shapes_are_refused():
    with pytest.raises(UsageError, match="8 pixels"):
        make_spec("cnn", 4).build(0)
    with pytest.raises(UsageError, match="std"):
        build_network("mlp", options={}, channels=1, height=8, width=8, outputs=2, mean=(0.5,), std=(0.0,), seed=0)
    with pytest.raises(UsageError, match="output"):
        make_spec("mlp", outputs=0).build(0)


def test_small_networks_import_only_torch():
    code = (
        "import sys; from forgetbench.networks import build_network; "
        "build_network('cnn', options={}, channels=1, height=8, width=8, outputs=2, mean=(.5,), std=(.5,), seed=0); "
        "sys.exit(any(name in sys.modules for name in ('timm', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_all_registered_networks_build():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(networks.names()) >= {"cnn", "fast", "mlp", "resnet18", "resnet9", "vit"}
        for name in networks.names():
            make_spec(name, 16).build(0)
