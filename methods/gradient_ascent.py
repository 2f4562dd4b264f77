"""Gradient ascent: climb the loss of the forget set, and stop before the rest breaks.

    max CE(D_f), until validation accuracy has fallen by `floor`

As in Golatkar et al. 2020 and Graves et al. 2021; Jia et al. 2023 run 5 epochs at 1e-4 without a floor, which on
most networks does either nothing or everything. Deviations: the floor, watched after each epoch, the last state above
it being returned; batch-norm statistics held, since batches of the forget set alone would move them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
from forgetbench.methods.loops import accuracy, descend, editable
from forgetbench.training import Diverged, classification_loss, make_optimiser


@dataclass(frozen=True, kw_only=True)
class GradientAscent(Method):
    """Ascend on the forget set until validation accuracy would fall below a floor."""

    card: ClassVar[MethodCard] = MethodCard(
        name="gradient-ascent",
        title="Climbs the loss of the forget set, down to a utility floor on validation",
        authors="Laura Graves, Vineel Nagisetty, Vijay Ganesh",
        year=2021,
        venue="AAAI",
        link="https://arxiv.org/abs/2010.10981",
        bibtex="@inproceedings{graves2021amnesiac, title={Amnesiac Machine Learning}, "
        "author={Graves, Laura and Nagisetty, Vineel and Ganesh, Vijay}, booktitle={AAAI}, year={2021}}",
        family="ascent",
        needs=frozenset({"forget", "validation"}),
        fails_at="stopping: the loss has no ceiling, so it does nothing or breaks the classes of the forget set",
    )

    epochs: int = param(20, low=1, authors=5, help="Most passes over the forget set.")
    lr: float = param(0.02, above=0, authors=1e-4, help="Learning rate.")
    batch_size: int = param(64, low=1, authors=256, help="Examples per step.")
    momentum: float = param(0.9, low=0, below=1, help="Momentum of SGD.")
    floor: float = param(0.02, low=0, high=1, help="Fall of validation accuracy at which it stops (1 = never).")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """The last state whose validation accuracy was above the floor."""
        edited = editable(model)
        allowed = accuracy(model, request.validation) - self.floor
        kept = copy.deepcopy(model.state_dict())
        epochs_kept = 0

        def below_floor(epoch: int) -> bool:
            nonlocal kept, epochs_kept
            if accuracy(edited, request.validation) < allowed:
                return True
            kept, epochs_kept = copy.deepcopy(edited.state_dict()), epoch + 1
            return False

        try:
            descend(
                edited,
                request,
                epochs=self.epochs,
                batches=lambda epoch: request.forget.batches(self.batch_size, request.seed_of(epoch)),
                loss=lambda batch: -classification_loss(edited(batch[0]), batch[1]),
                optimiser=make_optimiser(edited.parameters(), "sgd", self.lr, self.momentum),
                method=self.card.name,
                after_epoch=below_floor,
            )
        except Diverged:
            if self.floor == 1:  # otherwise that epoch is below the floor like any other
                raise
        edited.load_state_dict(kept)
        request.report("epochs", epochs_kept)
        return edited.eval()
