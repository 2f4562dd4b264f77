"""Methods with the settings of released code, against numbers that this code gives on a small network.

The released functions were run outside this repository in float64, from the same weights and batches. Of the move of
weights and running statistics, six numbers are held: both norms, and the products with four fixed directions.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forgetbench.methods import parse_method
from forgetbench.methods.base import ForgetRequest, Method
from forgetbench.training import Examples, Recipe

CLASSES, STATISTICS = 3, 8


class Small(nn.Module):
    """Two convolutions with batch-norm and a head, in float64, with weights in closed form."""

    mean: Tensor
    std: Tensor

    def __init__(self, phase: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64))
        self.register_buffer("std", torch.full((1, 1, 1, 1), 0.25, dtype=torch.float64))
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.ReLU())
            for inputs in (1, 2)
        )
        self.head = nn.Linear(2, CLASSES)
        self.double().eval()
        with torch.no_grad():
            for place, (name, value) in enumerate(self.named_parameters()):
                wave = torch.sin(phase + place + 1.7 * torch.arange(1.0, value.numel() + 1, dtype=torch.float64))
                value.copy_((1 + 0.2 * wave if name.endswith("1.weight") else wave).view_as(value))
            for stage in self.stages:
                stage[1].running_mean.copy_(torch.tensor([0.1, -0.2]))  # type: ignore[operator, union-attr]
                stage[1].running_var.copy_(torch.tensor([0.8, 1.3]))  # type: ignore[operator, union-attr]

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.stages)

    def features(self, images: Tensor) -> Tensor:
        hidden = (images.double() - self.mean) / self.std
        for stage in self.stages:
            hidden = stage(hidden)
        return hidden.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))  # type: ignore[no-any-return]


def small_request() -> ForgetRequest:
    """Six images to forget, ten to retain and four others of 4 x 4 pixels; every class is in each set."""
    pixels = torch.arange(20 * 16)
    images = ((pixels * pixels * 7 + pixels * 31) % 251).to(torch.uint8).view(20, 1, 4, 4)
    everything = Examples(images, torch.arange(20) % CLASSES)
    return ForgetRequest(
        forget=everything.take(range(6)),
        retain=everything.take(range(6, 16)),
        validation=everything.take(range(16, 20)),
        seed=4,
        recipe=Recipe(augment=("flip",)),
        new_network=lambda: Small(0.5),
    )


def flat(network: nn.Module) -> NDArray[np.float64]:
    """Weights, and behind them the running statistics."""
    buffers = [value for name, value in network.named_buffers() if "running" in name]
    return torch.cat([value.detach().flatten() for value in [*network.parameters(), *buffers]]).numpy()


def summary(move: NDArray[np.float64]) -> list[float]:
    """The norms of the moves of weights and of statistics, and the products of all with four fixed directions."""
    waves = [np.sin(k * np.arange(1.0, len(move) + 1)) for k in (1, 2, 3, 5)]
    norms = [math.sqrt(float(part @ part)) for part in (move[:-STATISTICS], move[-STATISTICS:])]
    return [*norms, *(float(wave @ move) for wave in waves)]


def moved(method: Method, request: ForgetRequest) -> list[float]:
    """The summary of how far a method moves the network."""
    model = Small()
    return summary(flat(method.unlearn(model, request)) - flat(model))


TRAIN, PLAIN = "batch_norm=train", "momentum=0,weight_decay=0"
SCRUB = f"clip=none,forget_batch_size=512,batch_size=128,{TRAIN}"
GOEL = "epochs=7,lr=0.01,min_lr=5e-4,batch_size=64,weight_decay=5e-5,schedule=restart,augment=false"
MUFAC = f"epochs=2,lr=0.001,batch_size=64,schedule=constant,augment=false,{PLAIN}"
BOUNDARY = f"epochs=4,lr=0.01,batch_size=128,{TRAIN}"
CASES = [
    (  # OPTML-Group/Unlearn-Sparse: FT
        f"finetune:epochs=3,lr=0.01,batch_size=256,schedule=constant,augment=false,{TRAIN}",
        [0.04691083432056, 1.412793241961, -1.204606877012, -1.407709966, 0.3628310090726, -1.412931538973],
    ),
    (  # FT_prune
        f"l1-sparse:epochs=3,lr=0.01,alpha=0.02,batch_size=256,augment=false,{TRAIN}",
        [0.04942498484325, 1.411541922309, -1.202268017323, -1.408964532102, 0.3635855401701, -1.413911830974],
    ),
    (  # GA
        f"gradient-ascent:epochs=3,lr=0.01,batch_size=256,weight_decay=5e-4,floor=none,{TRAIN}",
        [0.05505654693055, 1.248519247478, -1.175875898652, -1.126328004837, 0.2791825217409, -1.286393116227],
    ),
    (  # meghdadk/SCRUB, MIA_experiments: SCRUB, at a hundred times its rate
        f"scrub:epochs=5,max_epochs=3,lr=0.05,temperature=4,decay_epochs=3+5+9,{SCRUB}",
        [0.4703884646177, 2.856790103291, -2.431945396129, -2.874497877845, 0.578983177193, -2.918747799515],
    ),
    (  # small_scale_unlearning: SCRUB
        f"scrub:epochs=10,max_epochs=3,lr=5e-4,temperature=2,decay_epochs=5+8+9,optimizer=adam,weight_decay=0.1,{SCRUB}",
        [0.03456007778021, 3.780428327549, -3.265279492682, -3.720046292962, 0.9860337830067, -3.793128496207],
    ),
    (  # train_negrad
        f"neggrad-plus:epochs=5,lr=0.01,alpha=0.9,batch_size=64,joint=false,{PLAIN},{TRAIN}",
        [0.03271675589857, 3.184990600544, -2.841624091687, -3.052290567492, 0.752511520587, -3.224475876407],
    ),
    (  # train_vanilla
        f"finetune:epochs=5,lr=0.04,batch_size=64,schedule=constant,augment=false,{PLAIN}",
        [0.1574339262854, 2.13489402484, -1.814599907414, -2.147833047842, 0.5261973062593, -2.137189361107],
    ),
    (  # if-loops/selective-synaptic-dampening: finetune
        "finetune:epochs=5,lr=0.02,batch_size=64,schedule=constant,augment=false",
        [0.2127892022636, 2.134649155915, -1.807936796677, -2.163950909586, 0.5133325224543, -2.140420359111],
    ),
    (  # amnesiac
        "amnesiac:epochs=3,lr=1e-4,batch_size=128",
        [0.002527780113089, 1.352215384571, -1.193327721234, -1.306757085107, 0.3344197657367, -1.366136452182],
    ),
    (  # shash42/Evaluating-Inexact-Unlearning: fine-tuning, through three restarts
        f"finetune:{GOEL},clip=10",
        [0.1210793170287, 2.719771253733, -2.315465845447, -2.71699299182, 0.6899570749764, -2.720787193697],
    ),
    (  # the same with a clip that works here
        f"finetune:{GOEL},clip=0.05",
        [0.007377091652135, 2.719808880021, -2.327034165653, -2.687166916513, 0.7184304166087, -2.715802409672],
    ),
    (  # CF-k of two layers
        f"cf-k:k=1,{GOEL},clip=10,freeze_statistics=false",
        [0.1204841395151, 2.719850836537, -2.313390883907, -2.720226682935, 0.6951032912957, -2.704017939136],
    ),
    (  # EU-k of two layers
        f"eu-k:k=1,{GOEL},clip=10,freeze_statistics=false,reset_batch_norm=false",
        [2.339171043102, 2.719118908657, -1.622296039403, -4.476319380129, 0.9017126312101, -1.807988648186],
    ),
    (  # shaaaaron/DELETE: DELETE
        f"delete:{BOUNDARY}",
        [0.03999129162223, 1.584390778733, -1.50210986218, -1.489714969796, 0.3446786461227, -1.590744447583],
    ),
    (  # with disable_bn
        "delete:epochs=4,lr=0.01,batch_size=128,batch_norm=eval",
        [0.08768931694892, 0.0, -0.09310590515071, -0.06472957444117, 1.742826476002e-06, 0.07608770717793],
    ),
    (  # boundary shrink, in this repository and in OPTML-Group/Unlearn-Saliency
        f"boundary-shrink:bound=0.1,as_published=true,round_pixels=true,{BOUNDARY}",
        [0.03932361871857, 1.584205994755, -1.465430004882, -1.441682966829, 0.3369944045503, -1.638967643858],
    ),
    (  # gradient ascent
        f"gradient-ascent:momentum=0.9,floor=none,{BOUNDARY}",
        [0.0893136289474, 1.584576601428, -1.498092436452, -1.420820739371, 0.3591142490593, -1.635608262149],
    ),
    (  # OPTML-Group/Unlearn-Saliency: boundary expanding
        f"boundary-expand:{BOUNDARY}",
        [0.1493741007629, 1.584306729415, -1.446153123956, -1.481379934182, 0.2857335116021, -1.570507440336],
    ),
    (  # fanchuan's notebook
        "fanchuan:epochs=4,uniform_lr=0.005,forget_lr=3e-4,lr=0.004,min_lr=1e-6,fall=steps,batch_size=256,"
        f"weight_decay=0.01,{TRAIN}",
        [0.03553715405558, 3.737046413312, -3.278557408215, -3.630688046493, 0.9234577428248, -3.762266063991],
    ),
    (  # ndb796/MachineUnlearning, MUFAC: fine-tuning, in eval mode
        f"finetune:{MUFAC},batch_norm=eval",
        [0.004056636377455, 0.0, -0.00225169581331, -0.0005047055093666, -0.001698177581521, 0.0001335369023461],
    ),
    (  # CF-k
        f"cf-k:k=1,{MUFAC},freeze_statistics=false",
        [0.001672201214929, 0.990542990469, -0.8475773758953, -0.9784156643847, 0.2619697257675, -0.9888014669341],
    ),
    (  # SCRUB
        f"scrub:epochs=2,max_epochs=2,lr=0.001,decay=1,alpha=1,gamma=1,temperature=4,order=min-max,{PLAIN},{SCRUB}",
        [0.00156648929943, 1.681637393888, -1.501719571305, -1.608009701685, 0.4012929271772, -1.701154552632],
    ),
]


@pytest.mark.parametrize(("label", "numbers"), CASES)
def test_method_as_released_gives_released_numbers(label, numbers):
    np.testing.assert_allclose(moved(parse_method(label), small_request()), numbers, rtol=0, atol=1e-10)


EVEN = [
    (  # NegGrad
        f"neggrad-plus:epochs=2,lr=0.001,alpha=0,batch_size=64,joint=false,skip_uneven=true,{PLAIN}",
        [0.001952226472314, 0.8752584739452, -0.8139640264934, -0.8064089928829, 0.1860535888551, -0.8959583867075],
    ),
    (  # advanced NegGrad
        f"neggrad-plus:epochs=2,lr=0.002,alpha=0.5,batch_size=64,joint=false,skip_uneven=true,{PLAIN}",
        [0.0004922718624453, 1.673380207267, -1.497785635104, -1.578259079009, 0.3788528302504, -1.699288371712],
    ),
]


@pytest.mark.parametrize(("label", "numbers"), EVEN)
def test_neggrad_of_mufac_gives_released_numbers(label, numbers):
    """On batches of equal size; it skips the others."""
    request = small_request()
    even = dataclasses.replace(request, retain=request.retain.take(range(6)))
    np.testing.assert_allclose(moved(parse_method(label), even), numbers, rtol=0, atol=1e-10)
    assert moved(parse_method(label), request) == [0.0] * 6
