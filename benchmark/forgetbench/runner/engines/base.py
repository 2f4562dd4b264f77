"""What all engines share: the protocol, the order of jobs, time limits, and how a failed job is reported."""

from __future__ import annotations

import errno
import heapq
import os
import pickle
import socket
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar

from forgetbench.errors import ForgetBenchError, describe_error
from forgetbench.leases import BusyError, deferrable
from forgetbench.methods._foreign_code import TimeLimitError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
FailureKind: TypeAlias = Literal["job", "lost", "machine", "blocked"]
"""A job's own error; a worker that ended with its job; a fault of the machine; a job that this one needs has failed."""
Fault: TypeAlias = Literal["storage", "memory"]
"""Faults of the machine: of a disk, quota or filesystem; of memory or a GPU, which a job may cause itself."""

RETRIES = 3
"""Number of times that a job is run again after its worker was lost."""
STORAGE_RETRIES = 1
"""Number of times that a job is run again, after all others, when the filesystem has failed."""

_STORAGE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE})
_STORAGE_TEXTS = (
    "PytorchStreamWriter failed writing",
    "unexpected pos",
    "Not enough free space to write",
    " requested and ",  # numpy: "4096 requested and 0 written"
    "No space left on device",
    "Disk quota exceeded",
    "Stale file handle",
    "disk is full",
)
"""Parts of messages of libraries that write files and do not say the number of the system's error."""
_MEMORY_TEXTS = ("CUDA error", "CUDA out of memory", "_STATUS_ALLOC_FAILED", "can't allocate memory", "NCCL error")
"""Parts of messages of torch's `RuntimeError` for memory and GPUs."""


@dataclass(frozen=True)
class TimeLimit(Generic[JobT, ResultT]):
    """The longest time that jobs may take, and what takes the place of the result of one that takes longer."""

    seconds: float
    """The longest time."""
    result_of: Callable[[JobT], ResultT | None]
    """Job -> its result if it is interrupted; None if the job has no limit."""


@dataclass(frozen=True)
class Step(Generic[JobT, ResultT]):
    """A job of a plan that is made when the jobs before it have ended."""

    make: Callable[[Sequence[ResultT | None]], JobT | None]
    """The results of the jobs that it needs, None for one that has none -> the job; None if it cannot be made."""
    needs: tuple[int, ...] = ()
    """The positions of those jobs in the plan, all smaller than its own."""
    cost: float = 0.0
    """The job's expected duration, in a unit that is the same for the plan."""

    @classmethod
    def of(cls, job: JobT, cost: float = 0.0) -> Step[JobT, ResultT]:
        """A job that needs no other."""
        return cls(lambda _: job, cost=cost)


@dataclass(frozen=True)
class Failure:
    """Takes the place of the result of a job that has none."""

    kind: FailureKind
    """What failed."""
    error: BaseException
    """The error of the last attempt."""
    attempts: int = 1
    """Number of times that the job was run; 0 if it was not started."""
    where: str = ""
    """Host and process of the last attempt."""
    by_job: bool = False
    """Whether the job itself is to blame: its workers died each time while the engine ran other jobs, or memory ran out
    while it ran alone."""


OnDone = Callable[[int, ResultT | Failure], None]
"""Called in the caller's process with the number of a job and its result, as soon as it is known."""


class Engine(Protocol):
    """Runs independent jobs; a context manager."""

    @property
    def exclusive(self) -> bool:
        """Whether no other job runs at the same time on a job's device, so that wall times mean something."""
        ...

    def find_device(self, name: str) -> str:
        """The torch device that workers have for a name such as ``auto``.

        Raises:
            UsageError: They have none.
        """
        ...

    def map(
        self,
        function: Callable[[JobT], ResultT],
        jobs: Sequence[JobT | Step[JobT, ResultT]],
        on_done: OnDone[ResultT],
        limit: TimeLimit[JobT, ResultT] | None = None,
    ) -> list[ResultT | Failure]:
        """Results in the order of the jobs. A job that fails keeps only those from running that need it."""
        ...

    def on_each_worker(self, function: Callable[[JobT], ResultT], job: JobT) -> dict[str, ResultT | Failure]:
        """Run a job once on each other machine; name of the machine -> its result. Empty if there is none."""
        ...

    def machines(self) -> int:
        """Number of machines that run jobs at present."""
        ...

    def __enter__(self) -> Self:
        """Start what is needed."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        ...


class OneMachine:
    """The part of an engine that is the same for all engines of this machine alone."""

    def on_each_worker(self, _function: Callable[[JobT], ResultT], _job: JobT) -> dict[str, ResultT | Failure]:
        """No other machine takes part."""
        return {}

    def machines(self) -> int:
        """This one."""
        return 1


def machine_fault(error: BaseException) -> Fault | None:
    """The fault of the machine that an error was caused by, directly or not; None if there is none."""
    faults = [fault for cause in _causes(error) if (fault := _fault(cause)) is not None]
    return "storage" if "storage" in faults else faults[0] if faults else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and the errors that it was raised from or while handling."""
    seen = set[int]()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__]


def _fault(error: BaseException) -> Fault | None:
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS:
        return "storage"
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or names & {"OutOfMemoryError", "AcceleratorError"}:
        return "memory"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return "memory"
    if isinstance(error, RuntimeError | OSError) or "SafetensorError" in names:
        text = describe_error(error)
        if any(part in text for part in _MEMORY_TEXTS):
            return "memory"
        if any(part in text for part in _STORAGE_TEXTS):
            return "storage"
    return None


def place() -> str:
    """The host and process of the caller."""
    return f"{socket.gethostname()}:{os.getpid()}"


def portable(error: BaseException) -> BaseException:
    """An error that can be sent to another process, with its traceback in a note if it was not expected."""
    if not isinstance(error, ForgetBenchError | OSError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    except Exception:  # noqa: BLE001 - an error of any class may fail to be copied
        return ForgetBenchError(describe_error(error))
    return error


def results_of(outcomes: Sequence[ResultT | Failure]) -> list[ResultT]:
    """The results of jobs, if all of them have one.

    Raises:
        BaseException: The error of the first job that failed.
    """
    failure = next((outcome for outcome in outcomes if isinstance(outcome, Failure)), None)
    if failure is not None:
        raise failure.error
    return [outcome for outcome in outcomes if not isinstance(outcome, Failure)]


Answer: TypeAlias = tuple[Literal["done", "busy", "job", "storage", "memory", "lost"], Any]
"""How an attempt ended: with a result, because another run does the same, or with an error of one of these kinds."""


def attempt(function: Callable[[JobT], Any], job: JobT) -> Answer:
    """Run a job: its result or its error, as a value that can be sent to another process.

    Raises:
        KeyboardInterrupt: The process was interrupted.
        TimeLimitError: The job was interrupted because it takes too long.
    """
    try:
        with deferrable():
            return "done", function(job)
    except (KeyboardInterrupt, TimeLimitError):
        raise
    except BusyError as error:
        return "busy", portable(error)
    except BaseException as error:  # noqa: BLE001 - reported by the engine
        return machine_fault(error) or "job", portable(error)


class Schedule:
    """The order in which an engine runs jobs, and which of them it runs again.

    Of the jobs whose needs are done, the one with the longest chain of jobs behind it is the next; of equal ones, the
    first. A job that another run is doing is tried again after the others. A job whose worker was lost is run again
    after the others, the last time alone; so is one that ran out of memory while other jobs ran. After a fault of the
    filesystem a job is run once more. When the filesystem fails again and again, no further job is started, since each
    would compute in vain.

    Args:
        plan: The jobs; a `Step` is a job that needs others.
        retries: Number of times that a job is run again after its worker was lost.
        workers: Number of jobs that run at the same time.
    """

    def __init__(self, plan: Sequence[Any], *, retries: int = RETRIES, workers: int = 1) -> None:
        self.jobs: dict[int, Any] = {}
        """Number of a job -> the job, if all that it needs has ended."""
        self.outcomes: dict[int, Any] = {}
        """Number of a job -> its result or failure."""
        self._steps = [one if isinstance(one, Step) else Step.of(one) for one in plan]
        self._chains = _chains(self._steps)
        self._missing = [len(set(step.needs)) for step in self._steps]
        self._followers: list[list[int]] = [[] for _ in self._steps]
        for number, step in enumerate(self._steps):
            for need in set(step.needs):
                self._followers[need].append(number)
        self._waiting: list[tuple[int, float, int]] = []
        self._alone = deque[int]()
        self._turns, self._running = 0, set[int]()
        self._attempts = [0] * len(self._steps)
        self._retries, self._most_faults, self._faults = retries, _FAULTS_IN_A_ROW + workers, 0
        for number, missing in enumerate(self._missing):
            if not missing:
                self._make(number)

    @property
    def pending(self) -> bool:
        """Whether a job can be taken: next to others, or alone."""
        return bool(self._waiting or self._alone)

    def take(self) -> int | None:
        """The next job that may run next to others; None if there is none at present."""
        if not self._waiting:
            return None
        number = heapq.heappop(self._waiting)[-1]
        self._running.add(number)
        return number

    def take_alone(self) -> int | None:
        """The next job that must run alone, for when no other runs; None while others wait, or if there is none."""
        if self._waiting or not self._alone:
            return None
        self._running.add(self._alone[0])
        return self._alone.popleft()

    def settle(
        self, number: int, answer: Answer, where: str, *, alone: bool, healthy: Callable[[], bool] = lambda: True
    ) -> list[int]:
        """Note how an attempt at a job ended.

        Args:
            number: The job.
            answer: How the attempt ended.
            where: Host and process.
            alone: Whether no other job ran at the same time.
            healthy: Whether the engine can still run a job.

        Returns:
            The jobs whose outcome is known now: usually this one; none if it is run again; more if others need it.
        """
        kind, value = answer
        self._running.discard(number)
        if kind == "busy":
            self._again(number)
            return []
        self._attempts[number] += 1
        attempts = self._attempts[number]
        self._faults = self._faults + 1 if kind == "storage" else 0 if kind == "done" else self._faults
        if kind == "lost" and attempts <= self._retries:
            if attempts == self._retries:
                self._alone.append(number)
            else:
                self._again(number)
            return []
        if kind == "memory" and not alone:
            self._alone.append(number)
            return []
        if kind == "storage" and attempts <= STORAGE_RETRIES and self._faults < self._most_faults:
            self._again(number)
            return []
        if kind == "done":
            self.outcomes[number] = value
        else:
            by_job = kind == "memory" or (kind == "lost" and alone and healthy())
            self.outcomes[number] = Failure(_KINDS[kind], value, attempts, where, by_job=by_job)
        if self._faults >= self._most_faults:
            return [number, *self._stop()]
        return [number, *self._release(number)]

    def results(self) -> list[Any]:
        """The outcomes in the order of the jobs."""
        return [self.outcomes[number] for number in range(len(self._steps))]

    def _again(self, number: int) -> None:
        """Put a job behind all that wait."""
        self._turns += 1
        heapq.heappush(self._waiting, (self._turns, 0.0, number))

    def _make(self, number: int) -> bool:
        """Make a job whose needs have ended; whether that was possible."""
        step = self._steps[number]
        results = [None if isinstance(self.outcomes[need], Failure) else self.outcomes[need] for need in step.needs]
        job = step.make(results)
        if job is None:
            self.outcomes[number] = Failure("blocked", ForgetBenchError(_BLOCKED), 0)
            return False
        self.jobs[number] = job
        heapq.heappush(self._waiting, (0, -self._chains[number], number))
        return True

    def _release(self, ended: int) -> list[int]:
        """Make the jobs that waited for one that has ended; returns those that cannot be made."""
        blocked, known = list[int](), [ended]
        while known:
            for number in self._followers[known.pop()]:
                self._missing[number] -= 1
                if not self._missing[number] and not self._make(number):
                    blocked.append(number)
                    known.append(number)
        return blocked

    def _stop(self) -> list[int]:
        """Give up all jobs that do not run."""
        stopped = [n for n in range(len(self._steps)) if n not in self.outcomes and n not in self._running]
        self._waiting.clear()
        self._alone.clear()
        for number in stopped:
            kind: FailureKind = "machine" if number in self.jobs else "blocked"
            self.outcomes[number] = Failure(kind, ForgetBenchError(_STOPPED), self._attempts[number])
        return stopped


def _chains(steps: Sequence[Step[Any, Any]]) -> list[float]:
    """The expected duration of the longest chain of jobs that begins with each.

    Raises:
        ValueError: A job does not come after those that it needs.
    """
    behind = [0.0] * len(steps)
    for number in reversed(range(len(steps))):
        for need in steps[number].needs:
            if not 0 <= need < number:
                raise ValueError(f"job {number} needs job {need}, which is not before it")
            behind[need] = max(behind[need], steps[number].cost + behind[number])
    return [step.cost + after for step, after in zip(steps, behind, strict=True)]


_KINDS: dict[str, FailureKind] = {"job": "job", "lost": "lost", "memory": "machine", "storage": "machine"}
"""How an attempt ended -> what failed."""
_FAULTS_IN_A_ROW = 4
"""Faults of the filesystem without a finished job in between, in addition to one for each worker, after which no
further job is started."""
_STOPPED = "Not started, because the filesystem failed again and again."
_BLOCKED = "Not started, because a job that it needs has no result."
