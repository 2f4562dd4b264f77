"""Gradient ascent: climb the loss of the forget set, and stop before the rest breaks.

    max CE(D_f), until validation accuracy has fallen by `floor`

As in Golatkar et al. 2020 and Graves et al. 2021; Jia et al. 2023 run 5 epochs at 1e-4 without a floor, which on
most networks does either nothing or everything. Deviations: the floor, watched after each step, the last state above
it being returned; batch-norm statistics held, since batches of the forget set alone would move them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._training import accuracy, descend, editable, endless
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
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

    epochs: int = param(40, ge=1, paper_default=5, help="Most passes over the forget set.")
    lr: float = param(0.005, gt=0, paper_default=1e-4, search=(1e-4, 3e-2), help="Learning rate.")
    batch_size: int = param(64, ge=1, paper_default=256, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    floor: float = param(
        0.02, ge=0, le=1, search=(5e-3, 0.1), help="Fall of validation accuracy at which it stops (1 = never)."
    )

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """The last state whose validation accuracy was above the floor."""
        edited = editable(model)
        allowed = accuracy(model, request.validation) - self.floor
        kept, steps_kept = copy.deepcopy(model.state_dict()), 0
        stream = endless(request.forget, self.batch_size, request, 0)
        per_epoch = len(batch_sizes(len(request.forget), self.batch_size))

        def below_floor(step: int) -> bool:
            nonlocal steps_kept
            if accuracy(edited, request.validation) < allowed:
                return True
            for name, value in edited.state_dict().items():
                kept[name].copy_(value)
            steps_kept = step + 1
            return False

        try:
            descend(
                edited,
                request,
                epochs=self.epochs * per_epoch,  # of one step each, since the floor is watched at every step
                batches=lambda _: [next(stream)],
                loss=lambda batch: -classification_loss(edited(batch[0]), batch[1]),
                optimizer=make_optimizer(edited.parameters(), "sgd", self.lr, self.momentum),
                method=self.card.name,
                after_epoch=below_floor,
            )
        except DivergedError:
            if self.floor == 1 or steps_kept == 0:  # otherwise that step is below the floor like any other
                epoch = steps_kept // per_epoch + 1
                raise DivergedError(
                    f"{self.card.name} diverged in epoch {epoch} at learning rate {self.lr:.3g}"
                ) from None
        edited.load_state_dict(kept)
        request.report("steps", steps_kept)
        return edited.eval()
