"""Example of a custom method: fine-tuning on the retain set from a noisy start.

forgetbench run digits/cnn/random-10 --method-file examples/my_method.py:NoisyFineTune
"""

import copy
from dataclasses import dataclass

import torch

from forgetbench.methods import ForgetRequest, Method, param
from forgetbench.training import classification_loss


@dataclass(frozen=True, kw_only=True)
class NoisyFineTune(Method):
    """Adds noise to every weight, then trains on the retain set."""

    noise: float = param(0.1, ge=0, search=(0.01, 1.0), help="Noise, relative to the spread of each weight tensor.")
    lr: float = param(0.02, gt=0, search=(1e-3, 0.1), help="Learning rate.")
    epochs: int = param(3, ge=1, search=(1, 6), help="Passes over the retain set.")

    def unlearn(self, model: torch.nn.Module, request: ForgetRequest) -> torch.nn.Module:
        """Return an unlearned copy; the given model does not change."""
        network = copy.deepcopy(model).train()
        generator = request.generator()
        with torch.no_grad():
            for weight in network.parameters():
                spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
                weight.add_(self.noise * spread * torch.randn(weight.shape, generator=generator).to(weight))
        optimizer = torch.optim.SGD(network.parameters(), lr=self.lr, momentum=0.9)
        for epoch in range(self.epochs):
            for images, labels in request.retain.batches(64, request.derive_seed(epoch)):
                optimizer.zero_grad()
                classification_loss(network(images), labels).backward()
                optimizer.step()
        return network.eval()
