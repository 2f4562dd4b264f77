"""What torch does once in a process, done before anything is measured."""

from __future__ import annotations

from functools import cache


@cache
def import_optimizers() -> None:
    """Make an optimizer and take a step: the first one of a process imports torch's compiler, which takes seconds."""
    import torch

    from forgetbench.training import make_optimizer

    for name in ("sgd", "adam"):
        parameter = torch.nn.Parameter(torch.zeros(1))
        parameter.grad = torch.zeros(1)
        make_optimizer([parameter], name, 0.1).step()
