"""SCRUB: the direction of the divergence, and who moves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from forgetbench.methods._distillation import entropy, frozen_copy, kl_divergence
from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.scrub import Scrub
from forgetbench.training import Examples, Recipe, predict


class Linear(nn.Module):
    """Pixels to logits: small enough to differentiate by hand."""

    def __init__(self, pixels: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(pixels, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


def request(count: int = 6, outputs: int = 3) -> ForgetRequest:
    generator = torch.Generator().manual_seed(1)
    examples = [
        Examples(
            torch.randint(0, 256, (count, 1, 2, 2), generator=generator, dtype=torch.uint8),
            torch.randint(0, outputs, (count,), generator=generator),
        )
        for _ in range(3)
    ]
    forget, retain, validation = examples
    return ForgetRequest(
        forget=forget,
        retain=retain,
        validation=validation,
        seed=4,
        recipe=Recipe(),
        new_network=lambda: Linear(4, outputs),
    )


def test_kl_divergence_is_from_teacher_to_student():
    teacher = np.array([0.7, 0.2, 0.1])
    student = np.array([0.3, 0.3, 0.4])
    by_hand = float((teacher * np.log(teacher / student)).sum())
    got = kl_divergence(torch.tensor(teacher).log()[None], torch.tensor(student).log()[None])
    assert float(got) == pytest.approx(by_hand, rel=1e-6)
    assert float((student * np.log(student / teacher)).sum()) != pytest.approx(by_hand, rel=1e-2)


def test_kl_divergence_of_attributes_averages_bernoullis():
    teacher, student = np.array([0.9, 0.4]), np.array([0.5, 0.7])
    by_hand = (teacher * np.log(teacher / student) + (1 - teacher) * np.log((1 - teacher) / (1 - student))).mean()
    logits = [torch.logit(torch.tensor(each))[None] for each in (teacher, student)]
    assert float(kl_divergence(logits[0], logits[1], attributes=True)) == pytest.approx(by_hand, rel=1e-6)


def test_kl_divergence_temperature_divides_the_logits():
    teacher, student = torch.tensor([[4.0, 0.0, -2.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert float(kl_divergence(teacher, student, temperature=2.0)) == pytest.approx(
        float(kl_divergence(teacher / 2, student / 2)), rel=1e-6
    )


def test_entropy_of_a_uniform_prediction_is_maximal():
    assert float(entropy(torch.zeros(1, 4))) == pytest.approx(np.log(4), rel=1e-6)
    assert float(entropy(torch.zeros(1, 3), attributes=True)) == pytest.approx(np.log(2), rel=1e-6)


def test_scrub_moves_the_student_and_not_the_teacher():
    model, forget_request = Linear(4, 3), request()
    before = copy.deepcopy(model.state_dict())
    student = Scrub(epochs=2, lr=0.1).unlearn(model, forget_request)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(student.head.weight, before["head.weight"])
    model.train()
    teacher = frozen_copy(model)
    assert all(not parameter.requires_grad for parameter in teacher.parameters())
    assert model.training
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    shared = zip(model.state_dict().values(), teacher.state_dict().values(), strict=True)
    assert all(one.data_ptr() == other.data_ptr() for one, other in shared)  # a teacher takes no memory


def test_scrub_min_step_equals_hand_computed_one():
    """Where student and teacher are one, the divergence has no gradient: the first min-step is plain descent."""
    model, forget_request = Linear(4, 3), request()
    method = Scrub(epochs=1, max_epochs=0, lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=6, gamma=0.5)
    student = method.unlearn(model, forget_request)
    images = forget_request.retain.images.float().flatten(1) / 255
    wrong = (images @ model.head.weight.T + model.head.bias).softmax(1) - torch.eye(3)[forget_request.retain.labels]
    expected = model.head.weight - 0.1 * 0.5 * wrong.T @ images / 6
    torch.testing.assert_close(student.head.weight, expected)


def test_scrub_max_passes_increase_forget_divergence():
    model, forget_request = Linear(4, 3), request()

    def kl(student: nn.Module) -> float:
        answers = [torch.tensor(predict(each, forget_request.forget)) for each in (model, student)]
        return float(kl_divergence(answers[0], answers[1]).mean())

    values = {"epochs": 3, "lr": 0.05, "decay": 1.0, "forget_batch_size": 2}
    assert kl(Scrub(max_epochs=3, **values).unlearn(model, forget_request)) > 2 * kl(
        Scrub(max_epochs=0, **values).unlearn(model, forget_request)
    )
