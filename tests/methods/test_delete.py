"""DELETE: the target by hand, and where the training leads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.delete import Delete, masked_probabilities
from forgetbench.training import Examples, Recipe, predict


def test_masked_probabilities_keep_proportions_of_other_classes():
    probabilities = np.array([0.6, 0.3, 0.1])
    got = masked_probabilities(torch.tensor(probabilities).log()[None], torch.tensor([0]))
    np.testing.assert_allclose(got.numpy(), [[0.0, 0.75, 0.25]], rtol=1e-6)


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


def test_delete_reaches_the_target():
    model = Pixels()
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[3.0, 0, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0]]))
    images = (torch.eye(4)[:1].view(1, 1, 2, 2) * 255).to(torch.uint8)
    example = Examples(images, torch.tensor([0]))
    request = ForgetRequest(
        forget=example, retain=example.join(example), validation=example, seed=0, recipe=Recipe(), new_network=Pixels
    )
    before = torch.tensor(predict(model, example)).softmax(1)[0]
    after = torch.tensor(predict(Delete(epochs=200, lr=0.5).unlearn(model, request), example)).softmax(1)[0]
    assert float(after[0]) < 0.01
    assert float(after[1] / after[2]) == pytest.approx(float(before[1] / before[2]), rel=0.05)
