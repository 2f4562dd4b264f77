"""JiT: the penalty of a linear model, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.jit import JiT, accumulate_gradients, lipschitz_ratios
from forgetbench.training import Examples, Recipe


class Pixels(nn.Module):
    """Four pixels to three logits, with the buffer that networks keep their scale in."""

    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("std", torch.full((1, 1, 1, 1), 0.25))
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.arange(12).view(3, 4) / 5 - 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head((images / self.std).flatten(1))


def requested(count: int) -> ForgetRequest:
    images = torch.randint(0, 256, (count, 1, 2, 2), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    examples = Examples(images, torch.zeros(count, dtype=torch.int64))
    return ForgetRequest(
        forget=examples, retain=examples, validation=examples, seed=0, recipe=Recipe(), new_network=Pixels
    )


def test_lipschitz_ratios_of_a_linear_model_are_stretches():
    model = Pixels()
    noises = torch.randn(5, 3, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    images = torch.full((3, 1, 2, 2), 0.5)
    images[1], images[2] = -100.0, 100.0  # so that nothing of the first image's neighbors is clamped
    got = lipschitz_ratios(model, images, noises, model.std)[0]
    flat = noises[:, 0].flatten(1)
    by_hand = ((flat @ model.head.weight.T).norm(dim=1) / flat.norm(dim=1)).mean()
    torch.testing.assert_close(got, by_hand, rtol=1e-4, atol=0.0)


def test_lipschitz_ratios_measure_noise_after_the_clamp():
    model = Pixels()
    images = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    noises = torch.tensor([-1.0, 1.0, 1.0, -4.0]).view(1, 1, 1, 2, 2)  # the first two leave the range of the batch
    got = lipschitz_ratios(model, images, noises, model.std)
    left = torch.tensor([0.0, 0.0, 1.0, -2.0])
    by_hand = (model.head.weight @ left).norm() / left.norm()
    torch.testing.assert_close(got[0], by_hand)


def test_jit_flattens_the_model_without_labels():
    model, request = Pixels(), requested(6)
    before = model.head.weight.clone()
    edited = JiT(epochs=20, lr=1e-2, samples=5, batch_size=2).unlearn(model, request)
    assert float(torch.linalg.matrix_norm(edited.head.weight.detach(), 2)) < float(
        torch.linalg.matrix_norm(before.detach(), 2)
    )
    assert torch.equal(model.head.weight, before)
    other = requested(6)
    object.__setattr__(other, "forget", other.forget.relabel(torch.ones(6, dtype=torch.int64)))
    again = JiT(epochs=20, lr=1e-2, samples=5, batch_size=2).unlearn(model, other)
    assert torch.equal(again.head.weight, edited.head.weight)


def test_accumulate_gradients_adds_up_all_steps():
    layer = nn.Linear(1, 1, bias=False)
    start = float(layer.weight.detach())
    optimizer, sums = torch.optim.SGD(layer.parameters(), lr=1.0), {}
    for gradient in (1.0, 10.0, 100.0):
        optimizer.zero_grad()
        (layer.weight * gradient).sum().backward()
        accumulate_gradients(layer, sums)
        optimizer.step()
    assert float(layer.weight.detach()) == pytest.approx(start - (1 + (1 + 10) + (1 + 10 + 100)))


def test_lipschitz_ratios_constant_neighbors_take_no_gradients():
    model = Pixels()
    images = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    noises = torch.tensor([0.0, 0.0, 1.0, -2.0]).view(1, 1, 1, 2, 2)
    lipschitz_ratios(model, images, noises, model.std, constant=True).sum().backward()
    # d ||f(x) - c|| / d bias is the direction from c to f(x); the two biases cancel where both move
    direction = -(model.head.weight @ noises.flatten()).detach()
    torch.testing.assert_close(model.head.bias.grad, direction / direction.norm() / noises.norm())
    model.head.bias.grad = None
    lipschitz_ratios(model, images, noises, model.std).sum().backward()
    torch.testing.assert_close(model.head.bias.grad, torch.zeros(3), rtol=0.0, atol=1e-6)
