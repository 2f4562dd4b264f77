"""Where and how a run works, and who is informed of its progress; nothing here changes a result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from forgetbench.errors import UsageError
from forgetbench.object_store import check_bucket, check_url, open_store
from forgetbench.runner.data import ExecutionEnv
from forgetbench.runner.engines import Engine, make_engine
from forgetbench.runner.engines.devices import pick_device
from forgetbench.runner.results import Results
from forgetbench.store import Store, home


class ProgressCallback(Protocol):
    """Progress callback."""

    def begin(self, task: str, jobs: int) -> None:
        """A task begins; ``jobs`` is the number of its jobs as far as it is known."""

    def done(self, title: str, *, from_cache: bool) -> None:
        """A job ended; ``from_cache`` says that its result was in the store already."""

    def end(self, task: str) -> None:
        """A task ended."""

    def note(self, text: str) -> None:
        """Something that does not stop the task, but that a reader of its results should know."""


class NullProgress:
    """A progress callback that does nothing."""

    def begin(self, task: str, jobs: int) -> None:
        """Do nothing."""

    def done(self, title: str, *, from_cache: bool) -> None:
        """Do nothing."""

    def end(self, task: str) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class RunConfig:
    """Where and how a run works; nothing here changes a result."""

    root: Path | None = None
    """Folder of the image sets on disk."""
    device: str = "auto"
    """torch device, or ``auto``: the GPU if there is one."""
    engine: str = "auto"
    """``processes``, ``local``, ``ray``, ``ray:HOST:PORT`` or ``auto``."""
    workers: int | None = None
    """Number of worker processes; None is one per core, or on GPUs one per GPU."""
    jobs_per_gpu: int = 1
    """Number of jobs that share a GPU; each has its own copy of the images in the GPU's memory."""
    time_limit: float | None = None
    """Longest time in seconds for one job of a method: unlearning from one model, or training one of its originals. The
    row of a method that takes longer has failed. None: no limit."""
    keep_models: bool = False
    """Keep the weights of unlearned models in the store."""
    skip_oracles: bool = False
    """Train no oracle and no original: only write evidence, from originals that are in the store."""
    home: Path = field(default_factory=home)
    """Folder of the store, reference bundles and runs."""
    repeats: int = 1
    """Runs of each method on each original, with other seeds of the method. From 2 on, scorecards split the variance
    into that of training and that of unlearning; with 1, intervals hold the seeds of training only."""
    repeat: int = 0
    """Which run of a method on each original: 0 is the board's; others have other seeds of the method, and their
    results are kept apart."""
    store_url: str | None = None
    """URL of a bucket that has the artifacts, such as ``s3://bucket/prefix``; the store is its cache then, and on a
    cluster each machine uses its own. None: the store has them."""

    def __post_init__(self) -> None:
        """Check the numbers and the form of the URL.

        Raises:
            UsageError: A number is out of range, or the URL is none.
        """
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"The number of worker processes is {self.workers}. Give --workers 1 or more, or omit it.")
        if self.repeats < 1:
            raise UsageError(f"The number of runs on each original is {self.repeats}. Give --repeats 1 or more.")
        if self.jobs_per_gpu < 1:
            raise UsageError(f"The number of jobs per GPU is {self.jobs_per_gpu}. Give --jobs-per-gpu 1 or more.")
        if self.time_limit is not None and not 0 < self.time_limit < math.inf:
            raise UsageError(f"The time limit is {self.time_limit:g} seconds. Give more than 0, or omit --time-limit.")
        if self.store_url is not None:
            check_url(self.store_url)

    @property
    def store(self) -> Store:
        """The artifact store."""
        return open_store(self.home / "store", self.store_url)

    @property
    def on_cluster(self) -> bool:
        """Whether jobs run on other machines, with devices and folders of their own."""
        return self.engine.partition(":")[0] == "ray"

    @property
    def results(self) -> Results:
        """Reference bundles and runs."""
        home = self.home / "repeats" / str(self.repeat) if self.repeat else self.home
        return Results(home, self.workers)

    def env(self, engine: Engine | None = None) -> ExecutionEnv:
        """Where jobs run.

        Args:
            engine: The engine whose workers tell their device; None for work in this process.

        Raises:
            UsageError: The device is not available.
        """
        root = str(self.root.resolve()) if self.root else None
        device = engine.find_device(self.device) if engine else pick_device(self.device)
        store = "" if self.store_url and engine and self.on_cluster else str(self.store.root)
        return ExecutionEnv(store, root, device, engine.exclusive if engine else True, self.store_url)

    def open_engine(self) -> Engine:
        """The engine that runs jobs; a context manager. A bucket is checked before.

        Raises:
            UsageError: The device is not available, the engine is unknown, or the bucket cannot be used.
        """
        if self.store_url is not None:
            check_bucket(self.store_url)
        device = self.device if self.on_cluster else pick_device(self.device)
        return make_engine(self.engine, self.workers, device, self.jobs_per_gpu)
