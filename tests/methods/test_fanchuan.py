"""fanchuan: the contrast by hand, and the first pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.fanchuan import Fanchuan, contrast
from forgetbench.networks import NetworkSpec
from forgetbench.training import DivergedError, Examples, Recipe

SPEC = NetworkSpec(
    name="mlp", channels=1, height=4, width=4, outputs=3, mean=(0.5,), std=(0.3,), options={"hidden": [6]}
)


def requested() -> ForgetRequest:
    generator = torch.Generator().manual_seed(1)
    everything = Examples(
        torch.randint(0, 256, (20, 1, 4, 4), generator=generator, dtype=torch.uint8), torch.arange(20) % 3
    )
    return ForgetRequest(
        forget=everything.take(range(5)),
        retain=everything.take(range(5, 20)),
        validation=everything,
        seed=4,
        recipe=Recipe(),
        new_network=lambda: SPEC.build(9),
    )


def test_contrast_equals_hand_computed_one():
    forgotten = np.array([[1.0, 2.0]])
    retained = np.array([[1.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    products = (forgotten @ retained.T)[0] / 1.15  # 1, 6 and 3
    by_hand = np.mean([np.log(np.exp(products).sum()) - each for each in products])
    got = contrast(torch.tensor(forgotten), torch.tensor(retained), 1.15)
    assert float(got) == pytest.approx(by_hand, rel=1e-9)


def test_contrast_is_smallest_at_equal_distances():
    retained = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert float(contrast(torch.zeros(2, 3), retained, 1.0)) == pytest.approx(math.log(7), rel=1e-6)
    assert float(contrast(torch.ones(2, 3), retained, 1.0)) > math.log(7)


def test_fanchuan_first_pass_makes_predictions_uniform():
    network, request = SPEC.build(0), requested()

    def entropy(lr: float) -> float:
        # one turn whose rounds do nothing shows the first pass alone
        method = Fanchuan(epochs=1, uniform_lr=lr, forget_lr=1e-12, lr=1e-12, weight_decay=0.0, forget_batch_size=1)
        edited = method.unlearn(network, request)
        with torch.no_grad():
            logarithms = edited(request.forget.images.float() / 255).log_softmax(1)
        return float(-(logarithms.exp() * logarithms).sum(1).mean())

    assert entropy(1e-12) < entropy(0.1) <= math.log(3) + 1e-6


def test_fanchuan_diverged_error_names_the_round():
    with pytest.raises(
        DivergedError, match=r"fanchuan, (forget|retain) round \d, diverged in epoch 1 at learning rate"
    ):
        Fanchuan(lr=1e30).unlearn(SPEC.build(0), requested())
