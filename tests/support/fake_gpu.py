"""A pretended GPU: tensors in the CPU's memory that call themselves cuda:0, refuse others, and count what waits.

It finds operations that mix devices, and copies and reads that block, on machines without a GPU. Streams, graphs,
memory layouts and autocast are not pretended: recipes need `mixed_precision` off.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_leaves, tree_map

from forgetbench.training.compute import derive_generator

CUDA = torch.device("cuda:0")
READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount", "equal", "is_nonzero"}
"""Operations whose result the CPU waits for."""
COPIES_OF = (torch.zeros_like, torch.empty_like, torch.ones_like, torch.full_like, torch.randn_like, torch.rand_like)
FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray)


class FakeTensor(torch.Tensor):
    """A tensor on the pretended GPU, around one on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> FakeTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device="cpu",
        )
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:
        return CUDA

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        COUNTS["read"] += 1
        return self.inner.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied: torch.Tensor = FakeTensor(self.inner.detach().clone())
        if getattr(self, "_is_param", False):
            copied = torch.nn.Parameter(copied)
        memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return copied

    def __repr__(self) -> str:
        return f"FakeTensor({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.name().split("::")[1].split(".")[0]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        others = [tensor for tensor in tensors if not isinstance(tensor, cls) and tensor.dim() > 0]
        if others and name == "copy_":
            COUNTS["copy to the device"] += 1
        elif others:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {name}")
        if any(isinstance(leaf, torch.Generator) for leaf in tree_leaves((args, kwargs))):
            raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' in {name}")
        if name in READS:
            COUNTS["read"] += 1
        inner_args, inner_kwargs = tree_map(_inner, args), tree_map(_inner, kwargs)
        result = function(*inner_args, **inner_kwargs)
        if isinstance(result, torch.Tensor):  # in place: return the very argument
            for given, inner in zip(tree_leaves(args), tree_leaves(inner_args), strict=True):
                if inner is result:
                    return given
        return tree_map(lambda leaf: FakeTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf, result)


COUNTS: Counter[str] = Counter()
"""How often what has blocked; empty at the start of `fake_gpu`."""


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, FakeTensor) else leaf


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


class _Mode(TorchFunctionMode):
    """Makes tensors on the pretended GPU, and copies to it and from it."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if (function in _device_constructors() or function in COPIES_OF) and _is_cuda(kwargs.get("device")):
            del kwargs["device"]
            made = function(*args, **kwargs)
            if isinstance(made, FakeTensor):
                return made
            COUNTS["copy to the device"] += function in FROM_DATA
            return FakeTensor(made)
        if function is torch.Tensor.pin_memory:
            return args[0]
        if function is torch.Tensor.to:
            return self._to(function, args[0], args[1:], kwargs)
        if function is torch.Tensor.cpu and isinstance(args[0], FakeTensor):
            COUNTS["read"] += 1
            return args[0].inner.detach()
        return function(*args, **kwargs)

    @staticmethod
    def _to(function: Any, tensor: torch.Tensor, given: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        like = next((value for value in given if isinstance(value, torch.Tensor)), None)
        rest = [value for value in given if isinstance(value, torch.dtype)]
        device = kwargs.pop("device", next((value for value in given if isinstance(value, torch.device | str)), None))
        if like is not None:
            rest, device = [like.dtype], like.device
        kwargs.pop("non_blocking", None)
        change = (lambda value: function(value, *rest, **kwargs)) if rest or kwargs else (lambda value: value)
        if device is None or _is_cuda(device) == isinstance(tensor, FakeTensor):
            return change(tensor)
        if _is_cuda(device):
            COUNTS["copy to the device"] += 1
            return FakeTensor(change(tensor.detach()).clone())
        COUNTS["read"] += 1
        return change(tensor.inner.detach())


@contextlib.contextmanager
def fake_gpu() -> Iterator[Counter[str]]:
    """Pretend a GPU inside the block; yields how often the CPU waited for it, by what it waited for.

    The GPU has no random state; a captured graph calls its function again.
    """

    def capture(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
        return function

    def on_side_stream(function: Callable[[], None], device: torch.device) -> None:
        function()

    def generator(seed: int, *stream: int, device: object = "cpu") -> torch.Generator:
        return derive_generator(seed, *stream)

    COUNTS.clear()
    with contextlib.ExitStack() as stack:
        for name, value in (
            ("torch.cuda.get_rng_state", lambda *_: torch.zeros(1, dtype=torch.uint8)),
            ("torch.cuda.set_rng_state", lambda *_: None),
            ("torch.cuda.manual_seed", lambda *_: None),
            ("torch.cuda.device", lambda *_: contextlib.nullcontext()),
            ("forgetbench.training.graph.capture", capture),
            ("forgetbench.training.graph.on_side_stream", on_side_stream),
            ("forgetbench.training.loop.channels_last", lambda _: contextlib.nullcontext()),
            ("forgetbench.methods._training.channels_last", lambda _: contextlib.nullcontext()),
            ("forgetbench.methods.base.derive_generator", generator),
        ):
            stack.enter_context(mock.patch(name, value))
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        stack.enter_context(_Mode())
        yield COUNTS
