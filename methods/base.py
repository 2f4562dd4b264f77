"""The contract of a method: a frozen dataclass of hyper-parameters that turns a model into an unlearned one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from forgetbench.errors import UsageError
from forgetbench.methods._card import MethodCard, TaskFacts, default_card
from forgetbench.options import OptionDoc, Options, Scalar
from forgetbench.options import option as param
from forgetbench.training import Examples, LossFunction, Recipe
from forgetbench.training.compute import derived_generator, derived_seed

__all__ = ["Examples", "ForgetRequest", "Method", "MethodCard", "Recipe", "TaskFacts", "param"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ForgetRequest:
    """All that a method is given: no test data, no oracle.

    Raises:
        UsageError: There is nothing to forget, or nothing would be left.
    """

    forget: Examples
    """What is to be forgotten, with the labels that were trained on."""
    retain: Examples
    """What is to be kept."""
    validation: Examples
    """Held-out examples of what is to be kept."""
    seed: int
    """Of every random choice of the method."""
    recipe: Recipe
    """How the original was trained."""
    fresh_network: Callable[[], nn.Module]
    """Makes a newly initialized network of the same architecture, on the same device; each call the same one."""
    step: int = 0
    """Position in a stream of requests; step k gets the model that step k-1 returned."""
    notes: dict[str, float | str] = field(default_factory=dict)
    """What the method reports of its own work, collected into the manifest."""

    def __post_init__(self) -> None:
        if len(self.forget) == 0:
            raise UsageError("the forget set is empty: give at least one example to forget")
        if len(self.retain) == 0:
            raise UsageError("the forget set is the whole training set: leave at least two examples to retain")
        if len(self.retain) == 1:
            raise UsageError("one example is left to retain: leave at least two, since training on one is none")

    @property
    def device(self) -> torch.device:
        """Where the examples lie, and so the model."""
        return self.forget.device

    def seed_of(self, *stream: int) -> int:
        """A seed for one stream of random choices, such as an epoch."""
        return derived_seed(self.seed, *stream)

    def generator(self, *stream: int) -> torch.Generator:
        """A generator, on the CPU, for one stream of random choices."""
        return derived_generator(self.seed, *stream)

    def report(self, name: str, value: float | str) -> None:
        """Keep a figure or a remark of the method's own, such as the share of weights that it changed."""
        self.notes[name] = value if isinstance(value, str) else float(value)


@dataclass(frozen=True, kw_only=True)
class Method(Options, ABC):
    """Turns an original into an unlearned model. A subclass is a frozen, keyword-only dataclass.

    Its fields are the hyper-parameters, declared by `param(...)` and checked when an object is made. It has a `card`
    (without one, name and title come from the class and its docstring) and `unlearn`, and keeps no state.
    """

    card: ClassVar[MethodCard]
    option_noun: ClassVar[str] = "hyper-parameter"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "card" not in cls.__dict__ and not any("card" in base.__dict__ for base in cls.__mro__[1:]):
            cls.card = default_card(cls)
        cls.option_owner = f"method {cls.card.name}"

    @abstractmethod
    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """An unlearned model; the one given is left as it was."""

    @property
    def training_loss(self) -> LossFunction | None:
        """The loss that the method wants its original trained with; None = the ordinary one.

        A subclass may override this by a property or by a plain method `training_loss(network, images, labels)`.
        """
        return None

    def training_parameters(self) -> dict[str, Scalar]:
        """The hyper-parameters that shape `training_loss`, by which its originals are stored."""
        return self.to_dict()

    def applies_to(self, facts: TaskFacts) -> str | None:
        """Why the method does not apply to a task, in a sentence; None when it does."""
        card = self.card
        if not {"*", facts.network, facts.like} & set(card.networks):
            return f"{card.name} applies to the networks {', '.join(card.networks)}, not to {facts.network}"
        if "*" not in card.scenarios and facts.scenario not in card.scenarios:
            return f"{card.name} applies to the scenarios {', '.join(card.scenarios)}, not to {facts.scenario}"
        if facts.attributes and not card.attributes:
            return f"{card.name} needs one class per image; it does not apply to labels of several attributes"
        return None

    @classmethod
    def parameters(cls) -> list[OptionDoc]:
        """The hyper-parameters with their types, defaults, ranges and meaning."""
        return cls.options()
