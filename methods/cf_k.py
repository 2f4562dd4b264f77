"""CF-k: train the last k blocks on the retain set, with all blocks before them frozen.

    min CE(D_r) over the parameters of the last k blocks and the head

Goel et al. 2022, who count layers; here k counts the network's blocks (a convolution, a residual block, a transformer
block), and the head, as well as any normalization between it and the last block, is always trained. Batch-norm
statistics of frozen blocks are frozen too; in the code of both Goel et al. and Choi and Na 2023, which freezes weights
only, these layers are in train mode like all others (`freeze_statistics=False`). The learning rate falls by a cosine;
the code of Goel et al. restarts it epoch by epoch (`schedule=restart`) and clips gradients at 10, and that of Choi and
Na holds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.errors import UsageError
from forgetbench.methods import methods
from forgetbench.methods._finetuning import min_lr_option, retain_batches, schedule_option, scheduled_lr
from forgetbench.methods._training import (
    augment_option,
    batch_norm_option,
    clip_option,
    clone_model,
    set_lr,
    train_loop,
)
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("cf-k")
@dataclass(frozen=True, kw_only=True)
class CFK(Method):
    """Train the last k blocks and the head on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="cf-k",
        title="Trains the last k blocks and the head on the retain set",
        papers=("goel2022toward",),
        family="fine-tuning",
        needs=("retain",),
        known_limitations="Information in frozen blocks, and memorized examples, as with fine-tuning.",
    )

    k: int = param(
        2,
        ge=0,
        paper_default=10,
        search=(0, 3),
        help="How many of the last blocks are trained, with the head.",
    )
    epochs: Duration = param(
        "0.2x", ge=1, paper_default=30, search=("0.05x", "0.4x"), help="Passes over the retain set."
    )
    lr: Rate = param("1x", gt=0, paper_default=0.1, search=("0.02x", "4x"), help="Highest learning rate.")
    batch_size: int = param(128, ge=2, paper_default=64, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, paper_default=5e-5, help="Weight decay of SGD.")
    schedule: str = schedule_option("cosine", paper_default="restart")
    min_lr: float = min_lr_option(paper_default=5e-3)
    clip: float | None = clip_option(None, paper_default=10.0)
    augment: bool = augment_option(True)
    batch_norm: str = batch_norm_option("train")
    freeze_statistics: bool = param(
        True,
        paper_default=False,
        help="Whether batch-norm in frozen blocks trains in eval mode, whatever `batch_norm` is.",
    )

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model whose last blocks were trained further."""
        network = clone_model(model)
        return self.train_last_blocks(network, last_block_names(network, self.k, self.card.name), request)

    def train_last_blocks(self, network: nn.Module, names: list[str], request: ForgetRequest) -> nn.Module:
        """Train the parameters and buffers with these names in place, with everything else frozen."""
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in names)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        frozen = [part for prefix, part in network.named_modules() if not any(n.startswith(prefix) for n in names)]
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.retain), self.batch_size)
        optimizer = make_optimizer(trained, "sgd", lr, self.momentum, self.weight_decay)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                for module in frozen if self.freeze_statistics else ():
                    module.eval()
                for progress, images, labels in retain_batches(
                    request, self.batch_size, epoch, epochs, augment=self.augment
                ):
                    set_lr(optimizer, scheduled_lr(self.schedule, lr, self.min_lr, epoch, epochs, progress))
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.step(loss, clip=self.clip)
        return network.requires_grad_(requires_grad=True)


def last_block_names(network: nn.Module, k: int, method: str) -> list[str]:
    """Names of the parameters and buffers of the last k blocks and of everything after them.

    Raises:
        UsageError: The network has fewer blocks.
    """
    blocks: list[nn.Module] = network.blocks  # type: ignore[assignment]
    if k > len(blocks):
        raise UsageError(f"{method}: k must be at most {len(blocks)}, the number of the network's blocks, not {k}")
    prefixes = {id(module): name for name, module in network.named_modules()}
    frozen = tuple(f"{prefixes[id(block)]}." for block in blocks[: len(blocks) - k])
    names = list(network.state_dict())
    if not frozen:  # every block, but not the stem before them
        first = next(place for place, name in enumerate(names) if name.startswith(f"{prefixes[id(blocks[0])]}."))
        return names[first:]
    return names[1 + max(place for place, name in enumerate(names) if name.startswith(frozen)) :]
