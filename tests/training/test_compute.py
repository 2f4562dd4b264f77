"""Seeds, memory layout and the count of floating-point operations."""

from __future__ import annotations

import torch
from support.training import make_network
from torch import nn

from forgetbench.training import count_flops
from forgetbench.training.compute import channels_last, derive_seed, seeded


def test_derive_seed_depends_on_all_bits():
    assert derive_seed(1) % 2**32 != derive_seed(1 + 2**32) % 2**32
    assert derive_seed(1, 2) != derive_seed(2, 1)


def test_seeded_determines_random_numbers():
    with seeded(3):
        first = torch.rand(4)
    with seeded(3):
        assert torch.equal(first, torch.rand(4))


def test_channels_last_layout_is_undone():
    net = make_network()
    with channels_last(net):
        assert not all(p.is_contiguous() for p in net.parameters())
    assert all(p.is_contiguous() for p in net.parameters())


def test_count_flops_of_linear_layer_matches_hand_count():
    layer, x = nn.Linear(6, 5, bias=False), torch.rand(7, 6)
    with count_flops() as count:
        layer(x)
        forward = count.total
        with count.paused():
            layer(x)
        layer(x).sum().backward()
    assert forward == 2 * 7 * 6 * 5
    assert count.total == 3 * forward  # the images need no gradient: forward, forward, weight gradient


def test_count_flops_includes_gradients_of_images():
    net, images = make_network(), torch.rand(2, 1, 8, 8, requires_grad=True)
    with count_flops() as count:
        torch.autograd.grad(net(images).sum(), images)
    with torch.inference_mode(), count_flops() as inference:
        net(images)
    assert count.total > inference.total > 0
