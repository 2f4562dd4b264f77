"""Attacks on unlearned models, one per file; `attacks` is their registry, which imports one when it is first used.

An attack tries to bring back what a model seems to have forgotten, or to find out what it forgot. It runs in the same
way on unlearned models, originals and oracles: only what it finds beyond the oracles was left behind by unlearning.
One in a user's own file needs no more than this::

    from dataclasses import dataclass
    from typing import ClassVar
    from forgetbench.attacks import Attack, AttackCard, param


    @dataclass(frozen=True, kw_only=True)
    class MyAttack(Attack):
        "One line on what it does."

        card: ClassVar[AttackCard] = AttackCard(name="my-attack", title="What it does", holds=("model", "retain"))

        def attack(self, model, knowledge, seed): ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from forgetbench.method_label import MethodFile, MethodLabel
from forgetbench.methods._files import load_class, parse_values, refuse_known_name
from forgetbench.methods._foreign_code import refused_errors
from forgetbench.registry import Registry

if TYPE_CHECKING:
    from forgetbench.attacks._card import AttackCard
    from forgetbench.attacks.base import Attack, Knowledge
    from forgetbench.options import option as param

__all__ = [
    "Attack",
    "AttackCard",
    "Knowledge",
    "attacks",
    "load_attack_file",
    "param",
    "parse_attack",
    "parse_attack_file",
    "register",
]

attacks: Registry[type[Attack]] = Registry("attack", entry_points="forgetbench.attacks", package=__name__)
"""Name -> class; an attack of this package is imported when it is first used."""
register = attacks.register


def __getattr__(name: str) -> Any:
    """Import the names of the contract when they are used: they need torch, and listing attacks does not."""
    if name in __all__:
        return getattr(importlib.import_module("forgetbench.attacks.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def parse_attack(text: str) -> Attack:
    """The attack of a label `name:option=value,option=value`.

    Raises:
        UsageError: The name or an option is unknown, or a value is out of range.
    """
    label = MethodLabel.parse(text)
    kind = attacks.get(label.name)
    return kind.from_dict(kind.current_names(parse_values("attack", *label)))


def parse_attack_file(text: str) -> Attack:
    """The attack that `file.py:Class:option=value,option=value` names.

    Raises:
        UsageError: See `load_attack_file`; or an option is unknown, or a value is out of range.
    """
    file = MethodFile.parse(text)
    kind = load_attack_file(file.address)
    with refused_errors(f"Making {kind.__name__} of {file.path}"):
        return kind.from_dict(parse_values("attack", file.class_name, file.values))


def load_attack_file(text: str) -> type[Attack]:
    """The class that `file.py:Class` names; the class can be omitted if the file defines one attack.

    Raises:
        UsageError: There is no such file or class, the file does not import or imports a neighbor, the class is not an
            attack, or it has the name of an attack of this package.
    """
    from forgetbench.attacks.base import Attack

    kind = load_class(text, Attack, "attack(self, model, knowledge, seed)")  # type: ignore[type-abstract]
    refuse_known_name(attacks, kind, kind.card.name, MethodFile.parse(text).path)
    return kind
