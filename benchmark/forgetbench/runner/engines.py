"""Engines: where jobs run. In this process one after another, or side by side in processes of one thread each.

An engine maps a function over jobs that do not depend on each other and returns the results in their order. It
schedules nothing: the store makes all jobs resumable. What a job prints goes to standard error.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import SpawnProcess
from types import FrameType, TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from forgetbench.errors import ForgetBenchError, UsageError, describe_error
from forgetbench.methods._foreign_code import TimeLimitError, no_sudden_exit, output_to_stderr

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
OnDone = Callable[[int, ResultT], None]
"""Called in the caller's process with the number of a finished job and its result."""

_POLL_SECONDS = 0.2
"""Longest time after which a worker's end or an exceeded time limit is noticed."""
_STOP_SECONDS = 5.0
"""Time that a worker has to clean up before it is killed."""
_REPEAT_SECONDS = 10.0
"""An exceeded time limit is signaled again after this time, should a method have caught the first signal."""


@dataclass(frozen=True)
class TimeLimit(Generic[JobT, ResultT]):
    """The longest time that jobs may take, and what takes the place of the result of one that takes longer."""

    seconds: float
    """The longest time."""
    result_of: Callable[[JobT], ResultT | None]
    """Job -> its result if it is interrupted; None if the job has no limit."""


class Engine(Protocol):
    """Runs independent jobs; a context manager."""

    @property
    def exclusive(self) -> bool:
        """Whether no other job runs at the same time, so that wall times mean something."""
        ...

    def map(
        self,
        function: Callable[[JobT], ResultT],
        jobs: Sequence[JobT],
        on_done: OnDone[ResultT],
        limit: TimeLimit[JobT, ResultT] | None = None,
    ) -> list[ResultT]:
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

    def map(
        self,
        function: Callable[[JobT], ResultT],
        jobs: Sequence[JobT],
        on_done: OnDone[ResultT],
        limit: TimeLimit[JobT, ResultT] | None = None,
    ) -> list[ResultT]:
        """Run the jobs one after another. A time limit interrupts Python code, not a single operation of a library.

        Raises:
            UsageError: There is a time limit, and this is not the main thread of a process on Linux or macOS.
        """
        results: list[ResultT] = []
        for number, job in enumerate(jobs):
            late = limit.result_of(job) if limit is not None else None
            if limit is None or late is None:
                with output_to_stderr(), no_sudden_exit():
                    results.append(function(job))
            else:
                results.append(_run_limited(function, job, limit.seconds, late))
            on_done(number, results[-1])
        return results

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to stop."""


def _run_limited(function: Callable[[JobT], ResultT], job: JobT, seconds: float, late: ResultT) -> ResultT:
    """The result of a job, or ``late`` if it takes longer."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        raise UsageError(
            "A time limit interrupts jobs of this process only in the main thread, on Linux or macOS. Use --engine "
            "processes."
        )

    def interrupt(_: int, __: FrameType | None) -> None:
        raise TimeLimitError

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with output_to_stderr(), no_sudden_exit():
            signal.setitimer(signal.ITIMER_REAL, seconds, _REPEAT_SECONDS)
            try:
                return function(job)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeLimitError:
        return late
    finally:
        signal.signal(signal.SIGALRM, previous)


class ProcessesEngine:
    """Spawned processes with one thread each: the default on a CPU.

    The processes live as long as the engine, since importing torch costs seconds, and end when their parent does. Each
    gets one job at a time, so it is known which job a process was doing when it died, and one that exceeds its time
    limit is killed and replaced.

    Args:
        workers: Number of processes.
    """

    exclusive = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: list[_Worker] = []
        self._open = False

    def map(
        self,
        function: Callable[[JobT], ResultT],
        jobs: Sequence[JobT],
        on_done: OnDone[ResultT],
        limit: TimeLimit[JobT, ResultT] | None = None,
    ) -> list[ResultT]:
        """Run the jobs side by side. After an error no further job starts, and those that run are finished.

        Raises:
            ForgetBenchError: A process died; the message names its job.
        """
        if not self._open:
            raise ForgetBenchError("The engine is not open: use it in a with statement.")
        results: dict[int, ResultT] = {}
        failure: BaseException | None = None
        waiting = list(range(len(jobs)))[::-1]
        while waiting or any(worker.busy for worker in self._pool):
            while waiting and (worker := self._idle_worker()) is not None:
                worker.start_job(waiting.pop(), function, jobs)
            wait_for([worker.connection for worker in self._pool if worker.busy], timeout=_POLL_SECONDS)
            for worker in [worker for worker in self._pool if worker.busy]:
                number = worker.job
                try:
                    finished, result = worker.poll(self.workers)
                    if not finished and limit is not None and worker.seconds() > limit.seconds:
                        result = limit.result_of(jobs[number])
                        finished = result is not None
                        if finished:
                            self._discard(worker)
                except _WorkerDiedError as error:
                    self._discard(worker)
                    failure = failure or ForgetBenchError(str(error))
                except BaseException as error:  # noqa: BLE001 - raised below, when running jobs are finished
                    failure = failure or error
                else:
                    if finished:
                        results[number] = result
                        on_done(number, result)
            if failure is not None:
                waiting.clear()
        if failure is not None:
            raise failure
        return [results[number] for number in range(len(jobs))]

    def _idle_worker(self) -> _Worker | None:
        """A worker without a job, started if there are fewer than allowed; None if all are busy."""
        for worker in self._pool:
            if not worker.busy:
                return worker
        if len(self._pool) == self.workers:
            return None
        self._pool.append(_Worker())
        return self._pool[-1]

    def _discard(self, worker: _Worker) -> None:
        self._pool.remove(worker)
        worker.ask_to_stop()
        worker.join(time.monotonic() + _STOP_SECONDS)
        worker.kill()

    def __enter__(self) -> Self:
        """Open the engine; its processes start with the first jobs."""
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes; one that still has a job, after Ctrl-C, has five seconds to clean up."""
        self._open = False
        try:
            for worker in self._pool:
                worker.ask_to_stop()
            until = time.monotonic() + _STOP_SECONDS
            for worker in self._pool:
                worker.join(until)
        finally:  # also after a second Ctrl-C
            for worker in self._pool:
                worker.kill()
            self._pool.clear()


class _WorkerDiedError(Exception):
    """A process ended while it had a job; the message explains it."""


class _Worker:
    """One process, from the side of its parent."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs, os.getpid()))
        self.process.start()
        theirs.close()
        self.job = -1
        self._title, self._started, self._idle = "", 0.0, True

    @property
    def busy(self) -> bool:
        """Whether it has a job."""
        return not self._idle

    def seconds(self) -> float:
        """Seconds since its job began."""
        return time.monotonic() - self._started

    def start_job(self, number: int, function: Callable[[JobT], ResultT], jobs: Sequence[JobT]) -> None:
        """Give it a job."""
        self.job, self._idle, self._started = number, False, time.monotonic()
        title = getattr(jobs[number], "title", None)
        self._title = title if isinstance(title, str) else f"{number + 1} of {len(jobs)}"
        with suppress(BrokenPipeError):  # it has died; `poll` says so
            self.connection.send((function, jobs[number]))

    def poll(self, workers: int) -> tuple[bool, Any]:
        """Whether its job has finished, and its result; an error of the job is raised."""
        alive = self.process.is_alive()
        try:
            if self.connection.poll():
                ok, answer = self.connection.recv()
                self._idle = True
                if ok:
                    return True, answer
                raise answer
        except (EOFError, ConnectionResetError):
            self.process.join(_STOP_SECONDS)
            alive = self.process.is_alive()
        if not alive:
            raise _WorkerDiedError(self._death(workers))
        return False, None

    def _death(self, workers: int) -> str:
        code = self.process.exitcode
        job = f"A worker process died in the job '{self._title}'"
        keeps = "Finished jobs are not repeated"
        if code is not None and code < 0:
            name = _signal_name(-code)
            if name == "SIGKILL":
                return (
                    f"{job}: it was killed, most often because memory ran out. Run the same command again with "
                    f"--workers {max(1, workers - 1)}: {keeps[0].lower()}{keeps[1:]}."
                )
            return (
                f"{job}: it crashed ({name}), in the method's code or in a library that it calls. Correct or omit the "
                f"method and run the command again. {keeps}."
            )
        return (
            f"{job}: the code ended the process with status {code}, as os._exit does. Correct or omit the method and "
            f"run the command again. {keeps}."
        )

    def ask_to_stop(self) -> None:
        """Close the connection, which ends an idle process, and interrupt a busy one."""
        self.connection.close()
        if self.busy:
            self.process.terminate()

    def join(self, until: float) -> None:
        """Wait for its end, up to a time of the monotonic clock."""
        self.process.join(max(0.0, until - time.monotonic()))

    def kill(self) -> None:
        """End it at once if it still runs, and free what it holds."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.connection.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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


# In a worker process.


def _work(connection: Connection, parent: int) -> None:
    """Do jobs until the connection is closed."""
    _start_worker(parent)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            message = connection.recv_bytes()
            try:
                function, job = pickle.loads(message)  # noqa: S301 - from the parent
                with no_sudden_exit():
                    answer = (True, function(job))
            except KeyboardInterrupt:
                return
            except BaseException as error:  # noqa: BLE001 - raised in the parent
                answer = (False, _portable(error))
            connection.send(answer)


def _portable(error: BaseException) -> BaseException:
    """An error that can be sent to the parent, with its traceback in a note if it was not expected."""
    if not isinstance(error, ForgetBenchError | OSError):
        error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    except Exception:  # noqa: BLE001 - an error of any class may fail to be copied
        return ForgetBenchError(describe_error(error))
    return error


def _start_worker(parent: int) -> None:
    """Set up a worker: one thread, standard output to standard error, and an end when the parent is gone.

    Ctrl-C reaches all processes of a terminal; here it is left to the parent, which interrupts its workers by SIGTERM.
    """
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    with suppress(OSError):
        os.dup2(2, 1)
    sys.stdout = sys.stderr

    def watch() -> None:  # a killed parent sends no signal
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
