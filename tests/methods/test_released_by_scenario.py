"""Methods with the settings of released code, by scenario, against numbers that this code gives on a small network.

The released functions were run outside this repository, in float64, from the same weights, batches and draws.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.closed_form import ClosedFormNet, closed_form_request, closed_form_vit, signature

from forgetbench.methods import parse_method

CASES = [
    (  # if-loops/selective-synaptic-dampening: ssd_tuning of the three scenarios
        "ssd:alpha=1.3,dampening=0.7,importance=batch,batch_size=4",
        "class",
        [0.91560472648, 0.0, 0.037332583297, 0.018292467716, -0.02732611199, -0.0025797424588],
    ),
    (
        "ssd:alpha=1.3,dampening=0.7,importance=batch,batch_size=4",
        "subclass",
        [3.3113318049, 0.0, 0.1585096386, -0.13829427437, 0.013529096926, 0.091079159851],
    ),
    (
        "ssd:alpha=1.3,dampening=0.7,importance=batch,batch_size=4",
        "random",
        [1.0045477307, 0.0, -0.044047096673, 0.14474171447, 0.025377741561, 0.062001468576],
    ),
    (  # the same with the two lines that its README gives for LFSSD
        "lfssd:alpha=1.3,dampening=0.7,importance=batch,batch_size=4",
        "class",
        [1.1729303777, 0.0, 0.01847508425, 0.048565316112, 0.043424006336, -0.032956521112],
    ),
    (
        "lfssd:alpha=1.3,dampening=0.7,importance=batch,batch_size=4",
        "subclass",
        [1.2450291001, 0.0, 0.03019549133, 0.05093721417, 0.013792955018, -0.0047255914197],
    ),
    (
        "lfssd:alpha=1.3,dampening=0.7,importance=batch,batch_size=4",
        "random",
        [0.85001664557, 0.0, -0.025564585547, 0.032814271725, 0.014998758177, -0.014205947568],
    ),
    (  # if-loops/adaptive-selective-synaptic-dampening: ssd of the notebook
        "assd:importance=batch,reference=retain,batch_size=8",
        "random",
        [0.80605341092, 0.0, 0.091711341234, 0.04916209918, -0.062954083143, 0.1080837576],
    ),
    (  # OPTML-Group/Unlearn-Saliency: RL with a mask, for cifar10 and cifar100
        "salun:epochs=3,lr=0.05,batch_size=8,label_space=all,resample=true,mask_ratio=0.5,saliency=batches,passes=separate,batch_norm=train",
        "random",
        [0.77356025692, 4.7017962958, -0.62272064782, -0.05202974761, -0.15831019157, -0.13476971344],
    ),
    (
        "salun:epochs=3,lr=0.05,batch_size=8,label_space=all,resample=true,mask_ratio=0.3,saliency=batches,passes=joined,batch_norm=train",
        "random",
        [0.66393939445, 4.5034243699, -0.58927839669, -0.072738123876, -0.15863873863, -0.12417253383],
    ),
    (  # the same before February 2026, when weight decay moved masked weights
        "salun:epochs=3,lr=0.05,batch_size=8,label_space=all,resample=true,mask_ratio=0.5,saliency=batches,passes=separate,as_published=true,batch_norm=train",
        "random",
        [0.77363146464, 4.6926284464, -0.62084364594, -0.05236863379, -0.15821000867, -0.13441409894],
    ),
    (
        "salun:epochs=3,lr=0.05,batch_size=8,label_space=all,resample=true,mask_ratio=0.3,saliency=batches,passes=joined,as_published=true,batch_norm=train",
        "random",
        [0.66395094522, 4.4967184297, -0.5875778166, -0.072398052085, -0.158377734, -0.12430175289],
    ),
    (  # RL without a mask
        "random-label:epochs=3,lr=0.05,batch_size=8,label_space=all,resample=true,passes=separate,batch_norm=train",
        "random",
        [1.0297972418, 4.5776278917, -0.61223821333, -0.087744959317, -0.15897066372, -0.14113366367],
    ),
    (
        "random-label:epochs=3,lr=0.05,batch_size=8,label_space=all,resample=true,passes=joined,batch_norm=train",
        "random",
        [0.82577260555, 4.3666935342, -0.55092227912, -0.086710413075, -0.15258697216, -0.12695999994],
    ),
    (  # AdityaGolatkar/SelectiveForgetting: hessian and get_mean_var of a class and of random examples
        "fisher:alpha=1e-4,batch_size=32,information=exact,variances=golatkar",
        "class",
        [3.2825917258, 0.0, -0.29289519953, 0.027892953505, -0.052263321794, -0.20417285903],
    ),
    (
        "fisher:alpha=1e-4,batch_size=32,information=exact,variances=golatkar",
        "random",
        [3.1573988097, 0.0, -0.33625052509, -0.067646944556, -0.025945094587, -0.19485525011],
    ),
    (  # FisherForgetting of the SSD repository
        "fisher:alpha=1e-4,batch_size=32,information=exact,variances=golatkar",
        "class",
        [3.2825917258, 0.0, -0.29289519953, 0.027892953505, -0.052263321794, -0.20417285903],
    ),
    (
        "fisher:alpha=1e-4,batch_size=32,information=exact,variances=foster",
        "random",
        [3.0781176257, 0.0, -0.30067932111, -0.080915041545, -0.0036892314083, -0.13893611015],
    ),
    (  # OPTML-Group/Unlearn-Saliency: fisher_new
        "fisher:alpha=1e-4,batch_size=32,information=batch,variances=golatkar",
        "class",
        [3.3547670072, 0.0, -0.3073894561, 0.047214761434, -0.061759279079, -0.19855244707],
    ),
    (
        "fisher:alpha=1e-4,batch_size=32,information=batch,variances=golatkar",
        "random",
        [3.2331094218, 0.0, -0.3515715204, -0.049316896103, -0.036240199171, -0.19012090749],
    ),
    (  # jwf40/Information-Theoretic-Unlearning: Lipschitz.modify_weight, in eval and in train mode
        "jit:lr=0.02,samples=6,accumulate=true,clamp=normalized,sigma=0.5,batch_size=4,batch_norm=eval",
        "random",
        [0.16346584896, 0.0, -0.017396685034, -0.0024130924744, 0.00091284021207, -0.00034894941211],
    ),
    (
        "jit:lr=0.02,samples=6,accumulate=true,clamp=normalized,sigma=0.5,batch_size=4,batch_norm=train",
        "random",
        [0.019263096244, 6.0234127266, -0.806550178, -0.1001096287, -0.20734683732, -0.1837030509],
    ),
    (  # xcadet/deepunlearn: KGLTop3, of which one or both kernels get noise
        "seif:epochs=4,lr=0.02,noise=0.2,last_noise=0.005,batch_size=8,weighted=batch,schedule=cosine-by-epoch,layers=first,batch_norm=train",
        "random",
        [1.5122822431, 2.1120224019, -0.16230993618, -0.32913917962, 0.16958661336, -0.057719022708],
    ),
    (
        "seif:epochs=4,lr=0.02,noise=0.2,last_noise=0.005,batch_size=8,weighted=batch,schedule=cosine-by-epoch,layers=all,batch_norm=train",
        "random",
        [2.5252757218, 2.5222451237, -0.25363211483, -0.23809731034, 0.23206083147, 0.1722028122],
    ),
    (  # vikram2000b/Fast-Machine-Unlearning: the notebook's loops, with two noises for two channels
        "unsir:lr=0.02,repair_lr=0.01,epochs=1,repair_epochs=1,noise_lr=0.1,noise_steps=40,penalty=0.1,batch_size=8,noise_mode=train,mixture=joined,distinct=2,copies=20,batch_norm=train",
        "class",
        [1.7681779223, 6.4975165936, -0.89580240493, 0.091436748689, -0.31774118527, -0.27231847758],
    ),
]
TRANSFORMERS = [
    (  # bjzhb666/GS-LoRA: train_one_epoch, without and with prototypes
        "gs-lora:epochs=5,lr=0.01,rank=3,beta=0.15,bound=10,alpha=0.01,alpha_epoch=2,batch_size=8",
        0,
        [0.57351125293, 0.0, 0.012913393087, 0.0014800288366, -0.0023792065885, -0.00054389204381],
    ),
    (
        "gs-lora++:epochs=5,lr=0.01,rank=3,beta=0.15,bound=10,alpha=0.01,alpha_epoch=2,batch_size=8,forget_pull=0.05,retain_pull=0.01",
        0,
        [0.5739912127, 0.0, 0.012945041336, 0.0014894028381, -0.0023729022945, -0.0005453271114],
    ),
    (  # the second task, whose matrices A are drawn from another range
        "gs-lora:epochs=5,lr=0.01,rank=3,beta=0.15,bound=10,alpha=0.01,alpha_epoch=2,batch_size=8,betas=0.2/0.25,later_range=0.3429971702850177",
        1,
        [0.3851870775, 0.0, 0.010925689869, 0.00024626396956, -0.0032275090361, -0.0024157232813],
    ),
]


def same_move(found: NDArray[np.float64], released: list[float]) -> None:
    """To 1e-7 of the norm of the move."""
    np.testing.assert_allclose(found, released, rtol=0, atol=1e-7 * np.hypot(*released[:2]))


@pytest.mark.parametrize(("label", "scenario", "released"), CASES, ids=lambda value: str(value)[:30])
def test_method_moves_like_released_code(label, scenario, released):
    start = ClosedFormNet()
    unlearned = parse_method(label).unlearn(start, closed_form_request(scenario))
    same_move(signature(unlearned, start), released)


@pytest.mark.parametrize(("label", "step", "released"), TRANSFORMERS)
def test_adapters_move_like_released_code(label, step, released):
    start = closed_form_vit()
    unlearned = parse_method(label).unlearn(start, closed_form_request("class", step=step))
    same_move(signature(unlearned, start), released)


def test_unsir_on_retained_classes_moves_like_mufac():
    """ndb796/MachineUnlearning: both stages of the notebook, whose rate 0.001 is for the sum of two means."""
    values = "lr=0.002,repair_lr=0.001,optimizer=sgd,noise_lr=0.01,noise_steps=40,epochs=2,repair_epochs=1,batch_size=4"
    start, request = ClosedFormNet(), closed_form_request(forget=8, retain=24)
    released = [0.039340706123, 0.0, 0.0052695235837, 0.0011364187631, -0.00075235103402, 0.00020057417148]
    same_move(signature(parse_method(f"unsir:{values},batch_norm=eval").unlearn(start, request), start), released)
