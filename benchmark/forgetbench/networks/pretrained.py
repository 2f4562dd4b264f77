"""Initial weights from a file, identified by its hash; `read_state` reads every file of weights that users bring."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from forgetbench.errors import UsageError
from forgetbench.store import file_digest
from forgetbench.user_files import describe_file, is_file, user_path

if TYPE_CHECKING:
    from forgetbench.networks.base import Network, NetworkSpec

WRAPPERS = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "module", "weights", "params")
"""Keys under which training scripts store the state dict."""
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Endings of files of weights; the content decides how a file is read, not its ending."""
SAVE = "Save only the weights: torch.save(model.state_dict(), FILE)."


@dataclass(frozen=True)
class MatchedState:
    """The tensors of a file under the names of a network."""

    tensors: dict[str, Tensor]
    """Tensors of the body and, if it fits, of the head: those to load."""
    initialized: tuple[str, ...]
    """Tensors that keep their initial values, with what the file has instead."""
    adapted: tuple[str, ...]
    """Tensors that were converted to the channels or the size of the images, as timm does."""

    def notice(self, file: str) -> str:
        """Say which tensors were not loaded as they are; "" if all were."""
        parts = [f"not loaded, newly initialized: {_first(list(self.initialized))}"] if self.initialized else []
        parts += [f"converted: {_first(list(self.adapted))}"] if self.adapted else []
        return f"{file}: {'; '.join(parts)}." if parts else ""


def load_checkpoint(network: Network, path: str, sha256: str) -> MatchedState:
    """Load the weights of a file into a network, in place.

    The file contains a state dict: of a network of this package (as in the store and in reference bundles), or of the
    library that the network's body comes from, with or without a classifier. Every tensor whose shape fits is loaded;
    a small stem or a head of another shape keeps its initial weights. The normalization is always that of the image
    set.

    Args:
        network: A newly initialized network.
        path: A file that `read_state` reads.
        sha256: SHA-256 of the file.

    Returns:
        What was loaded, and what was not.

    Raises:
        UsageError: The file is missing, has another SHA-256, contains no state dict, or lacks tensors of the body.
    """
    file = _verified(path, sha256)
    matched = match_state(network, read_state(file), file)
    network.load_state_dict(matched.tensors, strict=False)
    return matched


def start_notice(spec: NetworkSpec) -> str:
    """Say which tensors of a network do not start from its checkpoint or its pretrained weights; "" if all do.

    Raises:
        UsageError: See `load_checkpoint`.
    """
    path, sha256 = (str(spec.options.get(name) or "") for name in ("checkpoint", "sha256"))
    if path:
        file = Path(path).name
        return load_checkpoint(spec.build(0, load_weights=False), path, sha256).notice(file)
    stem = str(getattr(spec.build(0).body, "new_stem", "") or "") if spec.options.get("pretrained") else ""
    return f"Pretrained weights of {spec.name}: newly initialized for small images: {stem}.weight." if stem else ""


def match_state(network: Network, state: Mapping[str, Tensor], file: Path) -> MatchedState:
    """Find the tensors of a network in a state dict.

    Args:
        network: A newly initialized network.
        state: What `read_state` returned.
        file: The file, for messages.

    Raises:
        UsageError: Tensors of the body are missing or have other shapes, or a tensor is not one of finite numbers.
    """
    initial = network.state_dict()
    given = network_names(network, state)
    expected = [name for name in initial if name.startswith("body.")]
    if all(name in given and given[name].shape == initial[name].shape for name in expected):
        body = {name: given[name] for name in expected}
    else:
        body = _converted(network, given, file)
    missing = [name.removeprefix("body.") for name in expected if name not in body]
    if missing:
        raise UsageError(
            f"{file} lacks {len(missing)} of the {len(expected)} tensors of the network's body: {_first(missing)}. It "
            f"contains {_first(list(state))}. {_missing_fix(network.body.state_dict(), state)}"
        )
    other = [
        f"{name.removeprefix('body.')} {_shape(body[name])} instead of {_shape(initial[name])}"
        for name in expected
        if body[name].shape != initial[name].shape
    ]
    if other:
        raise UsageError(
            f"{file} has tensors of other shapes: {_first(other)}. Give the network the options that it was trained "
            "with."
        )
    head_names = [name for name in initial if name.startswith("head.")]
    fits = all(name in given and given[name].shape == initial[name].shape for name in head_names)
    head = {name: given[name] for name in head_names if fits}
    kept = {name for name in expected if body[name].data_ptr() == initial[name].data_ptr() and body[name].numel()}
    changed = [*(name for name in expected if name in kept), *(head_names if not fits else ())]
    tensors = {name: tensor for name, tensor in {**body, **head}.items() if name not in kept}
    _check_values(tensors, initial, file)
    return MatchedState(
        tensors,
        initialized=tuple(_difference(name, given, initial) for name in changed),
        adapted=tuple(
            f"{name} from {_shape(given[name])} to {_shape(initial[name])}"
            for name in expected
            if name not in kept and name in given and given[name].shape != initial[name].shape
        ),
    )


def network_names(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under the names that they have in a network: ``body.…``, ``head.…``, ``mean``, ``std``.

    A file of the library that the body comes from names them without these prefixes, and a training script may have put
    one more before all of them.

    Args:
        network: The network.
        state: What `read_state` returned.
    """
    renamed = _package_names(network, state)
    wanted = set(network.state_dict())
    parts = {name.partition(".")[0] for name in state}
    if len(parts) == 1 and not wanted & set(renamed):
        inner = _package_names(network, {name.partition(".")[2]: tensor for name, tensor in state.items()})
        return inner if wanted & set(inner) else renamed
    return renamed


def _package_names(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if any(name.startswith("body.") for name in state):
        return dict(state)
    if not _is_library_body(network):
        return {f"body.{name}": tensor for name, tensor in state.items()}
    classifier = network.body.model.pretrained_cfg.get("classifier")  # type: ignore[union-attr,operator]
    heads = {f"{classifier}.{name}": f"head.{name}" for name in ("weight", "bias")}
    return {heads.get(name, f"body.model.{name}"): tensor for name, tensor in state.items()}


def _is_library_body(network: Network) -> bool:
    """Whether the body is a model of timm under the names of timm."""
    from forgetbench.networks.base import Body

    return type(network.body).convert_state is not Body.convert_state


def _converted(network: Network, given: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The body's tensors as the library converts them to the channels and the size of the images."""
    inside = "body.model." if _is_library_body(network) else "body."
    state = {name.removeprefix(inside): tensor for name, tensor in given.items() if name.startswith(inside)}
    try:
        converted = network.body.convert_state(state)
    except Exception as error:  # timm's functions expect the tensors of their models
        raise UsageError(
            f"{file} cannot be converted to this network ({type(error).__name__}: {error}). Use the network that the "
            "weights were trained with."
        ) from error
    return {f"body.{name}": tensor for name, tensor in converted.items()}


def _difference(name: str, given: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> str:
    if name not in given:
        return f"{name} is not in the file"
    return f"{name} {_shape(given[name])} instead of {_shape(initial[name])}"


def _check_values(tensors: Mapping[str, Tensor], initial: Mapping[str, Tensor], file: Path) -> None:
    """Refuse tensors of another kind of number, and values that are not finite."""
    kinds = [
        f"{name} is {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in tensors.items()
        if tensor.is_floating_point() != initial[name].is_floating_point() or tensor.is_complex()
    ]
    if kinds:
        raise UsageError(f"{file} has tensors of other types: {_first(kinds)}. Save the network before quantizing it.")
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise UsageError(
            f"{file} contains values that are not finite, in {_first(broken)}: that model diverged. Use another file."
        )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a file on the CPU, whatever the file's name: safetensors, or what torch.save wrote.

    Wrappers of training scripts (`WRAPPERS`), prefixes of DataParallel and torch.compile, and the masks of pruning are
    removed. Pickled code is never run.

    Raises:
        UsageError: The file contains no state dict, or more than tensors; the message says what it contains.
    """
    state = _unwrapped(_read(path), path)
    if "n_averaged" in state and any(name.startswith("module.") for name in state):  # torch's AveragedModel
        del state["n_averaged"]
    tensors = _pruned({_plain_name(str(name)): tensor for name, tensor in state.items()})
    if len(tensors) == 0:
        raise UsageError(f"{path} contains no tensors. {SAVE}")
    odd = [name for name, one in tensors.items() if one.layout != torch.strided or one.is_quantized or one.is_meta]
    if odd:
        raise UsageError(f"{path} has sparse, quantized or empty tensors: {_first(odd)}. Save dense ones of floats.")
    return tensors


def _read(path: Path) -> Any:
    try:
        what = describe_file(path)
        if what.startswith("a file of safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        if what.startswith(("a torch archive", "a pickle")):
            with path.open("rb") as stream, warnings.catch_warnings():  # it reads a path by its ending
                warnings.simplefilter("ignore")
                return torch.load(stream, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Correct the path, or its permissions.") from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        if isinstance(error, pickle.UnpicklingError) and "Unsupported" in str(error):
            raise UsageError(
                f"{path} contains more than tensors, and ForgetBench never runs pickled code. {SAVE}"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"{path} cannot be read as weights: {reason[:300]}. It is damaged: copy it from its source again."
        ) from error
    fix = "" if ": " in what else SAVE  # what it is can already say what to do
    if what.startswith("a TorchScript"):
        fix = "Save its weights: torch.save(torch.jit.load(FILE).state_dict(), FILE)."
    sentences = [f"{path} cannot be read as weights: it is neither safetensors nor a file of torch.save."]
    sentences += [f"It is {what}."] if what else []
    raise UsageError(" ".join([*sentences, *([fix] if fix else [])]))


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside the wrappers of training scripts."""
    state = content
    while isinstance(state, Mapping) and not _is_state(state):
        inner = [state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)]
        candidates = [value for value in state.values() if isinstance(value, Mapping) and value and _is_state(value)]
        if not inner and len(candidates) != 1:
            break
        state = inner[0] if inner else candidates[0]
    if not isinstance(state, Mapping):
        raise UsageError(f"{path} contains no state dict (names to tensors), but {type(state).__name__}. {SAVE}")
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise UsageError(
            f"{path} contains no state dict (names to tensors): {_first(others)} are no tensors. State dicts are "
            f"expected in the file itself, or under one of {', '.join(WRAPPERS)}. {SAVE}"
        )
    return dict(state)


def _is_state(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(one, Tensor) for one in value.values())


def _plain_name(name: str) -> str:
    """A tensor's name without the prefixes of DataParallel and torch.compile, wherever they are."""
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _pruned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Apply the masks of torch.nn.utils.prune: ``weight_orig`` and ``weight_mask`` are one tensor ``weight``."""
    result = {}
    for name, tensor in state.items():
        base = name.removesuffix("_orig")
        mask = state.get(f"{base}_mask")
        if name.endswith("_orig") and mask is not None and mask.shape == tensor.shape:
            result[base] = tensor * mask.to(tensor.dtype)
        elif not (name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in state):
            result[name] = tensor
    return result


def _verified(path: str, sha256: str) -> Path:
    if not path:
        raise UsageError("Option sha256 is the hash of the file that option checkpoint names: give both, or neither.")
    file = user_path(path)
    if not is_file(file):
        raise UsageError(f"The checkpoint {file} does not exist. Correct option checkpoint of the network.")
    actual = file_digest(file)
    if not sha256:
        raise UsageError(f'Add sha256 = "{actual}" to the options of the network: it identifies the checkpoint {file}.')
    if actual != sha256.lower():
        raise UsageError(f"{file} has SHA-256 {actual}, not {sha256} as in option sha256: it is another file.")
    return file


def _missing_fix(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Say what to do about a file that lacks tensors."""
    if {f"model.{name}" for name in state} >= set(expected):
        return (
            "It has the format of timm and torchvision, which the networks timm/NAME read: use timm/resnet18 instead "
            "of resnet18."
        )
    parametrized = [
        name for name in state if "parametrizations." in name or name.endswith(("_orig", "weight_g", "weight_v"))
    ]
    if parametrized:
        return (
            f"{parametrized[0]} belongs to a parametrization: remove it before saving, with "
            "torch.nn.utils.parametrize.remove_parametrizations."
        )
    if any("lora_" in name for name in state):
        return "Some belong to adapters (LoRA): merge them into the network before saving."
    return "Use the network that the weights were trained with."


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _first(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
