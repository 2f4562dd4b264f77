"""GS-LoRA++: group-sparse adapters that also push features off the prototypes of what is forgotten.

    GS-LoRA's loss + w_f ReLU(BND_p - l(D_f)) + w_r l(D_r),   l(x, c) = KL(softmax(p_c) || softmax(h(x)))

Zhao et al. 2025; p_c is the mean feature of the training examples of class c under the model that the request starts
from, h the penultimate features. (The authors' single-step script takes prototypes before it loads the checkpoint, of
a random network; ours are of the loaded one.) Means are over the batch, as their `batchmean`. Their recipes have
w_r = 0; ours pulls a little. Their prototype augmentation for few-shot replay is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._training import outputs_of
from forgetbench.methods.base import Examples, ForgetRequest, MethodCard, param
from forgetbench.methods.gs_lora import FurtherLoss, GSLoRA
from forgetbench.training import predict_features


@methods.register("gs-lora++")
@dataclass(frozen=True, kw_only=True)
class GSLoRAPlusPlus(GSLoRA):
    """GS-LoRA with prototypes."""

    card: ClassVar[MethodCard] = MethodCard(
        name="gs-lora++",
        title="GS-LoRA with prototypes: features are pushed off those of the forgotten classes",
        papers=("zhao2025practical",),
        family="adapter",
        needs=("forget", "retain"),
        networks=("vit",),
        attributes=False,
        known_limitations="Single examples of retained classes, whose prototype is the one to stay near.",
    )

    forget_pull: float = param(
        0.05, ge=0, search=(5e-3, 0.5), help="w_f: weight of leaving the prototypes of what is forgotten."
    )
    retain_pull: float = param(
        0.01, ge=0, paper_default=0.0, search=(1e-3, 0.1), help="w_r: weight of staying near the others."
    )
    prototype_bound: float = param(18.0, gt=0, help="BND_p: distance in nats beyond which features are left alone.")

    def further_loss(self, model: nn.Module, request: ForgetRequest) -> FurtherLoss:
        """The prototype term, with the prototypes of the model that was given."""
        centers = prototypes(model, request.retain.join(request.forget), outputs_of(model))

        def loss(kept: Tensor, kept_labels: Tensor, gone: Tensor, gone_labels: Tensor) -> Tensor:
            near = distance(centers[kept_labels], kept)
            away = torch.relu(self.prototype_bound - distance(centers[gone_labels], gone))
            return self.forget_pull * away + self.retain_pull * near

        return loss


def prototypes(model: nn.Module, examples: Examples, classes: int) -> Tensor:
    """Mean features of each class (classes, F); zero for a class without examples."""
    features = torch.from_numpy(predict_features(model, examples)).to(examples.device)
    labels = examples.labels
    sums = torch.zeros(classes, features.shape[1], device=examples.device).index_add_(0, labels, features)
    return sums / labels.bincount(minlength=classes).clamp_min(1)[:, None]


def distance(centers: Tensor, features: Tensor) -> Tensor:
    """Mean over the batch of KL(softmax(center) || softmax(feature)), in nats."""
    wanted = centers.log_softmax(1)
    return (wanted.exp() * (wanted - features.float().log_softmax(1))).sum(1).mean()
