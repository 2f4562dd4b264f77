"""What a method or an attack must return: a network like the given one, without wrappers, hooks, or added parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from forgetbench.errors import ForgetBenchError

WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "FullyShardedDataParallel": "module"}
WRAPPERS |= {"OptimizedModule": "_orig_mod", "AveragedModel": "module"}
"""Class of a wrapper -> its attribute that holds the network."""
SHOWN = 3
"""Number of tensors that a message names."""


class ResultError(ForgetBenchError):
    """A method or an attack returned what the contract does not allow; the message says what, and what to return."""


def check_result(result: object, original: nn.Module, function: str = "unlearn") -> nn.Module:
    """Check that a method or an attack returned a network like the original's.

    Args:
        result: What the function returned.
        original: A network with the original's architecture, on the device of the request.
        function: The function, for messages.

    Returns:
        The result.

    Raises:
        ResultError: It is no network, is wrapped, or has other tensors, types, shapes or hooks.
    """
    network = _network(result, function)
    before, after = _tensors(original, function), _tensors(network, function)
    _check_names(before.keys(), after.keys(), function)
    _check_parts(network, original, function)
    outputs = getattr(original, "head", None), getattr(network, "head", None)
    if all(isinstance(head, nn.Linear) for head in outputs):
        wanted, given = (head.out_features for head in outputs)  # type: ignore[union-attr]
        if wanted != given:
            raise ResultError(
                f"{function} returned a network with {given} outputs instead of {wanted}. Keep an output for every "
                "class, also for forgotten ones."
            )
    for name, value in before.items():
        _check_tensor(name, value, after[name], function)
    return network


def _network(result: object, function: str) -> nn.Module:
    kind = type(result).__name__
    if result is None:
        raise ResultError(
            f"{function} returned None. End it with the {function}ed network, as in `return network.eval()`."
        )
    if isinstance(result, Mapping):
        raise ResultError(
            f"{function} returned a state dict ({kind}) instead of a network. Load it into a copy of the given model, "
            "and return that."
        )
    if isinstance(result, tuple | list):
        raise ResultError(f"{function} returned a {kind} of {len(result)} values. Return the network alone.")
    if not isinstance(result, nn.Module):
        raise ResultError(f"{function} returned {kind}, which is not a torch.nn.Module. Return the network.")
    if kind in WRAPPERS:
        raise ResultError(
            f"{function} returned a network wrapped in {kind}. Return the network itself, its attribute "
            f"`{WRAPPERS[kind]}`."
        )
    return result


def _check_parts(network: nn.Module, original: nn.Module, function: str) -> None:
    """Refuse hooks and replaced `forward` functions, which are lost when the weights are stored."""
    known = {name: _attached(part) for name, part in original.named_modules()}
    for name, part in network.named_modules():
        added = _attached(part) - known.get(name, frozenset())
        place = name or "the network"
        if added:
            raise ResultError(
                f"{function} left {' and '.join(sorted(added))} on {place}, which is not part of its weights. Remove "
                "it before returning, as with handle.remove()."
            )


def _attached(part: nn.Module) -> frozenset[str]:
    hooks = (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    names = {f"a hook ({getattr(hook, '__name__', type(hook).__name__)})" for hook in hooks}
    return frozenset(names | ({"a replaced forward function"} if "forward" in vars(part) else set()))


def _check_names(before: Collection[str], after: Collection[str], function: str) -> None:
    missing, added = [name for name in before if name not in after], [name for name in after if name not in before]
    if not missing and not added:
        return
    found = " and ".join(
        f"{words} {_listed(names)}" for words, names in (("lacks", missing), ("has in addition", added)) if names
    )
    raise ResultError(f"the network that {function} returned {found}. {_advice(missing, added)}")


def _advice(missing: list[str], added: list[str]) -> str:
    text = " ".join(added).lower()
    if "parametrizations." in text:
        return "Call torch.nn.utils.parametrize.remove_parametrizations for each module that has one."
    if any(name.endswith(("_orig", "_mask")) for name in added):
        return "Call torch.nn.utils.prune.remove(module, 'weight') for each pruned module."
    for wrapper in ("module.", "_orig_mod."):
        if missing and added and all(name.startswith(wrapper) for name in added):
            return f"It is wrapped: return the network itself, its attribute `{wrapper[:-1]}`."
    if "lora" in text or "adapter" in text or "base_layer" in text:
        return "Merge its adapters into the weights, and put the original modules back."
    return "Return a network with the tensors of the given model, such as a changed copy of it."


def _check_tensor(name: str, before: Tensor, after: Tensor, function: str) -> None:
    if before.shape != after.shape:
        raise ResultError(
            f"{function} returned a network in which {name} has the shape {tuple(after.shape)} instead of "
            f"{tuple(before.shape)}. Keep the architecture of the given model."
        )
    if before.dtype != after.dtype:
        fix = "Return it in float32: `.float()`." if after.is_floating_point() else "Keep the types of the given model."
        raise ResultError(
            f"{function} returned a network in which {name} is {after.dtype} instead of {before.dtype}. {fix}"
        )
    if before.device != after.device:
        there = "request.device" if function == "unlearn" else f"{str(before.device)!r}"
        raise ResultError(
            f"{function} returned a network in which {name} is on {after.device} instead of {before.device}. Move it "
            f"with `.to({there})`."
        )
    if after.layout != torch.strided:
        raise ResultError(f"{function} returned a network in which {name} is sparse. Make it dense: `.to_dense()`.")


def _tensors(network: nn.Module, function: str) -> dict[str, Any]:
    """Name -> tensor of the state dict; quantized modules have entries that are no tensors."""
    state = network.state_dict()
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ResultError(
            f"the network that {function} returned has entries in its state dict that are no tensors: "
            f"{_listed(odd)}. Return a network that is not quantized."
        )
    return state


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
