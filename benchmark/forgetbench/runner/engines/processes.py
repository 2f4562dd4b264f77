"""Jobs side by side, in processes of this machine."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import SpawnProcess
from types import FrameType, TracebackType
from typing import Self

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.environment import cores
from forgetbench.methods._foreign_code import no_sudden_exit
from forgetbench.runner.engines.base import (
    RETRIES,
    Answer,
    Failure,
    JobT,
    OnDone,
    OneMachine,
    ResultT,
    Schedule,
    Step,
    TimeLimit,
    attempt,
    portable,
)
from forgetbench.runner.engines.devices import pick_device

_POLL_SECONDS = 0.2
"""Longest time after which a worker's end or an exceeded time limit is noticed."""
_STOP_SECONDS = 5.0
"""Time that a worker has to clean up before it is killed."""
_PROBE_SECONDS = 120.0
"""Time that a new worker has for a job that does nothing."""


class ProcessesEngine(OneMachine):
    """Spawned processes: the default on a CPU, where each has one thread, and on several GPUs, where each has one GPU.

    The processes live as long as the engine, since importing torch costs seconds, and end when their parent does. Each
    gets one job at a time, so it is known which job a process was doing when it died, and one that exceeds its time
    limit is killed and replaced.

    Args:
        workers: Number of processes.
        retries: Number of times that a job is run again after its process died.
        slots: On GPUs, at least as many values of CUDA_VISIBLE_DEVICES as there are processes. Each process has one of
            them; a GPU that is listed twice is shared.
    """

    def __init__(self, workers: int, *, retries: int = RETRIES, slots: Sequence[str] = ()) -> None:
        self.workers, self._retries, self._slots = workers, retries, tuple(slots[:workers])
        self.exclusive = workers == 1 or (bool(slots) and len(set(self._slots)) == len(self._slots))
        """Whether each process has a GPU for itself, or there is only one."""
        self._pool: list[_Worker] = []
        self._open = False

    def find_device(self, name: str) -> str:
        """The torch device of a name; where each process has its own GPU, that is the only one it sees."""
        return "cuda" if self._slots else pick_device(name)

    def map(
        self,
        function: Callable[[JobT], ResultT],
        jobs: Sequence[JobT | Step[JobT, ResultT]],
        on_done: OnDone[ResultT],
        limit: TimeLimit[JobT, ResultT] | None = None,
    ) -> list[ResultT | Failure]:
        """Run the jobs side by side."""
        if not self._open:
            raise ForgetBenchError("The engine is not open: use it in a with statement.")
        schedule = Schedule(jobs, retries=self._retries, workers=self.workers)
        while schedule.pending or self._busy():
            self._start_jobs(schedule, function, len(jobs))
            busy = self._busy()
            wait_for([worker.connection for worker in busy], timeout=_POLL_SECONDS)
            for worker in busy:
                answer = self._answer(worker, schedule.jobs, limit)
                if answer is None:
                    continue
                where = f"{socket.gethostname()}:{worker.process.pid}"
                for number in schedule.settle(worker.job, answer, where, alone=worker.alone, healthy=self._is_healthy):
                    on_done(number, schedule.outcomes[number])
        return schedule.results()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._pool if worker.busy]

    def _start_jobs(self, schedule: Schedule, function: Callable[[JobT], ResultT], count: int) -> None:
        """Give jobs to idle workers; a job that must run alone, when all others are done, to the only worker."""
        while len(self._busy()) < self.workers and (number := schedule.take()) is not None:
            worker = self._idle_worker() or self._pool[0]
            worker.start_job(number, function, schedule.jobs[number], count)
        busy = self._busy()
        if not busy and (number := schedule.take_alone()) is not None:
            for worker in [*self._pool]:
                self._discard(worker)  # an idle process also holds images and memory of a GPU
            worker = self._idle_worker() or self._pool[0]
            worker.start_job(number, function, schedule.jobs[number], count)
            busy = [worker]
        if len(busy) > 1:
            for worker in busy:
                worker.alone = False

    def _answer(
        self, worker: _Worker, jobs: Mapping[int, JobT], limit: TimeLimit[JobT, ResultT] | None
    ) -> Answer | None:
        """How a worker's job ended; None if it still runs. A worker that cannot go on is removed."""
        number = worker.job
        try:
            answer = worker.poll()
        except _WorkerDiedError as error:
            self._discard(worker)
            return "lost", ForgetBenchError(f"{error} {self._advice(worker)}")
        if answer is None and limit is not None and worker.seconds() > limit.seconds:
            late = limit.result_of(jobs[number])
            if late is not None:
                self._discard(worker)
                return "done", late
        if answer is not None and answer[0] == "memory":
            self._discard(worker)  # its memory is full, or its GPU no longer answers
        return answer

    def _advice(self, worker: _Worker) -> str:
        if worker.process.exitcode == -signal.SIGKILL:
            return (
                f"Run the same command again with --workers {max(1, self.workers - 1)}: finished jobs are not repeated."
            )
        return "Correct or omit the method and run the command again. Finished jobs are not repeated."

    def _is_healthy(self) -> bool:
        """Whether a new process can do a job that does nothing."""
        worker = _Worker()
        try:
            worker.start_job(0, abs, 0, 1)
            until = time.monotonic() + _PROBE_SECONDS
            while time.monotonic() < until:
                wait_for([worker.connection], timeout=_POLL_SECONDS)
                if (answer := worker.poll()) is not None:
                    return answer[0] == "done"
        except _WorkerDiedError:
            return False
        finally:
            worker.kill()
        return False

    def _idle_worker(self) -> _Worker | None:
        """A worker without a job, started if there are fewer than allowed; None if all are busy."""
        for worker in self._pool:
            if not worker.busy:
                return worker
        if len(self._pool) == self.workers:
            return None
        self._pool.append(_Worker(self._free_slot(), threads=max(1, cores() // self.workers) if self._slots else 1))
        return self._pool[-1]

    def _free_slot(self) -> str | None:
        """The GPU of the next process; None on a CPU."""
        free = list(self._slots)
        for worker in self._pool:
            if worker.slot in free:
                free.remove(worker.slot)
        return free[0] if free else None

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

    def __init__(self, slot: str | None = None, *, threads: int = 1) -> None:
        context = get_context("spawn")
        self.slot = slot
        """The value of CUDA_VISIBLE_DEVICES; None is that of the parent."""
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs, os.getpid()))
        variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        with _environment(variables if slot is None else {**variables, "CUDA_VISIBLE_DEVICES": slot}):
            self.process.start()
        theirs.close()
        self.job = -1
        self.alone = True
        """Whether no other job of the engine ran while it did its job."""
        self._title, self._started, self._idle = "", 0.0, True

    @property
    def busy(self) -> bool:
        """Whether it has a job."""
        return not self._idle

    def seconds(self) -> float:
        """Seconds since its job began."""
        return time.monotonic() - self._started

    def start_job(self, number: int, function: Callable[[JobT], ResultT], job: JobT, count: int) -> None:
        """Give it a job: one of so many."""
        self.job, self.alone, self._idle, self._started = number, True, False, time.monotonic()
        title = getattr(job, "title", None)
        self._title = title if isinstance(title, str) else f"{number + 1} of {count}"
        with suppress(BrokenPipeError):  # it has died; `poll` says so
            self.connection.send((function, job))

    def poll(self) -> Answer | None:
        """How its job ended; None if it still runs.

        Raises:
            _WorkerDiedError: The process has ended.
        """
        alive = self.process.is_alive()
        try:
            if self.connection.poll():
                answer: Answer = self.connection.recv()
                self._idle = True
                return answer
        except (EOFError, ConnectionResetError):
            self.process.join(_STOP_SECONDS)
            alive = self.process.is_alive()
        if not alive:
            raise _WorkerDiedError(self._death())
        return None

    def _death(self) -> str:
        code = self.process.exitcode
        job = f"A worker process died in the job '{self._title}'"
        if code is None or code >= 0:
            return f"{job}: the code ended the process with status {code}, as os._exit does."
        name = _signal_name(-code)
        if name == "SIGKILL":
            return f"{job}: it was killed, most often because memory ran out."
        return f"{job}: it crashed ({name}), in the method's code or in a library that it calls."

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


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that the block starts: libraries read them when they are loaded."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# In a worker process.


def _work(connection: Connection, parent: int) -> None:
    """Do jobs until the connection is closed."""
    _start_worker(parent)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            message = connection.recv_bytes()
            answer: Answer
            try:
                function, job = pickle.loads(message)  # noqa: S301 - from the parent
                with no_sudden_exit():
                    answer = attempt(function, job)
            except KeyboardInterrupt:
                return
            except BaseException as error:  # noqa: BLE001 - the job could not be read
                answer = ("job", portable(error))
            connection.send(answer)


def _start_worker(parent: int) -> None:
    """Set up a worker: standard output to standard error, and an end when the parent is gone.

    Ctrl-C reaches all processes of a terminal; here it is left to the parent, which interrupts its workers by SIGTERM.
    """
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
