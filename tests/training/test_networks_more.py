"""resnet9, the fast network, and any model of timm; and what store keys know of the files that define them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from forgetbench.errors import UsageError
from forgetbench.networks.base import Network, build_network, networks, source_modules
from forgetbench.networks.fast import Whitening


def build(name: str, size: int = 32, channels: int = 3, outputs: int = 5, start: int = 0, **options: Any) -> Network:
    return build_network(
        name,
        options=options,
        channels=channels,
        height=size,
        width=size,
        outputs=outputs,
        mean=(0.4,) * channels,
        std=(0.2,) * channels,
        seed=start,
    )


TIMM: list[tuple[str, int, dict[str, Any], int, str]] = [
    ("timm/resnet10t", 32, {}, 4, "resnet18"),
    ("timm/vit_tiny_patch16_224", 16, {"arguments": {"patch_size": 4, "depth": 2}}, 2, "vit"),
    ("timm/convnext_atto", 32, {}, 4, "resnet18"),
    ("timm/mobilenetv3_small_050", 32, {}, 6, "resnet18"),
    ("timm/regnety_002", 32, {}, 4, "resnet18"),
    ("timm/mixer_s32_224", 64, {}, 8, ""),
    ("timm/levit_128s", 16, {"enlarge": 224}, 3, ""),
]


@pytest.mark.parametrize(("name", "size", "options", "blocks", "like"), TIMM, ids=[case[0] for case in TIMM])
def test_models_of_timm_keep_the_promise_of_a_network(name, size, options, blocks, like):
    net = build(name, size, **options)
    images = torch.rand(2, 3, size, size)
    assert net(images).shape == (2, 5)
    torch.testing.assert_close(net.head(net.features(images)), net(images))
    assert net.head.in_features == net.features(images).shape[1] == net.body.width
    assert len(net.blocks) == blocks
    assert net.body.like == like
    order = []
    for place, block in enumerate(net.blocks):
        block.register_forward_hook(lambda *_, place=place: order.append(place))
    net(images)
    assert order == list(range(blocks))
    again, other = build(name, size, **options).state_dict(), build(name, size, start=1, **options).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in net.state_dict().items())
    assert any(not torch.equal(value, other[key]) for key, value in net.state_dict().items())


def test_a_timm_resnet18_is_our_resnet18():
    ours, theirs = build("resnet18").state_dict(), build("timm/resnet18").state_dict()
    assert ours.keys() == theirs.keys()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_small_stems():
    images = torch.rand(1, 3, 32, 32)

    def side(net: Network) -> int:
        return int(net.blocks[0](net.body.model.maxpool(net.body.model.conv1(images))).shape[-1])

    assert side(build("timm/resnet18")) == 32
    assert side(build("timm/resnet18", stem="own")) == 8
    assert side(build("timm/resnet18", stem="small", enlarge=64)) == 32  # of 32 pixels here, not enlarged
    assert build("timm/efficientnet_b0").body.model.conv_stem.stride == (1, 1)
    with pytest.raises(UsageError, match="no stem that can be made smaller"):
        build("timm/convnext_atto", stem="small")


def test_attributes_and_grey_images():
    net = build("timm/resnet10t", channels=1, outputs=3)
    assert net(torch.rand(2, 1, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "size", "options", "message"),
    [
        ("timm/resnet181", 32, {}, "has no model 'resnet181'. Did you mean 'timm/resnet18'"),
        ("timm/vit_smal", 32, {}, "Did you mean 'timm/vit_small_"),
        (
            "timm/resnet18.nonsense",
            32,
            {},
            "no weights timm/resnet18.nonsense; it has timm/resnet18.a1_in1k, .*tv_in1k",
        ),
        ("timm/resnet18.nonsense", 32, {"pretrained": True}, "no weights timm/resnet18.nonsense"),
        ("tim/resnet18", 32, {}, "Unknown network 'tim/resnet18'.*timm/NAME"),
        ("timm/resnet10t", 32, {"stm": "own"}, "Did you mean 'stem'"),
        ("timm/resnet10t", 32, {"stem": "tiny"}, "auto, own or small"),
        ("timm/resnet10t", 32, {"enlarge": 0}, "enlarge"),
        ("timm/resnet10t", 32, {"arguments": {"wdith": 3}}, "cannot make resnet10t with.*wdith"),
        ("timm/vit_tiny_patch16_224", 10, {}, "cannot"),
        ("resnet9", 8, {}, "12 pixels"),
        ("fast", 32, {"width": 0}, "width"),
    ],
)
def test_wrong_names_options_and_sizes_are_refused(name, size, options, message):
    with pytest.raises(UsageError, match=message):
        build(name, size, **options)


def test_families_are_listed_by_their_pattern_alone():
    assert not [name for name in networks.names() if "/" in name]
    assert "timm/resnet18" in networks.names("timm/resnet1*")
    assert "timm/NAME" in networks.families()


def test_store_keys_know_the_files_of_the_networks_that_use_them():
    assert source_modules("cnn", {}) == source_modules("resnet18", {}) == ()
    assert source_modules("fast", {}) == ("forgetbench.networks.fast",)
    checkpoint = {"checkpoint": "x", "sha256": "y"}
    assert source_modules("timm/resnet18", checkpoint) == (
        "forgetbench.networks.pretrained",
        "forgetbench.networks.timm",
    )


def test_whitening_decorrelates_patches_that_correlate_as_it_says():
    layer = Whitening(3, floor=0.0)
    near = np.array([[1, 0.95], [0.95, 1]])
    colors = np.full((3, 3), 0.9) + 0.1 * np.eye(3)
    covariance = np.kron(colors, np.kron(near, near))
    filters = layer.filters.numpy().astype(np.float64)
    directions = filters[:12].reshape(12, 12)
    np.testing.assert_allclose(directions @ covariance @ directions.T, np.eye(12), atol=1e-4)
    np.testing.assert_array_equal(filters[12:], -filters[:12])


@pytest.mark.parametrize(("name", "millions"), [("resnet9", 2.27), ("fast", 1.97)])
def test_fast_networks_have_the_size_that_they_are_known_for_and_second_derivatives(name, millions):
    net = build(name, outputs=10)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    net = build(name, 12, width=4)
    loss = net(torch.rand(2, 3, 12, 12)).square().sum()
    gradients = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    norm = sum(gradient.square().sum() for gradient in gradients)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(norm, list(net.parameters())))


def test_convolutions_of_the_fast_network_start_as_identity():
    net = build("fast", width=32)
    convolution = next(part for part in net.blocks[1].modules() if isinstance(part, nn.Conv2d))
    kept = torch.rand(1, convolution.in_channels, 5, 5)
    torch.testing.assert_close(convolution(kept)[:, : convolution.in_channels], kept)
