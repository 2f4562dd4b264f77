"""What an attack states about itself before it runs: its card."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from forgetbench.evidence.run import MethodName
from forgetbench.methods._card import PaperCard, default_name, default_title
from forgetbench.options import Scalar

Holding = Literal["model", "labels", "retain", "forget", "validation", "original"]
"""Something that an attacker may hold: the weights of the model, or its answers as labels only; retained images; some
or all forgotten images; images like the retained ones that no model was trained on; the model before unlearning."""


class AttackCard(PaperCard):
    """Name and paper of an attack, what the attacker holds, its budgets, and where it applies."""

    name: MethodName
    """Name in the registry, such as `relearn-retain`."""
    title: str
    """One line on what it does."""
    papers: tuple[str, ...] = ()
    """Keys of `references.bib`, or whole BibTeX entries; the main paper first."""
    holds: tuple[Holding, ...]
    """What the attacker holds; anything else cannot be read."""
    budget: str = ""
    """The option that says how much the attacker may spend, such as `steps`; "" if there is none."""
    budgets: tuple[Scalar, ...] = ()
    """The values of that option that are run where none is given, in rising strength."""
    outcomes: tuple[str, ...] = ()
    """What the outputs of a membership attack are scores of, the forgotten examples first; () if an attack answers with
    the model's own classes."""
    networks: tuple[str, ...] = ("*",)
    """Names of the networks that it applies to; `*` is all."""
    scenarios: tuple[str, ...] = ("*",)
    """Names of the scenarios that it applies to; `*` is all."""
    attributes: bool = True
    """Whether it applies to labels of A attributes."""
    random: bool | None = True
    """Whether another seed gives another result; None: not stated."""
    known_limitations: str = "Not stated."
    """What it is known to miss."""

    @model_validator(mode="after")
    def _model_or_labels(self) -> Self:
        if ("model" in self.holds) == ("labels" in self.holds):
            raise ValueError("holds must name either model or labels")
        if bool(self.budget) != bool(self.budgets):
            raise ValueError("budget names an option, and budgets lists its values: give both or neither")
        return self


def default_attack_card(attack: type) -> AttackCard:
    """The card of a class without one, from its name and docstring: it holds the model and nothing else."""
    return AttackCard(name=default_name(attack), title=default_title(attack), holds=("model",), random=None)
