"""Methods with the settings of released code, against numbers that this code gives on a small network.

The released functions were run outside this repository, in float64, from the same weights, batches and draws. All
batches hold a whole set.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.closed_form import ClosedFormNet, closed_form_request, signature

from forgetbench.methods import parse_method
from forgetbench.methods.base import ForgetRequest


def move(label: str, request: ForgetRequest) -> NDArray[np.float64]:
    """The signature of how far a method moves the network."""
    model = ClosedFormNet().eval()
    return signature(parse_method(label).unlearn(model, request), model)


TRAIN, PLAIN = "batch_norm=train", "momentum=0,weight_decay=0"
SCRUB = f"clip=none,forget_batch_size=512,batch_size=128,{TRAIN}"
GOEL = "epochs=7,lr=0.01,min_lr=5e-4,batch_size=64,weight_decay=5e-5,schedule=restart,augment=false"
MUFAC = f"epochs=2,lr=0.001,batch_size=64,schedule=constant,augment=false,{PLAIN}"
BOUNDARY = f"epochs=4,lr=0.01,batch_size=128,{TRAIN}"
CASES = [
    (  # OPTML-Group/Unlearn-Sparse: FT
        f"finetune:epochs=3,lr=0.01,batch_size=256,schedule=constant,augment=false,{TRAIN}",
        [0.02257483887, 1.4673791299, -0.18246047717, -0.021834584301, -0.05803311666, -0.051940080437],
    ),
    (  # FT_prune
        f"l1-sparse:epochs=3,lr=0.01,alpha=0.02,batch_size=256,augment=false,{TRAIN}",
        [0.026427210594, 1.4644908536, -0.18132523189, -0.02155827316, -0.057541914588, -0.051861001742],
    ),
    (  # GA
        f"gradient-ascent:epochs=3,lr=0.01,batch_size=256,weight_decay=5e-4,floor=none,{TRAIN}",
        [0.021736428895, 1.832709327, -0.23086558026, -0.024378713456, -0.074007492997, -0.066469795912],
    ),
    (  # meghdadk/SCRUB, MIA_experiments: SCRUB, at a hundred times its rate
        f"scrub:epochs=5,max_epochs=3,lr=0.05,temperature=4,decay_epochs=3+5+9,{SCRUB}",
        [0.34884540108, 3.2702799571, -0.40084934361, -0.061519325599, -0.11847496829, -0.10709658657],
    ),
    (  # small_scale_unlearning: SCRUB
        f"scrub:epochs=10,max_epochs=3,lr=5e-4,temperature=2,decay_epochs=5+8+9,optimizer=adam,weight_decay=0.1,{SCRUB}",
        [0.052238008637, 4.0866363681, -0.50350706195, -0.058048456582, -0.1635890129, -0.14771225281],
    ),
    (  # train_negrad
        f"neggrad-plus:epochs=5,lr=0.01,alpha=0.9,batch_size=64,joint=false,{PLAIN},{TRAIN}",
        [0.016197255801, 3.9870530725, -0.49906920286, -0.056062946848, -0.15902300733, -0.14218862421],
    ),
    (  # train_vanilla
        f"finetune:epochs=5,lr=0.04,batch_size=64,schedule=constant,augment=false,{PLAIN},{TRAIN}",
        [0.076330629383, 2.2132937226, -0.27513517318, -0.034497767634, -0.086224514557, -0.0769767401],
    ),
    (  # if-loops/selective-synaptic-dampening: finetune
        f"finetune:epochs=5,lr=0.02,batch_size=64,schedule=constant,augment=false,{TRAIN}",
        [0.10284931525, 2.212871827, -0.27501017338, -0.035365637522, -0.085382495511, -0.076073583299],
    ),
    (  # amnesiac
        f"amnesiac:epochs=3,lr=1e-4,batch_size=128,{TRAIN}",
        [0.0038298691905, 1.5704400153, -0.19561245158, -0.022464183077, -0.062593387883, -0.056641593551],
    ),
    (  # shash42/Evaluating-Inexact-Unlearning: fine-tuning, through three restarts
        f"finetune:{GOEL},clip=10,{TRAIN}",
        [0.05833106741, 2.8208381431, -0.3506363454, -0.042539330487, -0.11113040463, -0.099397701053],
    ),
    (  # the same with a clip that works here
        f"finetune:{GOEL},clip=0.05,{TRAIN}",
        [0.0073752858441, 2.8253356995, -0.35135506876, -0.040792088671, -0.11286480824, -0.10120679613],
    ),
    (  # CF-k of two layers
        f"cf-k:k=1,{GOEL},clip=10,freeze_statistics=false",
        [0.058235250648, 2.8260665979, -0.35153721486, -0.042383967665, -0.1112738362, -0.099509051013],
    ),
    (  # EU-k of two layers
        f"eu-k:k=1,{GOEL},clip=10,freeze_statistics=false,reset_batch_norm=false",
        [2.0595382243, 2.9333716131, -0.50099659703, -0.042345403098, -0.13699067906, -0.1286602767],
    ),
    (  # shaaaaron/DELETE: DELETE
        f"delete:{BOUNDARY}",
        [0.029012892865, 2.3270417737, -0.29400211965, -0.029950739521, -0.09398023225, -0.083112841329],
    ),
    (  # with disable_bn
        "delete:epochs=4,lr=0.01,batch_size=128,batch_norm=eval",
        [0.037625326825, 0.0, 0.0022541130969, 0.00043269717619, -0.00011578051501, 0.0011111205565],
    ),
    (  # boundary shrink, in this repository and in OPTML-Group/Unlearn-Saliency
        f"boundary-shrink:bound=0.1,as_published=true,round_pixels=true,{BOUNDARY}",
        [0.069363654122, 2.3282187908, -0.29137480142, -0.031037987285, -0.094649992396, -0.086411166906],
    ),
    (  # gradient ascent
        f"gradient-ascent:momentum=0.9,floor=none,{BOUNDARY}",
        [0.035285841073, 2.3257715386, -0.2931375424, -0.030742541547, -0.094185687943, -0.084735375405],
    ),
    (  # OPTML-Group/Unlearn-Saliency: boundary expanding
        f"boundary-expand:{BOUNDARY}",
        [0.061957759204, 2.3294771326, -0.2906303997, -0.04020576415, -0.092781659053, -0.082370727796],
    ),
    (  # fanchuan's notebook
        "fanchuan:epochs=4,uniform_lr=0.005,forget_lr=3e-4,lr=0.004,min_lr=1e-6,schedule=cosine,batch_size=256,"
        f"weight_decay=0.01,{TRAIN}",
        [0.017044781819, 4.3616336685, -0.54459834184, -0.061859723792, -0.17402223978, -0.15567990834],
    ),
    (  # ndb796/MachineUnlearning, MUFAC: fine-tuning, in eval mode
        f"finetune:{MUFAC},batch_norm=eval",
        [0.0039511545154, 0.0, 0.00045784135678, 0.00010304002053, -3.3212226483e-05, 2.499448791e-05],
    ),
    (  # CF-k
        f"cf-k:k=1,{MUFAC},freeze_statistics=false",
        [0.0008068108796, 1.0292213873, -0.12800423512, -0.014790695126, -0.041170916441, -0.036927812623],
    ),
    (  # SCRUB
        f"scrub:epochs=2,max_epochs=2,lr=0.001,decay=1,alpha=1,gamma=1,temperature=4,order=min-max,{PLAIN},{SCRUB}",
        [0.00093897514654, 2.1061800753, -0.26364520975, -0.029341856635, -0.084223266082, -0.075334189088],
    ),
]


@pytest.mark.parametrize(("label", "numbers"), CASES)
def test_method_as_released_gives_released_numbers(label, numbers):
    np.testing.assert_allclose(move(label, closed_form_request()), numbers, rtol=0, atol=1e-9)


EVEN = [
    (  # UNSIR, in eval mode; its loss is a sum of two means
        "unsir:lr=0.002,repair_lr=0.001,epochs=2,repair_epochs=1,noise_lr=0.01,batch_size=64,optimizer=sgd,batch_norm=eval",
        [0.016673042686, 0.0, 0.0022147791306, 0.00035221487561, -0.00037887242025, 3.9615699588e-05],
    ),
    (  # NegGrad
        f"neggrad-plus:epochs=2,lr=0.001,alpha=0,batch_size=64,joint=false,skip_uneven=true,{PLAIN},{TRAIN}",
        [0.0007714945844, 1.2849879746, -0.16157626523, -0.017456466998, -0.051393497653, -0.0458907199],
    ),
    (  # advanced NegGrad
        f"neggrad-plus:epochs=2,lr=0.002,alpha=0.5,batch_size=64,joint=false,skip_uneven=true,{PLAIN},{TRAIN}",
        [0.00043455162829, 2.2127814168, -0.28014372402, -0.030020441438, -0.08848949911, -0.078998585377],
    ),
]


@pytest.mark.parametrize(("label", "numbers"), EVEN)
def test_mufac_on_even_batches_gives_released_numbers(label, numbers):
    """On batches of equal size; NegGrad skips the others."""
    np.testing.assert_allclose(move(label, closed_form_request(retain=10)), numbers, rtol=0, atol=1e-9)
    if "skip_uneven" in label:
        assert not move(label, closed_form_request()).any()
