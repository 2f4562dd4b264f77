"""Plain loops of nineteen methods, as in released code: floats in memory, no seeds, no checks.

Each loop takes the same number of steps of the same size as ForgetBench's method with the same hyper-parameters.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.methods.base import ForgetRequest

Batch = tuple[Tensor, Tensor]
Loop = Callable[[], nn.Module]


class Data(NamedTuple):
    """One set of examples as floats, with its labels."""

    images: Tensor
    labels: Tensor

    def batches(self, size: int) -> Iterator[Batch]:
        order = torch.randperm(len(self.labels))
        for rows in order.split(size):
            yield self.images[rows], self.labels[rows]

    def cycle(self, size: int) -> Iterator[Batch]:
        while True:
            yield from self.batches(size)


def sgd(network: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=lr, momentum=0.9, weight_decay=5e-4)


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loss.item()  # released code adds it to a meter


def softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return functional.kl_div(
        functional.log_softmax(student / temperature, 1),
        functional.softmax(teacher / temperature, 1),
        reduction="batchmean",
    )


class Adapter(nn.Module):
    """Low-rank adapter in parallel to a linear layer."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear, self.rank = linear, rank
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs) + inputs @ self.down.T @ self.up.T / self.rank


class PlainLoops:
    """The plain loops over one request, for a number of epochs."""

    def __init__(self, original: nn.Module, request: ForgetRequest, epochs: int) -> None:
        self.original, self.request, self.epochs = original, request, epochs
        self.forget = Data(request.forget.images.float() / 255, request.forget.labels)
        self.retain = Data(request.retain.images.float() / 255, request.retain.labels)
        self.validation = Data(request.validation.images.float() / 255, request.validation.labels)

    def all(self) -> dict[str, Loop]:
        """Method -> its plain loop."""
        return {
            "finetune": self.finetune,
            "l1-sparse": self.l1_sparse,
            "cf-k": self.cf_k,
            "neggrad-plus": self.neggrad_plus,
            "gradient-ascent": self.gradient_ascent,
            "random-label": self.random_label,
            "amnesiac": self.amnesiac,
            "salun": self.salun,
            "scrub": self.scrub,
            "bad-teacher": self.bad_teacher,
            "delete": self.delete,
            "eu-k": self.eu_k,
            "iau": self.iau,
            "jit": self.jit,
            "msg": self.msg,
            "lotus": self.lotus,
            "fanchuan": self.fanchuan,
            "unsir": self.unsir,
            "gs-lora": self.gs_lora,
        }

    def student(self) -> nn.Module:
        return copy.deepcopy(self.original).train()

    def finetune(self) -> nn.Module:
        network = self.student()
        optimizer = sgd(network)
        for _ in range(self.epochs):
            for images, labels in self.retain.batches(128):
                step(optimizer, functional.cross_entropy(network(images), labels))
        return network

    def l1_sparse(self) -> nn.Module:
        network = self.student()
        optimizer = sgd(network)
        for epoch in range(self.epochs):
            strength = 1e-4 * (1 - epoch / self.epochs)
            for images, labels in self.retain.batches(128):
                size = sum((parameter.abs().sum() for parameter in network.parameters()), torch.zeros(()))
                step(optimizer, functional.cross_entropy(network(images), labels) + strength * size)
        return network

    def eu_k(self) -> nn.Module:
        network = copy.deepcopy(self.original)
        fresh = self.request.new_network()
        network.blocks[-1].load_state_dict(fresh.blocks[-1].state_dict())
        network.head.load_state_dict(fresh.head.state_dict())
        return self.last_block_trained(network)

    def cf_k(self) -> nn.Module:
        return self.last_block_trained(copy.deepcopy(self.original))

    def last_block_trained(self, network: nn.Module) -> nn.Module:
        network.eval().requires_grad_(requires_grad=False)
        blocks = network.blocks
        for part in (blocks[-1], network.head):
            part.requires_grad_(requires_grad=True).train()
        optimizer = sgd(network)
        for _ in range(self.epochs):
            for images, labels in self.retain.batches(128):
                step(optimizer, functional.cross_entropy(network(images), labels))
        return network

    def neggrad_plus(self) -> nn.Module:
        network, forget_batches = self.student(), self.forget.cycle(128)
        optimizer = sgd(network)
        for _ in range(self.epochs):
            for images, labels in self.retain.batches(128):
                forget_images, forget_labels = next(forget_batches)
                forget_loss = functional.cross_entropy(network(forget_images), forget_labels)
                step(optimizer, 0.9 * functional.cross_entropy(network(images), labels) - 0.1 * forget_loss)
        return network

    def gradient_ascent(self) -> nn.Module:
        network, forget_batches = self.student(), self.forget.cycle(64)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9)
        for _ in range(self.epochs * -(-len(self.forget.labels) // 64)):
            images, labels = next(forget_batches)
            step(optimizer, -functional.cross_entropy(network(images), labels))
            network.eval()
            with torch.no_grad():
                right = sum(int((network(x).argmax(1) == y).sum()) for x, y in self.validation.batches(512))
            network.train()
            if right / len(self.validation.labels) < 0:
                break
        return network

    def random_label(self) -> nn.Module:
        network, kept = copy.deepcopy(self.original).train(), self.retain.cycle(192)
        wrong = self.forget._replace(labels=(self.forget.labels + torch.randint(1, 10, self.forget.labels.shape)) % 10)
        optimizer = sgd(network)
        for _ in range(self.epochs):
            for images, labels in wrong.batches(64):
                more, retain_labels = next(kept)
                both, targets = torch.cat([images, more]), torch.cat([labels, retain_labels])
                step(optimizer, functional.cross_entropy(network(both), targets))
        return network

    def joined(self) -> Data:
        wrong = (self.forget.labels + torch.randint(1, 10, self.forget.labels.shape)) % 10
        return Data(torch.cat([self.forget.images, self.retain.images]), torch.cat([wrong, self.retain.labels]))

    def amnesiac(self) -> nn.Module:
        network, data = self.student(), self.joined()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(self.epochs):
            for images, labels in data.batches(128):
                step(optimizer, functional.cross_entropy(network(images), labels))
        return network

    def salun(self) -> nn.Module:
        network = copy.deepcopy(self.original).eval()
        sums = [torch.zeros_like(parameter) for parameter in network.parameters()]
        for images, labels in self.forget.batches(256):
            network.zero_grad()
            (-functional.cross_entropy(network(images), labels)).backward()
            for total, parameter in zip(sums, network.parameters(), strict=True):
                total.add_(parameter.grad)
        sizes = torch.cat([-total.abs().flatten() for total in sums])
        places = torch.argsort(torch.argsort(sizes)) < len(sizes) // 2
        masks = [part.view_as(total) for part, total in zip(places.split([t.numel() for t in sums]), sums, strict=True)]
        network.train()
        data, optimizer = self.joined(), sgd(network)
        for _ in range(self.epochs):
            for images, labels in data.batches(128):
                loss = functional.cross_entropy(network(images), labels)
                optimizer.zero_grad()
                loss.backward()
                for parameter, mask in zip(network.parameters(), masks, strict=True):
                    parameter.grad *= mask
                optimizer.step()
                loss.item()
        return network

    def scrub(self) -> nn.Module:
        teacher, network = copy.deepcopy(self.original).eval(), self.student()
        optimizer = sgd(network, 0.005)
        for _ in range(self.epochs):
            for maximize, data, size in ((True, self.forget, 16), (False, self.retain, 64)):
                for images, labels in data.batches(size):
                    with torch.no_grad():
                        targets = teacher(images)
                    logits = network(images)
                    kl = 4 * softened(logits, targets, 2.0)
                    loss = -kl if maximize else 0.5 * kl + functional.cross_entropy(logits, labels)
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                    optimizer.step()
                    loss.item()
        return network

    def bad_teacher(self) -> nn.Module:
        good, bad = copy.deepcopy(self.original).eval(), self.request.new_network().eval()
        network, kept = self.student(), torch.randperm(len(self.retain.labels))[: int(0.3 * len(self.retain.labels))]
        both = Data(
            torch.cat([self.forget.images, self.retain.images[kept]]),
            torch.cat([torch.ones(len(self.forget.labels)), torch.zeros(len(kept))]),
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        for _ in range(self.epochs):
            for images, is_forget in both.batches(64):
                with torch.no_grad():
                    good_targets, bad_targets = good(images).softmax(1), bad(images).softmax(1)
                targets = is_forget[:, None] * bad_targets + (1 - is_forget[:, None]) * good_targets
                step(optimizer, functional.kl_div(network(images).log_softmax(1), targets, reduction="batchmean"))
        return network

    def delete(self) -> nn.Module:
        teacher, network = copy.deepcopy(self.original).eval(), self.student()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
        for _ in range(self.epochs):
            for images, labels in self.forget.batches(64):
                with torch.no_grad():
                    targets = teacher(images)
                    targets[torch.arange(len(labels)), labels] = -1e10
                step(
                    optimizer,
                    functional.kl_div(network(images).log_softmax(1), targets.softmax(1), reduction="batchmean"),
                )
        return network

    def iau(self) -> nn.Module:
        network = copy.deepcopy(self.original).eval()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        kept = functional.cross_entropy(network(self.retain.images), self.retain.labels)
        step(optimizer, kept - functional.cross_entropy(network(self.forget.images), self.forget.labels))
        return network

    def jit(self) -> nn.Module:
        network = copy.deepcopy(self.original).eval()
        optimizer, deviation = torch.optim.SGD(network.parameters(), lr=1e-4), network.std.view(1, -1, 1, 1)
        for _ in range(self.epochs):
            for images, _ in self.forget.batches(64):
                answers, lowest, highest = network(images), images.min(), images.max()
                slopes = torch.zeros(len(images))
                for _ in range(25):
                    with torch.no_grad():
                        near = (images + 0.5 * deviation * torch.randn_like(images)).clamp(lowest, highest)
                        others = network(near)
                        length = ((near - images) / deviation).flatten(1).norm(dim=1)
                    slopes = slopes + (answers - others).norm(dim=1) / length
                step(optimizer, (slopes / 25).sum())
        return network

    def msg(self) -> nn.Module:
        network = copy.deepcopy(self.original).eval()
        rows = torch.randperm(len(self.retain.labels))[: len(self.forget.labels)]
        for data, sign in ((Data(self.retain.images[rows], self.retain.labels[rows]), 1), (self.forget, -1)):
            for images, labels in data.batches(256):
                part = len(labels) / len(data.labels)
                (sign * part * functional.cross_entropy(network(images), labels)).backward()
        kept = {}
        for layer in (layer for layer in network.modules() if isinstance(layer, nn.Conv2d)):
            sizes = layer.weight.grad.abs()
            reset = sizes <= sizes.flatten().kthvalue(int(0.3 * sizes.numel())).values
            fresh = torch.empty_like(layer.weight)
            nn.init.kaiming_normal_(fresh, mode="fan_out", nonlinearity="relu")
            layer.weight.data = torch.where(reset, fresh, layer.weight.data)
            kept[layer] = torch.where(reset, 1.0, 0.1)
        network.train()
        optimizer = sgd(network, 0.05)
        for _ in range(self.epochs):
            for images, labels in self.retain.batches(64):
                loss = functional.cross_entropy(network(images), labels)
                optimizer.zero_grad()
                loss.backward()
                for layer, factor in kept.items():
                    layer.weight.grad *= factor
                optimizer.step()
                loss.item()
        return network

    def accuracy(self, network: nn.Module, data: Data) -> float:
        network.eval()
        with torch.no_grad():
            return sum(int((network(x).argmax(1) == y).sum()) for x, y in data.batches(512)) / len(data.labels)

    def lotus(self) -> nn.Module:
        teacher, network = copy.deepcopy(self.original).eval(), self.student()
        kept = torch.randperm(len(self.retain.labels))[: int(0.3 * len(self.retain.labels))]
        both = Data(
            torch.cat([self.forget.images, self.retain.images[kept]]),
            torch.cat([torch.ones(len(self.forget.labels)), torch.zeros(len(kept))]),
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=5e-4)
        self.accuracy(teacher, self.validation)  # its accuracy is the target unless a whole class is forgotten
        for _ in range(self.epochs):
            temperature = math.exp(8 * self.accuracy(network, self.forget))
            network.train()
            for images, is_forget in both.batches(64):
                with torch.no_grad():
                    logits = teacher(images)
                soft = functional.gumbel_softmax(logits, tau=temperature)
                hard = functional.gumbel_softmax(logits, tau=1.0, hard=True)
                targets = torch.where(is_forget[:, None].bool(), soft, hard)
                step(optimizer, -(targets * network(images).log_softmax(1)).sum(1).mean())
        return network

    def fanchuan(self) -> nn.Module:
        network, others = self.student(), self.retain.cycle(64)
        first = torch.optim.SGD(network.parameters(), lr=0.005, momentum=0.9)
        for images, _ in self.forget.batches(64):
            logits = network(images)
            uniform = torch.full_like(logits, 1 / logits.shape[1])
            step(first, functional.kl_div(logits.log_softmax(1), uniform, reduction="batchmean"))
        forgetting, keeping = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9), sgd(network)
        for _ in range(self.epochs):
            for images, _ in self.forget.batches(64):
                with torch.no_grad():
                    answers = network(next(others)[0])
                step(forgetting, -(network(images) @ answers.T / 1.15).log_softmax(1).mean())
            for images, labels in self.retain.batches(64):
                step(keeping, functional.cross_entropy(network(images), labels))
        return network

    def unsir(self) -> nn.Module:
        network, label = self.student(), int(self.forget.labels[0])
        noise = torch.randn(64, *self.forget.images.shape[1:]).requires_grad_()
        optimizer, labels = torch.optim.Adam([noise], lr=0.1), torch.full((64,), label)
        mean, deviation = self.original.mean, self.original.std
        for _ in range(40):
            wrong = functional.cross_entropy(self.original(mean + deviation * noise), labels)
            step(optimizer, 0.1 * noise.square().sum((1, 2, 3)).mean() - wrong)
        noise = (mean + deviation * noise).detach()
        impairing = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(self.epochs):
            for images, retain_labels in self.retain.batches(64):
                some = torch.randint(64, (len(images) // 2,))
                both, targets = torch.cat([images, noise[some]]), torch.cat([retain_labels, labels[some]])
                step(impairing, functional.cross_entropy(network(both), targets))
        repairing = torch.optim.Adam(network.parameters(), lr=0.005)
        for _ in range(2):
            for images, retain_labels in self.retain.batches(64):
                step(repairing, functional.cross_entropy(network(images), retain_labels))
        return network

    def gs_lora(self) -> nn.Module:
        network = copy.deepcopy(self.original).requires_grad_(requires_grad=False)
        forget_batches = self.forget.cycle(48)
        for block in network.blocks:
            block.mlp.fc1, block.mlp.fc2 = Adapter(block.mlp.fc1, 8), Adapter(block.mlp.fc2, 8)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.05)
        network.train()
        for epoch in range(self.epochs):
            for images, labels in self.retain.batches(48):
                forget_images, forget_labels = next(forget_batches)
                forget_loss = torch.relu(10.0 - functional.cross_entropy(network(forget_images), forget_labels))
                loss = functional.cross_entropy(network(images), labels) + 0.15 * forget_loss
                if epoch >= 1:
                    for block in network.blocks:
                        parts = [m for layer in (block.mlp.fc1, block.mlp.fc2) for m in (layer.down, layer.up)]
                        loss = loss + 0.01 * torch.sqrt(sum(part.square().sum() for part in parts))
                step(optimizer, loss)
        with torch.no_grad():
            for layer in (layer for layer in network.modules() if isinstance(layer, Adapter)):
                layer.linear.weight += layer.up @ layer.down / layer.rank
        for block in network.blocks:
            block.mlp.fc1, block.mlp.fc2 = block.mlp.fc1.linear, block.mlp.fc2.linear
        return network
