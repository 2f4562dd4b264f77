"""Boundary shrink: the neighboring class of a linear model, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.boundary_shrink import BoundaryShrink, neighboring_classes
from forgetbench.training import Examples, Recipe, predict


class Pixels(nn.Module):
    """Two pixels, three classes, no bias."""

    def __init__(self, weight: list[list[float]]) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(weight))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


@pytest.fixture
def model() -> Pixels:
    return Pixels([[10.0, 0.0], [0.0, 10.0], [-10.0, 2.0]])


def examples(*pixels: tuple[int, int]) -> Examples:
    images = torch.tensor(pixels, dtype=torch.uint8).view(len(pixels), 1, 1, 2)
    return Examples(images, torch.zeros(len(pixels), dtype=torch.int64))


def test_neighboring_class_is_the_nearest_wrong_one(model):
    # at (0.5, 0.4) of class 0 the loss grows toward (-, +): at (0.4, 0.5) the logits are 4, 5 and -3
    assert neighboring_classes(model, examples((127, 102)), 0.1).tolist() == [1]


def test_neighboring_class_of_an_unmoved_image_is_the_next(model):
    far = examples((255, 0))
    # at (1, 0) the step leads to (0.9, 0.1): logits 9, 1 and -8.8
    assert neighboring_classes(model, far, 0.1).tolist() == [1]
    assert neighboring_classes(model, far, 0.1, allow_true=True).tolist() == [0]


def test_neighboring_class_is_taken_at_the_attacked_image():
    model = Pixels([[10.0, -10.0], [0.0, 10.0], [6.0, 1.0]])
    # at (0.2, 0.1) the logits are 1, 1 and 1.3; the step toward (-, +) leads to (0, 0.4): -4, 4 and 0.4
    image = examples((51, 26))
    assert predict(model, image).argmax(1).tolist() == [2]
    assert neighboring_classes(model, image, 0.3).tolist() == [1]


def test_boundary_shrink_learns_the_neighboring_classes(model):
    everything = examples((255, 0), (200, 90))
    request = ForgetRequest(
        forget=everything,
        retain=everything,
        validation=everything,
        seed=0,
        recipe=Recipe(),
        new_network=lambda: model,
    )
    weight = model.head.weight.clone()
    edited = BoundaryShrink(epochs=50, lr=0.5).unlearn(model, request)
    assert predict(edited, everything).argmax(1).tolist() == [1, 1]
    assert torch.equal(model.head.weight, weight)
    assert request.notes["attack success"] == 1.0
