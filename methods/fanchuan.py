"""fanchuan: forget by uniform predictions, then by contrast with retained images, alternating with the retain set.

    once           min KL(uniform || p(x_f)), one pass over D_f
    e times        min mean of -log softmax(f(x_f) f(x_r)^T / tau) over pairs, f(x_r) constant, one pass over D_f
                   min CE(D_r), one pass over D_r

By the team fanchuan, second on the leaderboard of the NeurIPS 2023 challenge (some reports rank it first); "FCS" in
Cadet et al. 2024. Each row of the softmax is a forgotten image and runs over a batch of retained ones: the loss is
smallest where an image is equally near to all of them. The learning rate of the forget rounds falls by a cosine over
all of them. Deviations: batch-norm statistics are held fixed in the rounds of the forget set, which are in train mode
as released (`batch_norm=train`); the cosine falls after each round and to zero, as released after each step and to 1e-6
(`schedule=cosine, min_lr=1e-6`); the retain learning rate is used as given, where the released code multiplies it by
batch_size / 64; the contrast goes on through the retain set, where the released code starts each round anew. As
released, images are not augmented.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._distillation import kl_divergence
from forgetbench.methods._finetuning import min_lr_option, schedule_option, scheduled_lr
from forgetbench.methods._training import batch_norm_option, clone_model, cycle, set_lr, train_loop
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import classification_loss, make_optimizer
from forgetbench.training.data import batch_sizes


@methods.register("fanchuan")
@dataclass(frozen=True, kw_only=True)
class Fanchuan(Method):
    """Forget by a uniform answer and by contrast, in turns with training on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="fanchuan",
        title="Uniform answers and contrast on the forget set, in turns with training on the retain set",
        papers=("fanchuan2023unlearning",),
        family="distillation",
        needs=("forget", "retain"),
        known_limitations="Balance of three learning rates: the last pass must repair what the first one damages.",
    )

    epochs: Duration = param(
        "0.3x", ge=1, paper_default=8, search=("0.08x", "0.4x"), help="Turns of a forget round and a retain round."
    )
    uniform_lr: Rate = param(
        "0.15x", gt=0, paper_default=0.005, search=("0.01x", "0.4x"), help="Learning rate of the first pass."
    )
    forget_lr: Rate = param(
        "0.03x", gt=0, paper_default=3e-4, search=("0.002x", "0.2x"), help="Highest learning rate of the forget rounds."
    )
    lr: Rate = param(
        "0.3x", gt=0, paper_default=0.004, search=("0.02x", "0.6x"), help="Learning rate of the retain rounds."
    )
    schedule: str = schedule_option("cosine-by-epoch", paper_default="cosine")
    min_lr: float = min_lr_option(paper_default=1e-6)
    temperature: float = param(1.15, gt=0, help="Temperature of the contrast.")
    forget_batch_size: int = param(64, ge=1, help="Forget examples per step.")
    batch_size: int = param(64, ge=2, paper_default=256, help="Retain examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, paper_default=0.01, help="Weight decay of the retain rounds.")
    batch_norm: str = batch_norm_option("eval", paper_default="train", note="on the forget set, always train elsewhere")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model after all rounds."""
        network, name = clone_model(model), self.card.name
        self.train_to_uniform(network, request)
        forget_lr = request.resolve_lr(self.forget_lr, "sgd", "forget_lr")
        epochs = request.resolve_epochs(self.epochs, len(request.retain), self.batch_size)
        contrast_batches = cycle(request.retain, self.batch_size, request, 1)
        forget_optimizer = make_optimizer(network.parameters(), "sgd", forget_lr, self.momentum)
        retain_optimizer = make_optimizer(
            network.parameters(), "sgd", request.resolve_lr(self.lr, "sgd"), self.momentum, self.weight_decay
        )
        steps = len(batch_sizes(len(request.forget), self.forget_batch_size))
        for turn in range(epochs):
            with train_loop(
                network,
                request,
                forget_optimizer,
                f"{name}, forget round {turn + 1},",
                batch_norm=self.batch_norm,
                last=False,
            ) as loop:
                for _ in loop.epochs(1):
                    batches = request.forget.batches(self.forget_batch_size, request.derive_seed(2, turn))
                    for step, (images, _) in enumerate(batches):
                        progress = (turn + step / steps) / epochs
                        lr = scheduled_lr(self.schedule, forget_lr, self.min_lr, turn, epochs, progress)
                        set_lr(forget_optimizer, lr)
                        retain_images, _ = next(contrast_batches)
                        with loop.autocast():
                            logits = network(images)
                            with torch.no_grad():
                                retain_logits = network(retain_images)
                            loss = contrast(logits, retain_logits, self.temperature)
                        loop.step(loss)
            with train_loop(
                network,
                request,
                retain_optimizer,
                f"{name}, retain round {turn + 1},",
                batch_norm="train" if self.batch_norm == "eval" else self.batch_norm,
                last=turn + 1 == self.epochs,
            ) as loop:
                for _ in loop.epochs(1):
                    for images, labels in request.retain.batches(self.batch_size, request.derive_seed(3, turn)):
                        with loop.autocast():
                            loss = classification_loss(network(images), labels)
                        loop.step(loss)
        return network

    def train_to_uniform(self, network: nn.Module, request: ForgetRequest) -> None:
        """The first pass; a method of its own, so that the momentum is freed after it."""
        lr = request.resolve_lr(self.uniform_lr, "sgd", "uniform_lr")
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm, last=False) as loop:
            for _ in loop.epochs(1):
                for images, _ in request.forget.batches(self.forget_batch_size, request.derive_seed(0)):
                    with loop.autocast():
                        logits = network(images)
                        uniform = torch.zeros_like(logits)
                        loss = kl_divergence(uniform, logits, attributes=request.forget.attributes).mean()
                    loop.step(loss)


def contrast(forget_logits: Tensor, retain_logits: Tensor, temperature: float) -> Tensor:
    """Mean of -log softmax of the products of logits (F, K) and (R, K), with the softmax over retained images."""
    return -(forget_logits @ retain_logits.T / temperature).log_softmax(1).mean()
