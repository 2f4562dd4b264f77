"""LeNet-5."""

import pytest
import torch
from support.training import make_spec

from forgetbench.errors import UsageError

pytestmark = pytest.mark.unit


def test_lenet_has_the_published_size() -> None:
    """5*5*3*6 + 6, 5*5*6*16 + 16, 400*120 + 120, 120*84 + 84, 84*10 + 10."""
    network = make_spec("lenet", 32, channels=3, outputs=10).build(0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 62_006
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert len(network.blocks) == 4


def test_lenet_refuses_small_images() -> None:
    with pytest.raises(UsageError, match="Network lenet needs images of at least 16 x 16 pixels, not 8 x 8"):
        make_spec("lenet", 8).build(0)
