"""The training step as a CUDA graph: a GPU replays all launches of a step at once.

A step of a small network takes a GPU less time than Python needs to launch its kernels. A graph has fixed addresses, so
that the rows and draws of a step are copied into buffers, and the learning rate is a tensor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from forgetbench.training.compute import active_flop_count

logger = logging.getLogger(__name__)
Step = Callable[[Tensor, Tensor | None], None]
"""Takes one step on rows (B,) and their augmentation (3, B)."""

WARM_UP = 3
"""Steps before the capture: the first ones of an optimizer allocate its state."""


def is_supported(device: torch.device) -> bool:
    """Whether steps can be replayed; operations in a replay would not be counted."""
    return device.type == "cuda" and active_flop_count() is None


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate, in place where it is a tensor that a graph reads."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


class GraphedStep:
    """A step that is captured after a few ordinary ones, and replayed from then on.

    Batches of another size are ordinary steps. If the capture fails, because the network waits for the GPU in its
    forward pass, so are all others.

    Args:
        step: Takes an ordinary step.
        optimizer: The optimizer of the step; its learning rate becomes a tensor.
        device: The device of all tensors.
        size: Examples per batch.
    """

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer, device: torch.device, size: int) -> None:
        self._step, self._optimizer, self._device, self._size = step, optimizer, device, size
        self._taken = 0
        self._failed = False
        self._replay: Callable[[], None] | None = None
        self._rows: Tensor | None = None
        self._draws: Tensor | None = None
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], device=device)
            if "capturable" in group:
                group["capturable"] = True

    def __call__(self, rows: Tensor, draws: Tensor | None) -> None:
        """Take one step."""
        if self._failed or len(rows) != self._size:
            self._step(rows, draws)
        elif self._taken < WARM_UP:
            self._taken += 1
            on_side_stream(lambda: self._step(rows, draws), self._device)
        else:
            self._replayed(rows, draws)

    def _replayed(self, rows: Tensor, draws: Tensor | None) -> None:
        if self._rows is None or self._replay is None:
            self._rows, self._draws = rows.clone(), None if draws is None else draws.clone()
            static_rows, static_draws = self._rows, self._draws
            self._optimizer.zero_grad(set_to_none=True)  # the graph's gradients are in its own memory
            try:
                self._replay = capture(lambda: self._step(static_rows, static_draws), self._device)
            except RuntimeError as error:
                logger.warning("training without a CUDA graph, which is slower: %s", str(error).partition("\n")[0])
                self._failed = True
                self._optimizer.zero_grad(set_to_none=True)
                self._step(rows, draws)
                return
        self._rows.copy_(rows)
        if self._draws is not None and draws is not None:
            self._draws.copy_(draws)
        self._replay()


def on_side_stream(function: Callable[[], None], device: torch.device) -> None:
    """Call a function on another stream than the current one, as steps before a capture must be."""
    current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        function()
    current.wait_stream(side)


def capture(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Capture what a function launches, without running it, and return what runs it.

    Raises:
        RuntimeError: The function waits for the GPU.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay
