"""Engines: where jobs run. In this process one after another, or side by side in processes of one thread each.

An engine maps a function over jobs that do not depend on each other and returns the results in their order. It
schedules nothing: the store makes all jobs resumable.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Protocol, Self, TypeVar

from forgetbench.errors import ForgetBenchError, UsageError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
OnDone = Callable[[int, ResultT], None]
"""Called in the caller's process with the number of a finished job and its result."""


class Engine(Protocol):
    """Runs independent jobs; a context manager."""

    @property
    def exclusive(self) -> bool:
        """Whether no other job runs at the same time, so that wall times mean something."""
        ...

    def map(self, function: Callable[[JobT], ResultT], jobs: Sequence[JobT], on_done: OnDone[ResultT]) -> list[ResultT]:
        """Results in the order of the jobs; the first exception of a job is raised here."""
        ...

    def __enter__(self) -> Self:
        """Start what is needed."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        ...


class LocalEngine:
    """One job after another, in this process: the default on one GPU."""

    exclusive = True

    def map(self, function: Callable[[JobT], ResultT], jobs: Sequence[JobT], on_done: OnDone[ResultT]) -> list[ResultT]:
        """Run the jobs one after another."""
        results = []
        for number, job in enumerate(jobs):
            results.append(function(job))
            on_done(number, results[-1])
        return results

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to stop."""


class ProcessesEngine:
    """Spawned processes with one thread each: the default on a CPU.

    The processes live as long as the engine, since importing torch costs seconds, and end when their parent does.

    Args:
        workers: Number of processes.
    """

    exclusive = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[JobT], ResultT], jobs: Sequence[JobT], on_done: OnDone[ResultT]) -> list[ResultT]:
        """Run the jobs side by side."""
        if self._pool is None:
            raise ForgetBenchError("The engine is not open: use it in a with statement.")
        results: dict[int, ResultT] = {}
        numbers: dict[Future[ResultT], int] = {
            self._pool.submit(function, job): number for number, job in enumerate(jobs)
        }
        pending = set(numbers)
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_EXCEPTION, timeout=0.2)
                for future in done:
                    results[numbers[future]] = future.result()
                    on_done(numbers[future], future.result())
        except BrokenProcessPool as error:
            raise ForgetBenchError(
                "A worker process was killed, most often because memory ran out. Run the same command again with "
                f"--workers {max(1, self.workers - 1)}: finished jobs are not repeated."
            ) from error
        finally:
            for future in pending:
                future.cancel()
        return [results[number] for number in range(len(jobs))]

    def __enter__(self) -> Self:
        """Make the pool; its processes start with the first jobs."""
        self._pool = ProcessPoolExecutor(
            self.workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(os.getpid(),)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for running jobs and drop waiting ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def make_engine(name: str, workers: int | None, device: str) -> Engine:
    """An engine by name; ``auto`` is processes on a CPU and local on a GPU.

    Raises:
        UsageError: The name is unknown.
    """
    if name == "auto":
        name = "processes" if device == "cpu" else "local"
    if name == "local":
        return LocalEngine()
    if name == "processes":
        return ProcessesEngine(workers or os.cpu_count() or 1)
    raise UsageError(f"Unknown engine {name!r}. Available: auto, local, processes.")


def _start_worker(parent: int) -> None:
    """Limit the numeric libraries to one thread, and end when the parent is gone (a killed parent sends no signal)."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()
