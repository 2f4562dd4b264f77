"""Statistics of batch-norm, estimated again: by the closed form, and without any other effect."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe, has_batch_norm, predict, recalibrate_batch_norm
from forgetbench.training.batch_norm import ORDER

SPEC = NetworkSpec(name="cnn", channels=1, height=8, width=8, outputs=3, mean=(0.5,), std=(0.3,), options={"width": 2})


class OneLayer(nn.Module):
    """Batch-norm of the images themselves, so that its statistics are those of the pixels."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2, **options)  # type: ignore[arg-type]
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.norm(images)).mean((2, 3))


def examples(count: int, channels: int = 2, size: int = 3) -> Examples:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return Examples(images, torch.zeros(count, dtype=torch.int64))


def batch_pixels(data: Examples, size: int) -> list[np.ndarray]:
    """The pixels of each batch, (n, channels), in float64."""
    batches = [images.numpy().astype(np.float64) for images, _ in data.batches(size, ORDER)]
    return [batch.transpose(0, 2, 3, 1).reshape(-1, batch.shape[1]) for batch in batches]


@pytest.mark.parametrize("count", [8, 10, 11])
def test_recalibrate_statistics_equal_the_closed_form(count: int) -> None:
    """Means of the batches' means and unbiased variances: 2 batches of 4; of 4, 4 and 2; of 4, 4 and 3."""
    data, network = examples(count), OneLayer(momentum=0.3)
    recalibrate_batch_norm(network, data, Recipe(batch_size=4))
    batches = batch_pixels(data, 4)
    assert [len(batch) // 9 for batch in batches] == {8: [4, 4], 10: [4, 4, 2], 11: [4, 4, 3]}[count]
    means = np.mean([batch.mean(0) for batch in batches], axis=0)
    variances = np.mean([batch.var(0, ddof=1) for batch in batches], axis=0)
    assert network.norm.running_mean.numpy() == pytest.approx(means, rel=1e-5)
    assert network.norm.running_var.numpy() == pytest.approx(variances, rel=1e-5)


def test_recalibrate_output_of_one_batch_by_hand() -> None:
    """In one batch the layer normalizes by mean and unbiased variance; train mode takes the biased one."""
    data, network = examples(6), OneLayer()
    recalibrate_batch_norm(network, data, Recipe(batch_size=6))
    pixels = data.images.numpy() / 255.0
    mean, variance = pixels.mean((0, 2, 3)), pixels.var((0, 2, 3), ddof=1)
    expected = ((pixels - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]).mean((2, 3))
    assert predict(network, data) == pytest.approx(expected, abs=1e-5)
    by_batch = functional.batch_norm(torch.tensor(pixels), None, None, training=True).mean((2, 3)).numpy()
    assert np.abs(by_batch - expected).max() > 1e-4


def test_recalibrate_batches_limits_the_pass() -> None:
    data, network = examples(12), OneLayer()
    recalibrate_batch_norm(network, data, Recipe(batch_size=4), batches=2)
    means = np.mean([batch.mean(0) for batch in batch_pixels(data, 4)[:2]], axis=0)
    assert network.norm.running_mean.numpy() == pytest.approx(means, rel=1e-5)
    assert network.norm.num_batches_tracked == 2


def test_recalibrate_twice_gives_the_same_bits() -> None:
    """Whatever the statistics were; so a model that was recalibrated is not moved by a second pass."""
    first, data = SPEC.build(0), examples(20, 1, 8)
    second = copy.deepcopy(first)
    for module in second.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.add_(3)
    recalibrate_batch_norm(first, data, Recipe(batch_size=6))
    once = copy.deepcopy(first.state_dict())
    for network in (first, second):
        recalibrate_batch_norm(network, data, Recipe(batch_size=6))
        assert all(torch.equal(once[name], value) for name, value in network.state_dict().items())


def test_recalibrate_changes_nothing_but_statistics() -> None:
    """Weights, modes, momentum, gradients and the random state stay; images are not augmented, labels not read."""
    network, data = OneLayer(momentum=0.3).train(), examples(9)
    network.norm.eval()
    before = copy.deepcopy(network.state_dict())
    state = torch.random.get_rng_state()
    result = recalibrate_batch_norm(network, data, Recipe(batch_size=4, augment=("crop", "flip"), crop_padding=1))
    assert result is network
    assert torch.equal(state, torch.random.get_rng_state())
    assert {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])} == {
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }
    assert (network.norm.momentum, network.norm.training, network.dropout.training) == (0.3, False, True)
    assert all(parameter.grad is None for parameter in network.parameters())
    relabeled = copy.deepcopy(network)
    recalibrate_batch_norm(relabeled, data.relabel(torch.arange(9)), Recipe(batch_size=4))
    assert torch.equal(relabeled.norm.running_var, network.norm.running_var)


def test_recalibrate_without_statistics_is_no_change() -> None:
    """No batch-norm, layers without running statistics, and layers that stay in eval mode whatever is asked."""

    class Frozen(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> Frozen:  # noqa: ARG002 - that is what it does
            return super().train(mode=False)

    mlp = replace(SPEC, name="mlp", options={"hidden": (4,)})
    frozen, off = OneLayer(), OneLayer()
    frozen.norm = Frozen(2)
    off.norm.track_running_stats = False
    cases = [(mlp.build(0), False, 1), (OneLayer(track_running_stats=False), False, 2), (off, False, 2)]
    for network, tested, channels in [*cases, (frozen.eval(), True, 2)]:
        before = copy.deepcopy(network.state_dict())
        recalibrate_batch_norm(network, examples(6, channels, 8), Recipe(batch_size=3))
        assert has_batch_norm(network) == tested
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not off.norm.track_running_stats


def test_recalibrate_error_restores_the_statistics() -> None:
    class Broken(OneLayer):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            super().forward(images)
            raise RuntimeError("broken")

    network = Broken(momentum=0.3).eval()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(RuntimeError, match="broken"):
        recalibrate_batch_norm(network, examples(6), Recipe(batch_size=3))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert (network.norm.momentum, network.norm.training) == (0.3, False)
