"""Where jobs run: here in order, or side by side in processes of one thread each.

A job is a JSON object and ``work`` a function of one, named ``"module:function"``, so that an executor of another kind
(a cluster's) can take its place. Results come back in the order of the jobs. Nothing is scheduled here: jobs of one
call do not depend on each other, and the store makes all of them resumable.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Protocol, Self

from forgetbench.errors import ForgetBenchError, UsageError

Job = dict[str, Any]
Result = dict[str, Any]
Done = Callable[[int, Result], None]
"""Called in the caller's process with the number of a finished job and its result."""


class Executor(Protocol):
    """Runs independent jobs."""

    alone: bool
    """Nothing runs beside a job, so that its wall time means something."""

    def __call__(self, work: str, jobs: Sequence[Job], on_done: Done) -> list[Result]:
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


class Local:
    """In order, in this process: the default on one GPU."""

    alone = True

    def __call__(self, work: str, jobs: Sequence[Job], on_done: Done) -> list[Result]:
        """Run the jobs one after another."""
        function = _resolve(work)
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


class Processes:
    """In spawned processes with one thread each: the default on a CPU.

    The processes live as long as the executor, since importing torch costs seconds, and end when their parent does.
    """

    alone = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, work: str, jobs: Sequence[Job], on_done: Done) -> list[Result]:
        """Run the jobs side by side."""
        if self._pool is None:
            raise ForgetBenchError("the executor is not open; use it in a with statement")
        results: list[Result] = [{}] * len(jobs)
        numbers: dict[Future[Result], int] = {
            self._pool.submit(_perform, work, job): number for number, job in enumerate(jobs)
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
                "A worker process was killed, most often for want of memory. Run the same command again with "
                f"--workers {max(1, self.workers - 1)}: finished jobs are not repeated."
            ) from error
        finally:
            for future in pending:
                future.cancel()
        return results

    def __enter__(self) -> Self:
        """Make the pool; its processes start with the first jobs."""
        self._pool = ProcessPoolExecutor(
            self.workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(os.getpid(),)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what runs, drop what waits."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def make_executor(name: str, workers: int | None, device: str) -> Executor:
    """An executor by name; ``auto`` takes processes on a CPU and local on a GPU.

    Raises:
        UsageError: There is no such executor.
    """
    if name == "auto":
        name = "processes" if device == "cpu" else "local"
    if name == "local":
        return Local()
    if name == "processes":
        return Processes(workers or os.cpu_count() or 1)
    raise UsageError(f"There is no executor {name!r}. There are: auto, local, processes.")


def _resolve(work: str) -> Callable[[Job], Result]:
    module, _, attribute = work.partition(":")
    function: Callable[[Job], Result] = getattr(importlib.import_module(module), attribute)
    return function


def _perform(work: str, job: Job) -> Result:
    return _resolve(work)(job)


def _start_worker(parent: int) -> None:
    """One thread for the numeric libraries, and an end when the parent is gone (a killed parent sends no word)."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def echo(job: Job) -> Result:
    """A job that gives itself back, to try an executor with."""
    return job
