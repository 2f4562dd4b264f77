"""Where and how a run works, and who is told what goes on; nothing here changes a result."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from forgetbench.errors import UsageError
from forgetbench.runner.context import ExecutionEnv
from forgetbench.runner.engines import Executor, make_executor
from forgetbench.runner.results import Results
from forgetbench.store import Store, home


class ProgressCallback(Protocol):
    """Is told what goes on."""

    def begin(self, task: str, jobs: int) -> None:
        """A task begins, with so many jobs as far as is known."""

    def done(self, what: str, *, fresh: bool) -> None:
        """A job ended; ``fresh`` says that it was not in the store already."""

    def end(self, task: str) -> None:
        """A task ended."""


class NullProgress:
    """A watcher that says nothing."""

    def begin(self, task: str, jobs: int) -> None:
        """Say nothing."""

    def done(self, what: str, *, fresh: bool) -> None:
        """Say nothing."""

    def end(self, task: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class RunConfig:
    """Where and how a run works; nothing here changes a result."""

    root: Path | None = None
    """Folder of the image sets on disk."""
    device: str = "auto"
    """torch device, or ``auto``: the GPU where there is one."""
    executor: str = "auto"
    """``processes``, ``local`` or ``auto``."""
    workers: int | None = None
    """Processes; None takes one for each core."""
    keep_models: bool = False
    """Keep the weights of unlearned models in the store."""
    skip_oracles: bool = False
    """Train no oracle and no original; the originals must be in the store."""
    measure_relearning: bool = False
    """On erase boards, measure how fast what was forgotten is learned again; keeps the models for it."""
    home: Path = field(default_factory=home)
    """Folder of store, packs and runs."""

    @property
    def store(self) -> Store:
        """The artifacts."""
        return Store(self.home / "store")

    @property
    def results(self) -> Results:
        """Packs and runs."""
        return Results(self.home)

    def site(self) -> ExecutionEnv:
        """Where jobs work.

        Raises:
            UsageError: There is no such device here.
        """
        return ExecutionEnv(
            str(self.store.root), str(self.root.resolve()) if self.root else None, pick_device(self.device)
        )

    def open_executor(self) -> Executor:
        """What runs jobs; a context manager.

        Raises:
            UsageError: There is no such device here, or no such executor.
        """
        return make_executor(self.executor, self.workers, self.site().device)


def pick_device(name: str) -> str:
    """The torch device of a name; ``auto`` takes the GPU where there is one.

    Raises:
        UsageError: There is no such device here.
    """
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} is not to be had here ({str(error).splitlines()[0]}); use cpu") from error
    return name
