"""GS-LoRA++: GS-LoRA that also moves features away from the prototypes of forgotten classes.

    min  GS-LoRA's loss + w_f ReLU(BND_p - l(D_f)) + w_r l(D_r),   l(x, c) = KL(softmax(p_c) || softmax(h(x)))

Zhao et al. 2025; p_c is the mean feature of the training examples of class c under the model at the start of the
request, and h the penultimate features. (The authors' single-step script takes the prototypes of a random network,
because it computes them before it loads the checkpoint.) Means are over the batch, as with their `batchmean`.
Deviations: w_r is 0 in their recipes, and small here; their prototype augmentation for few-shot replay is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._distillation import full_precision
from forgetbench.methods._lora import add_lora, group_norms, merge_lora
from forgetbench.methods._training import clone_model, cycle, n_outputs, set_lr, train_loop
from forgetbench.methods.base import Examples, ForgetRequest, MethodCard, param
from forgetbench.methods.gs_lora import GSLoRA, half_cosine, weights_of_requests
from forgetbench.training import classification_loss, lower_own_class, predict_features

if TYPE_CHECKING:
    from forgetbench.networks import Network


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
    forget_pulls: str = param("", help="Instead of forget_pull, one for each request of a stream, as for betas.")
    retain_pull: float = param(
        0.01, ge=0, paper_default=0.0, search=(1e-3, 0.1), help="w_r: weight of staying near the others."
    )
    prototype_bound: float = param(18.0, gt=0, help="BND_p: distance in nats beyond which features are left alone.")

    def __post_init__(self) -> None:
        super().__post_init__()
        weights_of_requests(self.forget_pulls, "forget_pulls")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model with trained adapters merged into it."""
        network = cast("Network", clone_model(model))
        forget = self.replayed(request.forget, request.generator(3))
        retain = self.replayed(request.retain, request.generator(4))
        prototypes = class_prototypes(model, retain.join(forget), n_outputs(model))
        groups = add_lora(network, self.rank, request.generator(0), self.later_range if request.step else 1.0)
        lr = request.resolve_lr(self.lr, "adamw")
        epochs = request.resolve_epochs(self.epochs, len(retain), self.batch_size)
        optimizer = self.adapter_optimizer(network, lr)
        beta = self.weight_of_request(self.beta, self.betas, request.step)
        forget_pull = self.weight_of_request(self.forget_pull, self.forget_pulls, request.step)
        forget_batches = cycle(forget, self.batch_size, request, 1)
        with train_loop(network, request, optimizer, self.card.name) as loop:
            for epoch in loop.epochs(epochs):
                set_lr(optimizer, half_cosine(lr, epoch, epochs))
                for retain_images, retain_labels in retain.batches(self.batch_size, request.derive_seed(2, epoch)):
                    forget_images, forget_labels = next(forget_batches)
                    with loop.autocast():
                        features = network.features(torch.cat([retain_images, forget_images]))
                        sizes = [len(retain_images), len(forget_images)]
                        labels = torch.cat([retain_labels, forget_labels])
                        logits = lower_own_class(network.head(features), labels, network, request.recipe)
                        retain_logits, forget_logits = logits.split(sizes)
                        # the three terms of GS-LoRA
                        retain_loss = classification_loss(retain_logits, retain_labels)
                        forget_loss = torch.relu(self.bound - classification_loss(forget_logits, forget_labels))
                        loss = retain_loss + beta * forget_loss
                        if epoch >= self.alpha_epoch:
                            loss = loss + self.alpha * group_norms(groups).sum()
                        # the two terms of the prototypes
                        retain_features, forget_features = features.split(sizes)
                        retain_distance = prototype_distance(prototypes[retain_labels], retain_features)
                        forget_distance = prototype_distance(prototypes[forget_labels], forget_features)
                        loss = loss + self.prototype_loss(forget_distance, retain_distance, forget_pull)
                    loop.step(loss)
        self.log_updates(groups, request)
        merge_lora(network)
        return network.eval()

    def prototype_loss(self, forget_distance: Tensor, retain_distance: Tensor, forget_pull: float) -> Tensor:
        """Move forgotten features away from their prototypes, up to a bound, and keep retained ones near theirs."""
        return forget_pull * torch.relu(self.prototype_bound - forget_distance) + self.retain_pull * retain_distance


def class_prototypes(model: nn.Module, examples: Examples, classes: int) -> Tensor:
    """Mean features of each class (classes, F); zero for a class without examples."""
    features = torch.from_numpy(predict_features(model, examples)).to(examples.device)
    labels = examples.labels
    sums = torch.zeros(classes, features.shape[1], device=examples.device).index_add_(0, labels, features)
    return sums / labels.bincount(minlength=classes).clamp_min(1)[:, None]


def prototype_distance(prototypes: Tensor, features: Tensor) -> Tensor:
    """Mean over the batch of KL(softmax(prototype) || softmax(feature)), in nats."""
    target = prototypes.log_softmax(1)
    return (target.exp() * (target - full_precision(features).log_softmax(1))).sum(1).mean()
