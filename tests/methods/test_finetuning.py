"""The shared hyper-parameters `schedule`, `min_lr`, `clip` and `augment`, and what differs in single methods."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.methods import methods
from forgetbench.methods._finetuning import SCHEDULES, schedule_option, scheduled_lr
from forgetbench.methods._training import train_loop
from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.boundary_shrink import neighboring_classes
from forgetbench.methods.cf_k import CFK, last_block_names
from forgetbench.methods.contract import UnreadableExamples
from forgetbench.methods.eu_k import EUK
from forgetbench.methods.gradient_ascent import GradientAscent
from forgetbench.methods.scrub import Scrub
from forgetbench.networks import NetworkSpec
from forgetbench.options import option_specs
from forgetbench.training import DivergedError, Examples, Recipe, classification_loss, make_optimizer

CNN = NetworkSpec(name="cnn", channels=1, height=8, width=8, outputs=3, mean=(0.5,), std=(0.3,), options={"width": 2})
MLP = dataclasses.replace(CNN, name="mlp", options={"hidden": (4,), "batch_norm": True})


def request(spec: NetworkSpec = CNN, forget: int = 6) -> ForgetRequest:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (30, 1, 8, 8), generator=generator, dtype=torch.uint8)
    everything = Examples(images, torch.arange(30) % 3)
    return ForgetRequest(
        forget=everything.take(range(forget)),
        retain=everything.take(range(6, 30)),
        validation=everything.take(range(4)),
        seed=4,
        recipe=Recipe(augment=("crop",)),
        new_network=lambda: spec.build(9),
    )


def same(left: nn.Module, right: nn.Module) -> bool:
    values = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in values)


def rates_of_torch(kind: type, epochs: int, **values: float) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler, rates = kind(optimizer, eta_min=0.05, **values), []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_scheduled_lr_restarts_as_torch_does():
    expected = rates_of_torch(torch.optim.lr_scheduler.CosineAnnealingWarmRestarts, 70, T_0=1, T_mult=2)
    got = [scheduled_lr("restart", 0.5, 0.05, epoch, 70, 0.123) for epoch in range(70)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert [epoch for epoch in range(70) if got[epoch] == 0.5] == [0, 1, 3, 7, 15, 31, 63]


def test_scheduled_lr_of_a_cosine_equals_torch():
    expected = rates_of_torch(torch.optim.lr_scheduler.CosineAnnealingLR, 11, T_max=10)
    got = [scheduled_lr("cosine", 0.5, 0.05, 0, 3, step / 10) for step in range(11)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert got[-1] == pytest.approx(0.05)
    by_epoch = [scheduled_lr("cosine-by-epoch", 0.5, 0.05, epoch, 10, 0.123) for epoch in range(11)]
    np.testing.assert_allclose(by_epoch, expected, rtol=1e-12)
    assert scheduled_lr("constant", 0.5, 0.05, 3, 4, 0.9) == 0.5


def test_schedule_is_declared_by_the_helper():
    having = [name for name in methods.names() if "schedule" in option_specs(methods.get(name))]
    assert {"finetune", "cf-k", "eu-k", "ct", "seif", "fanchuan"} <= set(having)
    for name in having:
        spec = option_specs(methods.get(name))["schedule"]
        assert (spec.choices, spec.help) == (SCHEDULES, schedule_option("cosine").metadata["option"].help)
        assert "min_lr" in option_specs(methods.get(name))


AUGMENTED = [name for name in methods.names() if "augment" in option_specs(methods.get(name))]


@pytest.mark.parametrize("name", AUGMENTED)
def test_augment_follows_the_recipe(name):
    """Without an augmentation in the recipe the option changes nothing, with one it does."""
    kind = methods.get(name)
    values = {"epochs": 1, "k": 1, "floor": None}
    values = {key: value for key, value in values.items() if key in option_specs(kind)}
    for recipe, differs in ((Recipe(augment=("crop",)), True), (Recipe(), False)):
        forget_request = dataclasses.replace(request(), recipe=recipe)
        results = [
            kind.from_dict({**values, "augment": augment}).unlearn(CNN.build(0), forget_request)
            for augment in (False, True)
        ]
        assert same(*results) != differs


@pytest.mark.parametrize("clip", [None, 0.25])
def test_step_clips_the_norm_of_all_gradients(clip):
    network, forget_request = CNN.build(0), request()
    optimizer = make_optimizer(network.parameters(), "sgd", 1e-3, 0.0)
    with train_loop(network, forget_request, optimizer, "x", batch_norm="eval") as loop:
        images, labels = next(forget_request.forget.batches(6))
        loop.step(100 * classification_loss(network(images), labels), clip=clip)
        norm = float(torch.stack([each.grad.norm() for each in network.parameters() if each.grad is not None]).norm())
    assert norm == pytest.approx(0.25, rel=1e-5) if clip else norm > 1


@pytest.mark.parametrize("name", ["delete", "boundary-expand", "gradient-ascent"])
def test_one_example_in_train_mode_names_the_setting(name):
    kind = methods.get(name)
    with pytest.raises(UsageError, match=rf"{name}: one example has no variance. Set batch_norm=eval"):
        kind(epochs=1, batch_norm="train").unlearn(MLP.build(0), request(MLP, forget=1))
    kind(epochs=1, batch_norm="eval").unlearn(MLP.build(0), request(MLP, forget=1))


def test_scrub_takes_its_max_step_on_one_example_in_eval_mode():
    unlearned = methods.get("scrub")(epochs=1, batch_norm="train").unlearn(MLP.build(0), request(MLP, forget=1))
    assert all(torch.isfinite(parameter).all() for parameter in unlearned.parameters())


@pytest.mark.parametrize(
    ("decay_epochs", "rates"),
    [
        (None, [1, 1, 0.5, 0.5, 0.5, 0.5]),  # after the last of two max-passes
        (3, [1, 1, 1, 0.5, 0.5, 0.5]),
        ("1+4", [1, 0.5, 0.5, 0.5, 0.25, 0.25]),
        ("7+9", [1] * 6),
    ],
)
def test_scrub_rate_falls_after_the_given_epochs(decay_epochs, rates):
    method = Scrub(epochs=6, max_epochs=2, lr=1.0, decay=0.5, decay_epochs=decay_epochs)
    assert [method.learning_rate(1.0, epoch, 6) for epoch in range(6)] == rates


def test_scrub_without_max_passes_keeps_its_rate():
    method = Scrub(epochs=4, max_epochs=0, lr=1.0)
    assert [method.learning_rate(1.0, epoch, 4) for epoch in range(4)] == [1.0] * 4


@pytest.mark.parametrize("wrong", ["5-8", "5+", "", "early", -1])
def test_scrub_wrong_decay_epochs_are_refused(wrong):
    with pytest.raises(UsageError, match="decay_epochs must be numbers joined by"):
        Scrub(decay_epochs=wrong)


def test_gradient_ascent_without_floor_reads_no_validation():
    forget_request = request()
    unread = dataclasses.replace(forget_request, validation=UnreadableExamples(forget_request.validation, "validation"))
    method = GradientAscent(epochs=3, lr=0.5, floor=None)
    network = method.unlearn(CNN.build(0), unread)
    assert unread.notes["steps"] == 3
    assert same(network, dataclasses.replace(method, floor=1.0).unlearn(CNN.build(0), forget_request))
    with pytest.raises(ForgetBenchError, match="validation"):
        GradientAscent(epochs=1).unlearn(CNN.build(0), unread)


def test_gradient_ascent_without_floor_reports_divergence():
    with pytest.raises(DivergedError, match=r"gradient-ascent diverged in epoch \d+ at learning rate 1e\+30"):
        GradientAscent(epochs=9, lr=1e30, floor=None).unlearn(CNN.build(0), request())


@pytest.mark.parametrize("freeze", [True, False])
def test_cf_k_freezes_statistics_of_frozen_blocks(freeze):
    network = CNN.build(0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    after = CFK(k=1, epochs=1, freeze_statistics=freeze).unlearn(network, request()).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = set(before) - set(last_block_names(network, 1, "cf-k"))
    assert {name.rpartition(".")[2] for name in moved & frozen} == (
        set() if freeze else {"running_mean", "running_var", "num_batches_tracked"}
    )


def test_eu_k_can_leave_batch_norm_as_it_was():
    original, new_network, forget_request = CNN.build(0), CNN.build(9), request()
    with torch.no_grad():
        original.blocks[2][1].weight.fill_(0.7)
    for reset, source in ((True, new_network), (False, original)):
        method = EUK(k=1, epochs=1, lr=1e-12, reset_batch_norm=reset, batch_norm="eval")
        block = method.unlearn(original, forget_request).blocks[2]
        torch.testing.assert_close(block[0].weight, new_network.blocks[2][0].weight)
        torch.testing.assert_close(block[1].weight, source.blocks[2][1].weight)


def test_neighboring_classes_round_attacked_pixels_to_bytes():
    """A step of a third of a byte is lost in rounding."""
    seen = []

    class Recording(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images.detach().clone())
            return images.flatten(1)[:, :3] * torch.tensor([1.0, 2.0, 3.0])

    examples = request().forget
    for round_pixels in (False, True):
        neighboring_classes(Recording(), examples, 1 / 765, round_pixels=round_pixels)
    plain, _, lost, rounded = seen[0], *seen[1:]
    assert not torch.equal(seen[1], plain)
    assert torch.equal(lost, plain)
    torch.testing.assert_close(rounded, plain)


def test_neggrad_plus_batches_have_the_given_sizes():
    seen = []

    class Recording(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return self.head(images.flatten(1))

    for values, sizes in (
        ({}, [8, 6] * 3),
        ({"forget_batch_size": 2}, [8, 2] * 3),
        ({"repeat_forget": False}, [8, 6]),
        ({"forget_batch_size": 3, "repeat_forget": False, "epochs": 2}, [8, 3] * 4),
    ):
        seen.clear()
        method = methods.get("neggrad-plus")(**{"epochs": 1, "batch_size": 8, "joint": False, **values})
        method.unlearn(Recording(), request())
        assert seen == sizes
