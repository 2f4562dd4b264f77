"""Checks of the contract of an attack on tiny random images, in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from forgetbench.attacks._result import check_outcome, given_model, unchanged
from forgetbench.attacks.base import Attack, Knowledge
from forgetbench.methods._global_state import restored_state
from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.contract import CheckResult, TinyTask, require, run_check, same_state, state_of
from forgetbench.training import Examples

Outcome = dict[str, torch.Tensor]


def check_attack(
    kind: type[Attack],
    *,
    network: str = "cnn",
    options: dict[str, Any] | None = None,
    values: dict[str, Any] | None = None,
    device: str = "cpu",
) -> list[CheckResult]:
    """Check an attack on one network.

    Args:
        kind: The attack's class.
        network: Name of a network.
        options: The network's options.
        values: Options of the attack, such as few steps; the others keep their defaults.
        device: Device to run on.

    Returns:
        One result per check; a failed check does not raise.
    """
    suite = AttackChecks(kind, network, options or {}, values or {}, device)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("options survive JSON", suite.round_trip),
        ("wrong options are refused", suite.wrong_values),
        ("the result fits and what was given is unchanged", suite.contract),
        ("the seed determines the result", suite.seeds),
        ("all budgets of the card work", suite.budgets),
        ("one forgotten example", suite.one_example),
        ("labels of several attributes", suite.attributes),
    ]
    return [run_check(name, check) for name, check in checks]


class AttackChecks(TinyTask[Attack]):
    """The checks of one attack on one network; each returns a remark, or raises an error that says what is wrong.

    That only data is read which the card names is part of every run: `Knowledge` refuses anything else.
    """

    changed_state: Sequence[str] = ()
    """What the last attack changed of the global state of the process, which was restored."""

    def inapplicable(self, *, attributes: bool = False) -> str | None:
        """Why the attack does not apply, or None."""
        return self.build().applies_to(self.facts(attributes=attributes), self.spec(attributes).build(0))

    def contract(self) -> str:
        """The result is finite and fits; the model, data and global state do not change."""
        if reason := self.inapplicable():
            return f"does not apply: {reason}"
        request = self.request()
        data = (request.forget, request.retain, request.validation)
        copies = [(examples.images.clone(), examples.labels) for examples in data]
        model = self.original(request)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)  # as an earlier backward pass of the caller may leave them
        self._attacked(request, model)
        require(
            not self.changed_state,
            f"global state was changed: {', '.join(self.changed_state)}. Restore it, and draw random numbers from a "
            "generator with the given seed.",
        )
        require(
            all(part.grad is not None and bool((part.grad == 1).all()) for part in model.parameters()),
            "the gradients of the given model were changed",
        )
        for examples, (images, labels) in zip(data, copies, strict=True):
            require(torch.equal(examples.images, images), "images were changed in place")
            require(torch.equal(examples.labels, labels), "labels were changed in place")
        return ""

    def seeds(self) -> str:
        """The same seed gives the same bits on a CPU; another seed gives others if the card says random."""
        if reason := self.inapplicable():
            return f"does not apply: {reason}"
        request = self.request()
        first, second, other = (self._attacked(request, seed=seed) for seed in (1, 1, 2))
        exact = self.device.type == "cpu"
        require(not exact or same_state(first, second), "the same seed gave different bits")
        if self.kind.card.random is True:
            require(not same_state(first, other), "another seed gave the same bits, although the card says random")
        elif self.kind.card.random is False and exact:
            require(same_state(first, other), "another seed gave different bits, although the card says not random")
        return ""

    def budgets(self) -> str:
        """Every budget of the card is a valid value."""
        card = self.kind.card
        for value in card.budgets:
            self.kind.from_dict({**self.values, card.budget: value})
        return ""

    def one_example(self) -> str:
        """One forgotten example is enough."""
        if reason := self.inapplicable():
            return f"does not apply: {reason}"
        self._attacked(self.request(forget=1))
        return ""

    def attributes(self) -> str:
        """Labels of several attributes work, unless the card excludes them."""
        if reason := self.inapplicable(attributes=True):
            return f"does not apply: {reason}"
        self._attacked(self.request(attributes=True))
        return ""

    def knowledge(self, request: ForgetRequest) -> Knowledge:
        """What the attacker holds for a request; the queries are the forgotten and the validation examples."""
        attack = self.build()
        shots = attack.forget_shots
        parts: dict[str, Examples | nn.Module] = {
            "retain": request.retain,
            "forget": request.forget
            if shots is None
            else request.forget.take(list(range(len(request.forget)))[:shots]),
            "validation": request.validation,
            "original": self.original(request).eval(),
        }
        queries = {"forget": request.forget, "test": request.validation}
        if not attack.card.outcomes:
            queries = {name: rows.relabel(torch.full_like(rows.labels, -1)) for name, rows in queries.items()}
        held: dict[str, Examples | nn.Module] = {
            name: part for name, part in parts.items() if name in attack.card.holds
        }
        return Knowledge(card=attack.card, recipe=request.recipe, queries=queries, held=held)

    def _attacked(self, request: ForgetRequest, model: nn.Module | None = None, seed: int = 1) -> Outcome:
        """The tensors of the attacked network, or its answers."""
        attack, knowledge = self.build(), self.knowledge(request)
        network = (model or self.original(request)).eval()
        given = given_model(attack, network, attributes=request.forget.attributes)
        watched = {name: part for name, part in knowledge.held.items() if isinstance(part, nn.Module)}
        with restored_state(seed) as state, unchanged(attack.card.name, model=network, **watched):
            result = attack.attack(given, knowledge, seed)
        self.changed_state = state.changed
        outcome = check_outcome(attack, result, network, knowledge)
        if isinstance(outcome, dict):
            return outcome
        require(outcome is not network, "the given model was returned instead of a copy")
        return state_of(outcome)
