"""Any model of timm as a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.training import make_spec

from forgetbench.errors import UsageError
from forgetbench.networks import Network, networks
from forgetbench.networks.base import source_modules


def build(name: str, size: int = 32, channels: int = 3, outputs: int = 5, seed: int = 0, **options: Any) -> Network:
    return make_spec(name, size, channels, outputs, **options).build(seed)


TIMM: list[tuple[str, int, dict[str, Any], int, str]] = [
    ("timm/resnet10t", 32, {}, 4, "resnet18"),
    ("timm/vit_tiny_patch16_224", 16, {"arguments": {"patch_size": 4, "depth": 2}}, 2, "vit"),
    ("timm/convnext_atto", 32, {}, 4, "resnet18"),
    ("timm/mobilenetv3_small_050", 32, {}, 6, "resnet18"),
    ("timm/regnety_002", 32, {}, 4, "resnet18"),
    ("timm/mixer_s32_224", 64, {}, 8, ""),
    ("timm/levit_128s", 16, {"enlarge": 224}, 3, ""),
]


@pytest.mark.parametrize(("name", "size", "options", "blocks", "similar"), TIMM, ids=[case[0] for case in TIMM])
def test_timm_models_have_features_head_and_blocks(name, size, options, blocks, similar):
    net = build(name, size, **options)
    images = torch.rand(2, 3, size, size)
    assert net(images).shape == (2, 5)
    torch.testing.assert_close(net.head(net.features(images)), net(images))
    assert net.head.in_features == net.features(images).shape[1] == net.body.width
    assert len(net.blocks) == blocks
    assert net.body.similar_to == similar
    order = []
    for place, block in enumerate(net.blocks):
        block.register_forward_hook(lambda *_, place=place: order.append(place))
    net(images)
    assert order == list(range(blocks))
    again, other = build(name, size, **options).state_dict(), build(name, size, seed=1, **options).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in net.state_dict().items())
    assert any(not torch.equal(value, other[key]) for key, value in net.state_dict().items())


def test_timm_resnet18_has_the_tensors_of_resnet18():
    ours, theirs = build("resnet18").state_dict(), build("timm/resnet18").state_dict()
    assert ours.keys() == theirs.keys()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_stem_option_chooses_size_of_first_feature_map():
    images = torch.rand(1, 3, 32, 32)

    def side(net: Network) -> int:
        return int(net.blocks[0](net.body.model.maxpool(net.body.model.conv1(images))).shape[-1])

    assert side(build("timm/resnet18")) == 32
    assert side(build("timm/resnet18", stem="own")) == 8
    assert side(build("timm/resnet18", stem="small", enlarge=64)) == 32  # of 32 pixels here, not enlarged
    assert build("timm/efficientnet_b0").body.model.conv_stem.stride == (1, 1)
    with pytest.raises(UsageError, match="its stem cannot be made smaller"):
        build("timm/convnext_atto", stem="small")


def test_timm_accepts_gray_images():
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
        ("timm/resnet10t", 32, {"stem": "tiny"}, "auto \\| own \\| small"),
        ("timm/resnet10t", 32, {"enlarge": 0}, "enlarge"),
        ("timm/resnet10t", 32, {"arguments": {"wdith": 3}}, "cannot build resnet10t with.*wdith"),
        ("timm/vit_tiny_patch16_224", 10, {}, "cannot"),
        ("resnet9", 8, {}, "12 pixels"),
        ("fast", 32, {"width": 0}, "width"),
    ],
)
def test_wrong_names_options_and_sizes_are_refused(name, size, options, message):
    with pytest.raises(UsageError, match=message):
        build(name, size, **options)


def test_families_are_listed_only_by_their_pattern():
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
