"""What an attack must return, and that it must leave alone what it was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from forgetbench.attacks.base import Attack, Knowledge, LabelsOnly
from forgetbench.methods._result import ResultError, check_result
from forgetbench.training import DivergedError

FINITE = "Take smaller steps, or a lower learning rate."
"""The fix of a result that is not finite."""


@contextmanager
def unchanged(name: str, **networks: nn.Module) -> Iterator[None]:
    """Check after the block that networks have the weights, modes and flags that they had before.

    Args:
        name: The attack, for messages.
        networks: What the networks are called in messages -> the network.

    Raises:
        ResultError: A network was changed.
    """
    before = {role: _snapshot(network) for role, network in networks.items()}
    yield
    for role, network in networks.items():
        (tensors, flags), (tensors_now, flags_now) = before[role], _snapshot(network)
        same = tensors.keys() == tensors_now.keys() and all(
            torch.equal(value, tensors_now[key]) for key, value in tensors.items()
        )
        if not same or flags != flags_now:
            what = "the weights" if not same else "modes or requires_grad"
            raise ResultError(
                f"the attack {name} changed {what} of the {role} that it was given. Work on a copy: copy.deepcopy(...)."
            )


def check_outcome(
    attack: Attack, result: object, model: nn.Module, knowledge: Knowledge
) -> nn.Module | dict[str, Tensor]:
    """Check what an attack returned.

    Args:
        attack: The attack.
        result: What it returned.
        model: A network with the architecture of the model.
        knowledge: What it was given.

    Returns:
        The attacked network, or the answers: subset -> float32 (n, outputs).

    Raises:
        ResultError: It is neither, has another head, or answers other queries.
        DivergedError: A weight or an answer is NaN or infinite.
    """
    name, outcomes = attack.card.name, attack.card.outcomes
    if not isinstance(result, Mapping) or not set(result) & set(knowledge.queries):
        if outcomes or "labels" in attack.card.holds:
            raise ResultError(
                f"attack returned {type(result).__name__}, but {name} cannot return a network. Return "
                "knowledge.answer(...): a score for each outcome of the card, or logits."
            )
        network = check_result(result, model, "attack")
        if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
            raise DivergedError(f"{name}: the attacked network has weights that are NaN or infinite. {FINITE}")
        return network
    outputs = len(outcomes) or _outputs(model)
    if set(result) != set(knowledge.queries):
        raise ResultError(
            f"attack answered the queries {_listed(result)} instead of {_listed(knowledge.queries)}. Use "
            "knowledge.answer(...)."
        )
    answers = {}
    for subset, queries in knowledge.queries.items():
        values = result[subset]
        expected = (len(queries), outputs)
        if not isinstance(values, Tensor) or tuple(values.shape) != expected:
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ResultError(
                f"attack answered {subset} with {found} instead of a tensor {expected}. Return a row for each query, "
                f"with {'a score for each outcome of the card' if outcomes else 'a logit for each class'}."
            )
        answers[subset] = values.detach().float().cpu()
        if not bool(torch.isfinite(answers[subset]).all()):
            raise DivergedError(f"{name}: answers to {subset} are NaN or infinite. {FINITE}")
    return answers


def given_model(attack: Attack, network: nn.Module, *, attributes: bool) -> nn.Module:
    """What an attack is given as the model: the network, or its labels only."""
    return network if "model" in attack.card.holds else LabelsOnly(network, attributes=attributes)


def _outputs(model: nn.Module) -> int:
    return int(model.head.out_features)  # type: ignore[union-attr, arg-type]


def _snapshot(network: nn.Module) -> tuple[dict[str, Tensor], tuple[list[bool], list[bool]]]:
    tensors = {name: value.detach().clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    return tensors, (modes, [parameter.requires_grad for parameter in network.parameters()])


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(map(str, names)))
