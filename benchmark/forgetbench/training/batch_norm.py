"""Batch-norm statistics, estimated again by one pass over retained images.

While weights change, the running statistics of batch-norm lag behind them, and a method that changes weights without
training leaves those of the original in place. Either way they no longer fit the weights, which alone can hide what a
model still knows or spoil what it does well. Estimating them again needs images, but no labels and no gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from forgetbench.tasks.recipe import Recipe
from forgetbench.training.compute import autocast
from forgetbench.training.data import Examples

ORDER = 0
"""Seed of the order of images: batches of a sorted image set would have the variance of one class."""


def has_batch_norm(network: nn.Module) -> bool:
    """Whether a network has running statistics that can be estimated again."""
    return bool(_layers(network))


def recalibrate_batch_norm(
    network: nn.Module, examples: Examples, recipe: Recipe, *, batches: int | None = None
) -> nn.Module:
    """Estimate the running statistics of batch-norm again, in place, and return the network.

    Statistics are the mean over batches of the batches' means and unbiased variances, as torch computes them with
    ``momentum=None``. All other layers are in eval mode, so that nothing is random; the global random state, weights,
    and the settings and modes of all layers stay as they are. Batches are those of the recipe, without augmentation and
    in a fixed order: the same weights always get the same statistics. A network without running statistics of
    batch-norm is not changed.

    Args:
        network: A network for images in [0, 1], on the same device as the examples.
        examples: Images, at least two; the labels are not read.
        recipe: Gives batch size and precision.
        batches: Maximum number of batches to read; None: all examples once.
    """
    layers = _layers(network)
    if not layers:
        return network
    with torch.no_grad(), _cumulative(network, layers), autocast(examples.device, recipe):
        for images, _ in islice(examples.batches(recipe.batch_size, ORDER), batches):
            network(images)
    return network


def _layers(network: nn.Module) -> list[_BatchNorm]:
    modules = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return [module for module in modules if module.track_running_stats and module.running_mean is not None]


@contextmanager
def _cumulative(network: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """Average the statistics of the layers over the batches of the block, with all other layers in eval mode.

    Layers that see no batch, such as those that refuse train mode, and all layers after an exception get back what they
    had.
    """
    modes = [(module, module.training) for module in network.modules()]
    before = [(layer.momentum, {name: buffer.clone() for name, buffer in layer.named_buffers()}) for layer in layers]
    calls = dict.fromkeys(layers, 0)

    def average(layer: nn.Module, _: object) -> None:
        # torch's momentum=None is the same, but reads the number of batches from the device in each layer and batch
        if layer.training:
            calls[layer] += 1  # type: ignore[index]
            layer.momentum = 1.0 / calls[layer]  # type: ignore[index]

    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    hooks = [layer.register_forward_pre_hook(average) for layer in layers]
    complete = False
    try:
        yield
        complete = True
    finally:
        for hook in hooks:
            hook.remove()
        for layer, (momentum, buffers) in zip(layers, before, strict=True):
            layer.momentum = momentum
            if not (complete and calls[layer]):
                layer.load_state_dict(buffers, strict=False)
        for module, mode in modes:
            module.training = mode
