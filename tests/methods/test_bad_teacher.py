"""Bad teaching: each part of the data follows its own teacher."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from forgetbench.methods._distillation import kl_divergence
from forgetbench.methods.bad_teacher import BadTeacher
from forgetbench.methods.base import ForgetRequest
from forgetbench.training import Examples, Recipe, predict


class Table(nn.Module):
    """A free row of logits for each of eight images, which differ in one lit pixel: it can follow any teacher."""

    def __init__(self, seed: int, outputs: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(8, outputs)
        with torch.no_grad():
            self.head.weight.copy_(2 * torch.randn(outputs, 8, generator=torch.Generator().manual_seed(seed)))
            self.head.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


@pytest.fixture
def forget_request() -> ForgetRequest:
    images = (torch.eye(8).view(8, 1, 2, 4) * 255).to(torch.uint8)
    everything = Examples(images, torch.arange(8) % 3)
    return ForgetRequest(
        forget=everything.take([0, 1, 2]),
        retain=everything.take([3, 4, 5, 6, 7]),
        validation=everything,
        seed=2,
        recipe=Recipe(),
        new_network=lambda: Table(99),
    )


def test_bad_teacher_student_follows_the_teacher_of_each_set(forget_request):
    good, bad = Table(1), Table(99)
    before = copy.deepcopy(good.state_dict())
    student = BadTeacher(epochs=400, lr=0.05, retain_ratio=1.0, batch_size=8).unlearn(good, forget_request)

    def kl(teacher: nn.Module, examples: Examples) -> float:
        answers = [torch.tensor(predict(each, examples)) for each in (teacher, student)]
        return float(kl_divergence(answers[0], answers[1]).mean())

    assert kl(bad, forget_request.forget) < 1e-3
    assert kl(good, forget_request.retain) < 1e-3
    assert kl(good, forget_request.forget) > 0.1
    assert all(torch.equal(value, before[name]) for name, value in good.state_dict().items())


def test_bad_teacher_reads_only_retain_ratio_of_the_retain_set(forget_request):
    seen = []
    take = forget_request.retain.take
    forget_request.retain.take = lambda rows: seen.append(len(rows)) or take(rows)
    BadTeacher(epochs=1, retain_ratio=0.4).unlearn(Table(1), forget_request)
    assert seen == [2]
