"""EU-k: the last parts start from new_network values, the rest stays."""

from __future__ import annotations

import torch

from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.cf_k import last_block_names
from forgetbench.methods.eu_k import EUK
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe


def test_eu_k_initializes_only_the_last_blocks_anew():
    spec = NetworkSpec(
        name="cnn", channels=1, height=8, width=8, outputs=3, mean=(0.5,), std=(0.3,), options={"width": 2}
    )
    original, new_network = spec.build(0), spec.build(9)
    everything = Examples(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.arange(9) % 3)
    request = ForgetRequest(
        forget=everything.take([0]),
        retain=everything.take(range(1, 9)),
        validation=everything,
        seed=1,
        recipe=Recipe(),
        new_network=lambda: spec.build(9),
    )
    # black images and a vanishing rate: weights stay where they were put, so that what was put there can be seen
    method = EUK(k=1, epochs=1, lr=1e-12, momentum=0.0, weight_decay=0.0)
    after, new_names = method.unlearn(original, request).state_dict(), last_block_names(original, 1, "x")
    for name, value in after.items():
        if "running" in name or "num_batches" in name:
            continue
        source = new_network if name in new_names else original
        torch.testing.assert_close(value, source.state_dict()[name], msg=name)
    count = sum(after[name].numel() for name, _ in original.named_parameters() if name in new_names)
    assert count == (4 * 8 * 9) + 8 + 8 + (3 * 8 + 3)  # third convolution, its batch-norm, the head
