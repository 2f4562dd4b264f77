"""Boundary expanding: the wider head and the way back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.boundary_expand import BoundaryExpand, add_output
from forgetbench.training import Examples, Recipe


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


def test_add_output_keeps_the_real_outputs():
    head = nn.Linear(400, 3)
    wide = add_output(head, torch.Generator().manual_seed(0))
    assert wide.weight.shape == (4, 400)
    assert torch.equal(wide.weight[:3], head.weight)
    assert torch.equal(wide.bias, torch.cat([head.bias, torch.zeros(1)]))
    assert float(wide.weight[3].detach().std()) == pytest.approx((2 / 404) ** 0.5, rel=0.1)  # Xavier's normal


def test_boundary_expand_step_equals_hand_computed_one():
    model = Pixels()
    images = torch.randint(0, 256, (5, 1, 2, 2), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    examples = Examples(images, torch.zeros(5, dtype=torch.int64))
    request = ForgetRequest(
        forget=examples, retain=examples, validation=examples, seed=3, recipe=Recipe(), new_network=Pixels
    )
    before = model.head.weight.clone()
    edited = BoundaryExpand(epochs=1, lr=0.1, momentum=0.0).unlearn(model, request)
    wide = add_output(model.head, request.generator(0))
    inputs = images.float().flatten(1) / 255
    # the gradient of the cross-entropy to a real class that is not the target is its probability
    gradient = wide(inputs).softmax(1).T @ inputs / 5
    torch.testing.assert_close(edited.head.weight, before - 0.1 * gradient[:3].detach())
    assert edited.head.out_features == 3
    assert torch.equal(model.head.weight, before)
