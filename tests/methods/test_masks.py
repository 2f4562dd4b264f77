"""Masks of an exact number of entries."""

from __future__ import annotations

import pytest
import torch

from forgetbench.methods._fisher import smallest


@pytest.mark.parametrize("count", range(7))
def test_smallest_masks_the_given_number_of_smallest(count):
    values = torch.tensor([[0.5, -0.1, 3.0], [-2.0, 0.0, 0.2]])
    mask = smallest(values, count)
    order = [(1, 1), (0, 1), (1, 2), (0, 0), (1, 0), (0, 2)]
    assert int(mask.sum()) == count
    assert {place for place in order if mask[place]} == set(order[:count])


def test_smallest_of_equal_values_masks_the_first():
    assert smallest(torch.tensor([0.0, 2.0, 0.0, -1.0, 0.0]), 2).tolist() == [True, False, True, False, False]
    assert smallest(torch.tensor([1.0, -1.0, 0.0, 1.0]), 3).tolist() == [True, True, True, False]
