"""The contract of an attack: a frozen dataclass of options that turns a model into a changed one, or into answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from forgetbench.attacks._card import AttackCard, default_attack_card
from forgetbench.errors import ForgetBenchError
from forgetbench.methods._card import TaskFacts, refusal
from forgetbench.options import OptionDoc, Options
from forgetbench.options import option as param
from forgetbench.training import Examples, Recipe

__all__ = ["Attack", "AttackCard", "Examples", "Knowledge", "LabelsOnly", "Recipe", "TaskFacts", "param"]

Answers = Mapping[str, Tensor]
"""Subset -> logits of its queries (n, K), or scores of a membership attack (n, outcomes)."""
BATCH = 512
"""Queries that are answered at once."""


class HoldingError(ForgetBenchError):
    """An attack read what its card does not name; the message names the attack, the data and the fix."""


class LabelsOnly(nn.Module):
    """A model that answers with labels only: int64 (B,) classes, or (B, A) zeros and ones.

    It has no parameters, and its answers have no gradient.
    """

    def __init__(self, network: nn.Module, *, attributes: bool = False) -> None:
        super().__init__()

        def answer(images: Tensor) -> Tensor:
            with torch.no_grad():
                logits: Tensor = network(images)
            return (logits > 0).long() if attributes else logits.argmax(1)

        self._answer = answer

    def forward(self, images: Tensor) -> Tensor:
        """Labels of images (B, C, H, W) in [0, 1]."""
        labels: Tensor = self._answer(images)
        return labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Knowledge:
    """What an attacker holds. Reading what the card does not name raises an error."""

    card: AttackCard
    """The attack's card."""
    recipe: Recipe
    """How models of this task are trained; it is public."""
    queries: Mapping[str, Examples]
    """Subset -> the images on which the attacked model is judged. Their labels are known to membership attacks only;
    to others all are -1."""
    held: Mapping[str, Examples | nn.Module]
    """What the attacker holds, by the names of the card."""
    notes: dict[str, float | str] = field(default_factory=dict)
    """What the attack has logged; stored in the manifest."""

    @property
    def retain(self) -> Examples:
        """The retained examples with their labels."""
        return self._examples("retain")

    @property
    def forget(self) -> Examples:
        """Forgotten examples with their labels: as many as `Attack.shots` says."""
        return self._examples("forget")

    @property
    def validation(self) -> Examples:
        """Examples like the retained ones that no model was trained on, with their labels."""
        return self._examples("validation")

    @property
    def original(self) -> nn.Module:
        """The model before unlearning, in eval mode; it must not be changed."""
        return cast("nn.Module", self._held("original"))

    def answer(self, function: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        """The answers of a function to all queries, without gradients.

        Args:
            function: (images (B, C, H, W) in [0, 1], labels) -> logits or scores (B, outputs).
        """
        with torch.no_grad():
            return {
                subset: torch.cat([function(images, labels) for images, labels in examples.batches(BATCH)])
                for subset, examples in self.queries.items()
            }

    def log(self, name: str, value: float | str) -> None:
        """Record a number or a remark, such as the share of weights that changed."""
        self.notes[name] = value if isinstance(value, str) else float(value)

    def _examples(self, name: str) -> Examples:
        return cast("Examples", self._held(name))

    def _held(self, name: str) -> Examples | nn.Module:
        if name not in self.card.holds:
            raise HoldingError(
                f"the attack {self.card.name} read knowledge.{name}, which its card does not name: it holds "
                f"{', '.join(self.card.holds)}. Add {name!r} to `holds` of the card, or do without it."
            )
        return self.held[name]


@dataclass(frozen=True, kw_only=True)
class Attack(Options, ABC):
    """Tries to bring back what a model seems to have forgotten. A subclass is a frozen, keyword-only dataclass.

    Its fields are the options, declared by `param(...)` and checked when an object is made. It has a `card` (without
    one, name and title come from the class and its docstring, and it holds the model only) and `attack`, and keeps no
    state.
    """

    card: ClassVar[AttackCard]
    option_noun: ClassVar[str] = "option"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "card" not in cls.__dict__ and not any("card" in base.__dict__ for base in cls.__mro__[1:]):
            cls.card = default_attack_card(cls)
        cls.option_owner = f"attack {cls.card.name}"

    @abstractmethod
    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> nn.Module | Answers:
        """A changed copy of the model, or answers to the queries; the given model is not changed.

        Args:
            model: The model, in eval mode; a `LabelsOnly` if the card holds labels.
            knowledge: What else the attacker holds.
            seed: Seed of every random choice.

        Returns:
            A network like the given one; or for each subset of `knowledge.queries` logits (n, K), of a membership
            attack scores (n, outcomes).
        """

    @property
    def forget_shots(self) -> int | None:
        """Number of forgotten examples that the attacker holds; None: all. It is the option `shots` where there is one.

        They are of each class that is forgotten as a whole, or of the whole forget set where no class is.
        """
        return getattr(self, "shots", None)

    def applies_to(self, facts: TaskFacts, network: nn.Module) -> str | None:
        """Why the attack does not apply to a task, in one sentence; None if it applies.

        Args:
            facts: The task.
            network: A newly initialized network of the task, for its shape.
        """
        return refusal(self.card, facts)

    @classmethod
    def parameters(cls) -> list[OptionDoc]:
        """The options with their types, defaults, ranges and meaning."""
        return cls.options()
