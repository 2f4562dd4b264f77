"""Masks of the weights that say least: exactly as many as asked for, also where many are equal."""

from __future__ import annotations

import torch
from torch import Tensor


def smallest(values: Tensor, count: int) -> Tensor:
    """A mask of `count` entries, those of the smallest absolute value; of equal ones the first in order.

    Args:
        values: Any shape.
        count: How many, from 0 to all.
    """
    sizes = values.detach().abs().flatten()
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    largest = sizes.kthvalue(count).values
    mask = sizes < largest
    equal = torch.nonzero(sizes == largest)[:, 0]
    mask[equal[: count - int(mask.sum())]] = True
    return mask.view_as(values)
