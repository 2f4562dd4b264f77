"""Convolution transpose: what is swapped, by hand."""

from __future__ import annotations

import torch
from torch import nn

from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.ct import ConvolutionTranspose, transpose_kernels
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe


def test_transpose_kernels_swaps_height_and_width():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 1, 1), nn.Conv2d(1, 1, (1, 2)), nn.Linear(2, 2))
    before = [layer.weight.detach().clone() for layer in network]
    assert transpose_kernels(network) == 1
    assert torch.equal(network[0].weight, before[0].permute(0, 1, 3, 2))
    for place in (1, 2, 3):
        assert torch.equal(network[place].weight, before[place])


def test_transposed_network_on_transposed_images_equals_original():
    spec = NetworkSpec(
        name="cnn", channels=1, height=8, width=8, outputs=3, mean=(0.5,), std=(0.3,), options={"width": 2}
    )
    network = spec.build(0)
    images = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    examples = Examples(images, torch.arange(6) % 3)
    request = ForgetRequest(
        forget=examples, retain=examples, validation=examples, seed=1, recipe=Recipe(), new_network=lambda: network
    )
    method = ConvolutionTranspose(epochs=1, lr=1e-12, momentum=0.0, weight_decay=0.0)
    edited = method.unlearn(network, request)
    assert request.notes["transposed kernels"] == 3
    edited.load_state_dict(
        {name: value for name, value in network.state_dict().items() if "running" in name}, strict=False
    )
    floats = images.float() / 255
    torch.testing.assert_close(edited(floats.transpose(2, 3)), network(floats), rtol=1e-4, atol=1e-5)
