"""resnet9, and the network modeled on airbench."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.training import make_spec
from torch import nn

from forgetbench.networks.fast import Whitening


def test_whitening_decorrelates_modeled_patches():
    layer = Whitening(3, floor=0.0)
    near = np.array([[1, 0.95], [0.95, 1]])
    colors = np.full((3, 3), 0.9) + 0.1 * np.eye(3)
    covariance = np.kron(colors, np.kron(near, near))
    filters = layer.filters.numpy().astype(np.float64)
    directions = filters[:12].reshape(12, 12)
    np.testing.assert_allclose(directions @ covariance @ directions.T, np.eye(12), atol=1e-4)
    np.testing.assert_array_equal(filters[12:], -filters[:12])


@pytest.mark.parametrize(("name", "millions"), [("resnet9", 2.27), ("fast", 1.97)])
def test_fast_networks_have_known_size_and_hessian(name, millions):
    net = make_spec(name, 32, outputs=10).build(0)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    net = make_spec(name, 12, width=4).build(0)
    loss = net(torch.rand(2, 3, 12, 12)).square().sum()
    gradients = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    norm = sum(gradient.square().sum() for gradient in gradients)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(norm, list(net.parameters())))


def test_fast_convolutions_start_as_identity():
    net = make_spec("fast", 32, width=32).build(0)
    convolution = next(part for part in net.blocks[1].modules() if isinstance(part, nn.Conv2d))
    images = torch.rand(1, convolution.in_channels, 5, 5)
    torch.testing.assert_close(convolution(images)[:, : convolution.in_channels], images)
