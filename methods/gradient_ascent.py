"""Gradient ascent: increase the loss of the forget set, and stop before the rest is damaged.

    max CE(D_f), until validation accuracy has fallen by `floor`

As in Golatkar et al. 2020 and Graves et al. 2021. Jia et al. 2023 run 5 epochs at 1e-4 without a floor (`floor=none`),
which on most networks does either nothing or too much. Deviations: validation accuracy is checked after each step, and
the last state above the floor is returned; batch-norm statistics are held fixed, because batches of the forget set
alone would move them (they move in the code of Jia et al.: `batch_norm=train`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._training import accuracy, augment_option, batch_norm_option, clone_model, cycle, train_loop
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import DivergedError, classification_loss, make_optimizer
from forgetbench.training.data import batch_sizes


@methods.register("gradient-ascent")
@dataclass(frozen=True, kw_only=True)
class GradientAscent(Method):
    """Ascend on the forget set until validation accuracy would fall below a floor."""

    card: ClassVar[MethodCard] = MethodCard(
        name="gradient-ascent",
        title="Climbs the loss of the forget set, down to a utility floor on validation",
        papers=("graves2021amnesiac",),
        family="ascent",
        needs=("forget", "validation"),
        known_limitations="Stopping: the loss is unbounded, so it does nothing or destroys the forgotten classes.",
    )

    epochs: Duration = param("40steps", ge=1, paper_default=5, help="Most passes over the forget set.")
    lr: Rate = param("0.05x", gt=0, paper_default=1e-4, search=("0.002x", "0.6x"), help="Learning rate.")
    batch_size: int = param(64, ge=1, paper_default=256, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(0.0, ge=0, paper_default=5e-4, help="Weight decay of SGD.")
    floor: float | None = param(
        0.02,
        ge=0,
        le=1,
        search=(5e-3, 0.1),
        help="Fall of validation accuracy at which it stops; None = never, and no validation image is read.",
    )
    augment: bool = augment_option(False, paper_default=True)
    batch_norm: str = batch_norm_option("eval", paper_default="train", retain=False)

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """The last state whose validation accuracy was above the floor, or without one the last state."""
        network = clone_model(model)
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.forget), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        lowest = -1.0 if self.floor is None else accuracy(model, request.validation) - self.floor
        best, best_step = copy.deepcopy(model.state_dict()), 0
        batches = cycle(request.forget, self.batch_size, request, 0, augment=self.augment)
        steps_per_epoch = len(batch_sizes(len(request.forget), self.batch_size))
        try:
            with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
                # each of one step, because it is checked after each step
                for step in loop.epochs(epochs * steps_per_epoch):
                    images, labels = next(batches)
                    with loop.autocast():
                        loss = -classification_loss(network(images), labels)
                    loop.step(loss)
                    loop.check()
                    if self.floor is not None and accuracy(network, request.validation) < lowest:
                        break
                    for name, value in network.state_dict().items():
                        best[name].copy_(value)
                    best_step = step + 1
        except DivergedError:
            if self.floor in (None, 1) or best_step == 0:  # otherwise that step is below the floor like any other
                epoch = best_step // steps_per_epoch + 1
                raise DivergedError(f"{self.card.name} diverged in epoch {epoch} at learning rate {lr:.3g}") from None
        network.load_state_dict(best)
        request.log("steps", best_step)
        return network.eval()
