"""How arithmetic is run: seeds, memory layout, precision, and the count of floating-point operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def derived_seed(seed: int, *stream: int) -> int:
    """A seed for one stream of random numbers (an epoch, a purpose) out of the request's seed.

    Mixed by numpy's SeedSequence, since torch's generator on a CPU looks at the low 32 bits of a seed alone.
    """
    entropy = (seed % 2**63, *(part % 2**63 for part in stream))
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def derived_generator(seed: int, *stream: int) -> torch.Generator:
    """A generator of `derived_seed`, always on the CPU, so that a GPU sees the same numbers."""
    return torch.Generator().manual_seed(derived_seed(seed, *stream))


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Set torch's global random state for what can draw from nothing else (layers' initial weights, dropout).

    The caller's state is put back afterwards, on the CPU and on the device, whatever happens inside.
    """
    device = torch.device(device)
    state = torch.random.get_rng_state()
    on_gpu = device.type == "cuda"
    gpu_state = torch.cuda.get_rng_state(device) if on_gpu else None
    try:
        torch.default_generator.manual_seed(derived_seed(seed))
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(derived_seed(seed))
        yield
    finally:
        torch.random.set_rng_state(state)
        if gpu_state is not None:
            torch.cuda.set_rng_state(gpu_state, device)


@contextmanager
def channels_last(network: nn.Module) -> Iterator[None]:
    """Keep convolutions' weights with the channels innermost meanwhile; a step is a fifth to a half faster so.

    The layout spreads from the weights to the activations. It is undone at the end, because a state-dict is stored
    as contiguous arrays.
    """
    network.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        network.to(memory_format=torch.contiguous_format)


def autocast(device: torch.device, *, enabled: bool) -> AbstractContextManager[object]:
    """bfloat16 where it helps: on a GPU, if asked for. On a CPU it would be slower and give other bits."""
    if enabled and device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


class FlopCount:
    """Floating-point operations so far (two per multiply-add), by torch's counter."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self._counter = counter
        self._miscounted = 0

    @property
    def total(self) -> int:
        """The operations counted, what was miscounted put right."""
        return int(self._counter.get_total_flops()) - self._miscounted

    @contextmanager
    def ignored(self) -> Iterator[None]:
        """Count nothing of what happens inside."""
        before = self._counter.get_total_flops()
        try:
            yield
        finally:
            self._miscounted += int(self._counter.get_total_flops() - before)


_active: ContextVar[FlopCount | None] = ContextVar("active_flop_count", default=None)


class _NoModules:
    """Stands in for torch's tracker of modules, whose hooks refuse gradients with respect to images."""

    parents = frozenset({"Global"})

    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *_: object) -> None:
        return None


@contextmanager
def count_flops() -> Iterator[FlopCount]:
    """Count the operations of the block; `total` of what it gives can be read while inside and afterwards."""
    mode = FlopCounterMode(display=False)
    mode.mod_tracker = _NoModules()  # type: ignore[assignment]
    with mode as counter:
        count = FlopCount(counter)
        token = _active.set(count)
        try:
            yield count
        finally:
            _active.reset(token)


def active_flop_count() -> FlopCount | None:
    """The count that is being taken, if any; vmapped gradients ask, because torch's counter overcounts them."""
    return _active.get()
