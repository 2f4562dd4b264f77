"""The contract of a method: a frozen dataclass of hyper-parameters that turns a model into an unlearned one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from forgetbench.errors import UsageError
from forgetbench.methods._card import MethodCard, TaskFacts, default_card, refusal
from forgetbench.options import Duration, OptionDoc, Options, Rate, Scalar, parse_scaled
from forgetbench.options import option as param
from forgetbench.training import Examples, LossFunction, Recipe
from forgetbench.training.compute import derive_generator, derive_seed
from forgetbench.training.data import batch_sizes

__all__ = ["Duration", "Examples", "ForgetRequest", "Method", "MethodCard", "Rate", "Recipe", "TaskFacts", "param"]

SGD_PER_ADAM = 30.0
"""Learning rate of SGD that does as much as 1 of Adam: by so much recipes of one task for two networks differ."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ForgetRequest:
    """All that a method is given: no test data, no oracle.

    Raises:
        UsageError: There is nothing to forget, or nothing to train on would remain.
    """

    forget: Examples
    """The examples to forget, with the labels that were trained on."""
    retain: Examples
    """The other training examples."""
    validation: Examples
    """Held-out examples like the retained ones."""
    seed: int
    """Seed of every random choice of the method."""
    recipe: Recipe
    """How the original was trained."""
    new_network: Callable[[], nn.Module]
    """Makes a newly initialized network of the same architecture on the same device; every call makes the same one."""
    forget_fine_labels: Tensor | None = None
    """int64 (n,) on the CPU: fine class of each example to forget; None if the image set has no fine classes."""
    retain_fine_labels: Tensor | None = None
    """int64 (n,) on the CPU: fine class of each retained example; None if the image set has no fine classes."""
    step: int = 0
    """Position in a stream of requests; step k gets the model that step k-1 returned."""
    notes: dict[str, float | str] = field(default_factory=dict)
    """What the method has logged; stored in the manifest."""

    def __post_init__(self) -> None:
        if len(self.forget) == 0:
            raise UsageError("The forget set is empty. Give at least one example to forget.")
        if len(self.retain) == 0:
            raise UsageError("The forget set is the whole training set. Leave at least two examples to retain.")
        if len(self.retain) == 1:
            raise UsageError("Only one example is left to retain. Leave at least two, because training needs two.")

    @property
    def device(self) -> torch.device:
        """Device of the examples and the model."""
        return self.forget.device

    def derive_seed(self, *stream: int) -> int:
        """A seed for one stream of random choices, such as an epoch."""
        return derive_seed(self.seed, *stream)

    def generator(self, *stream: int, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator for one stream of random choices; one on the CPU gives the same numbers to every device."""
        return derive_generator(self.seed, *stream, device=device)

    def resolve_lr(self, value: Rate, optimizer: str, name: str = "lr") -> float:
        """A learning rate as a number, rounded to twelve digits, so that 0.1x of 0.1 is the same as 0.01.

        Args:
            value: A number, or a multiple of the recipe's learning rate, such as ``0.1x``; its number is logged. Where
                one of recipe and method uses SGD and the other Adam, 30 of SGD count as 1 of Adam.
            optimizer: The method's: "sgd", "adam" or "adamw".
            name: Name of the hyper-parameter.

        Raises:
            UsageError: The text is no multiple.
        """
        if not isinstance(value, str):
            return value
        lr = parse_scaled(value, ("x",)).number * self.recipe.lr
        if (optimizer == "sgd") != (self.recipe.optimizer == "sgd"):
            lr *= SGD_PER_ADAM if optimizer == "sgd" else 1 / SGD_PER_ADAM
        lr = float(f"{lr:.12g}")
        self.log(name, lr)
        return lr

    def resolve_epochs(self, value: Duration, examples: int, batch_size: int, name: str = "epochs") -> int:
        """A number of epochs, at least one.

        Args:
            value: A number of epochs; or a multiple of the recipe's epochs, such as ``0.1x``; or a number of steps,
                such as ``40steps``, for the epochs that come nearest to it. What a text comes to is logged.
            examples: Examples of an epoch.
            batch_size: Examples per step.
            name: Name of the hyper-parameter.

        Raises:
            UsageError: The text is neither.
        """
        if not isinstance(value, str):
            return value
        number, unit = parse_scaled(value)
        one_epoch = len(batch_sizes(examples, batch_size))
        epochs = max(1, round(number * self.recipe.epochs if unit == "x" else number / one_epoch))
        self.log(name, epochs)
        return epochs

    def log(self, name: str, value: float | str) -> None:
        """Record a number or a remark, such as the ratio of weights that changed."""
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
        """An unlearned model; the given model is not changed."""

    @property
    def training_loss(self) -> LossFunction | None:
        """The loss that the method needs its original trained with; None: the ordinary one.

        A subclass may override this by a property or by a plain method `training_loss(network, images, labels)`.
        """
        return None

    def training_parameters(self) -> dict[str, Scalar]:
        """The hyper-parameters that shape `training_loss`; they are part of the key of its originals."""
        return self.to_dict()

    def applies_to(self, facts: TaskFacts) -> str | None:
        """Why the method does not apply to a task, in one sentence; None if it applies."""
        return refusal(self.card, facts)

    @classmethod
    def parameters(cls) -> list[OptionDoc]:
        """The hyper-parameters with their types, defaults, ranges and meaning."""
        return cls.options()
