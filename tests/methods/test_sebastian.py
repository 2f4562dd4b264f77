"""Sebastian: which weights are drawn anew, from what, and what classes weigh."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.sebastian import Sebastian, class_weights, redraw_smallest
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_redraw_smallest_counts_over_all_layers_together(share):
    layers = network()
    names = [name for name, _ in layers.named_parameters() if not name.startswith("1.")]
    before = {name: value.detach().clone() for name, value in layers.named_parameters()}
    count = sum(before[name].numel() for name in names)
    assert redraw_smallest(layers, share, torch.Generator().manual_seed(0)) == round(share * count)
    after = dict(layers.named_parameters())
    changed = torch.cat([(after[name] != before[name]).flatten() for name in names])
    sizes = torch.cat([before[name].abs().flatten() for name in names])
    assert int(changed.sum()) == round(share * count)
    if 0 < share < 1:
        assert float(sizes[changed].max()) <= float(sizes[~changed].min())
    assert torch.equal(after["1.weight"], before["1.weight"])  # batch-norm is left alone


def test_redraw_smallest_is_uniform_by_fan_in_with_zero_biases():
    layers = network()
    redraw_smallest(layers, 1.0, torch.Generator().manual_seed(0))
    for layer, fan_in in ((layers[0], 18), (layers[3], 16)):
        largest = float(layer.weight.detach().abs().max())
        assert 0.8 * fan_in**-0.5 < largest <= fan_in**-0.5
        assert float(layer.bias.detach().abs().max()) == 0.0


def test_class_weights_are_larger_for_rare_classes():
    examples = Examples(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 0, 0, 1]))
    weights = class_weights(examples, 3, -0.5)
    assert weights is not None
    assert weights.tolist() == pytest.approx([0.5, 1.0, 1.0])
    assert class_weights(examples.relabel(torch.zeros(5, 3, dtype=torch.int64)), 3, -0.5) is None


def test_sebastian_keeps_the_entropies_of_the_original():
    """With every weight drawn anew and a heavy term, the answers' entropies come back to the original's."""
    spec = NetworkSpec(
        name="mlp", channels=1, height=4, width=4, outputs=3, mean=(0.5,), std=(0.3,), options={"hidden": [16]}
    )
    generator = torch.Generator().manual_seed(1)
    retain = Examples(
        torch.randint(0, 256, (24, 1, 4, 4), generator=generator, dtype=torch.uint8), torch.arange(24) % 3
    )
    request = ForgetRequest(
        forget=retain.take([0]),
        retain=retain,
        validation=retain,
        seed=3,
        recipe=Recipe(),
        new_network=lambda: spec.build(9),
    )
    original = spec.build(0)  # untrained: its answers are nearly uniform
    images = retain.images.float() / 255

    def entropy(model: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            logarithms = model(images).log_softmax(1)
        return -(logarithms.exp() * logarithms).sum(1)

    def gap(weight: float) -> float:
        method = Sebastian(epochs=60, lr=0.05, mask_ratio=1.0, entropy_weight=weight, batch_size=24)
        return float((entropy(method.unlearn(original, request)) - entropy(original)).abs().mean())

    assert gap(50.0) < 0.3 * gap(0.0)
