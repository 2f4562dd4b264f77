"""Attack specifications: an attack with its options and budget, as one point of a curve names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from forgetbench.attacks import attacks, load_attack_file, parse_attack, parse_attack_file
from forgetbench.errors import UsageError
from forgetbench.evidence.attacks import AttackRecord
from forgetbench.method_label import MethodFile, MethodLabel, is_method_file
from forgetbench.runner.spec import Spec, current_label, file_address

if TYPE_CHECKING:
    from forgetbench.attacks.base import Attack


@dataclass(frozen=True)
class AttackSpec(Spec["Attack"]):
    """An attack by name or file, with all its options. Picklable; `build` makes it."""

    @classmethod
    def load(cls, name: str, file: str | None) -> type[Attack]:
        """The class of an attack's name or file."""
        return load_attack_file(file) if file else attacks.get(name)

    def over_budgets(self) -> list[Self]:
        """One specification for each budget of the card; this one if it has none, or if the label gives the budget."""
        card, label = self.kind.card, MethodLabel.parse(self.label)
        if not card.budget or card.budget in label.parameters:
            return [self]
        return [
            replace(self.with_parameters({card.budget: value}), label=str(label.extended({card.budget: value})))
            for value in card.budgets
        ]

    def arguments(self) -> list[str]:
        """The command-line arguments that name this attack."""
        if self.file is None:
            return ["--attack", self.label]
        values = MethodLabel.parse(self.label).values
        return ["--attack", self.file + (f":{values}" if values else "")]

    def record(self) -> AttackRecord:
        """What a manifest says of it."""
        card = self.kind.card
        return AttackRecord(
            name=card.name,
            label=self.label,
            title=card.title,
            holds=card.holds,
            outcomes=card.outcomes,
            parameters=dict(self.parameters),
            budget=card.budget,
            fingerprint=self.fingerprint,
            source=self.source,
            link=card.link or None,
        )


def parse_attacks(texts: Sequence[str]) -> list[AttackSpec]:
    """The attacks that a command line names, one for each budget.

    Args:
        texts: ``name[:option=value,...]`` or ``file.py:Class[:option=value,...]``; ``all`` is every attack. Without a
            value for its budget, an attack runs with each budget of its card.

    Raises:
        UsageError: A name, file or option is wrong, or an attack is named twice.
    """
    specs: list[AttackSpec] = []
    for text in texts:
        if is_method_file(text):
            attack, file = parse_attack_file(text), MethodFile.parse(text)
            specs.append(AttackSpec.of(attack, current_label(attack, file.values), file_address(file, type(attack))))
            continue
        for name in attacks.names() if text == "all" else [text]:
            attack = parse_attack(name)
            specs.append(AttackSpec.of(attack, current_label(attack, MethodLabel.parse(name).values)))
    found = [one for spec in specs for one in spec.over_budgets()]
    labels = [spec.label for spec in found]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UsageError(f"Duplicate attack: {', '.join(twice)}. To run an attack twice, give different options.")
    return found
