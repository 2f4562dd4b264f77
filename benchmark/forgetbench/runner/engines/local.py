"""Jobs one after another, in this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Self

from forgetbench.errors import UsageError
from forgetbench.methods._foreign_code import TimeLimitError, no_sudden_exit, output_to_stderr
from forgetbench.runner.engines.base import (
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
    place,
)
from forgetbench.runner.engines.devices import pick_device

_REPEAT_SECONDS = 10.0
"""An exceeded time limit is signaled again after this time, should a method have caught the first signal."""


class LocalEngine(OneMachine):
    """One job after another, in this process: the default on one GPU."""

    exclusive = True

    def find_device(self, name: str) -> str:
        """The torch device of a name on this machine."""
        return pick_device(name)

    def map(
        self,
        function: Callable[[JobT], ResultT],
        jobs: Sequence[JobT | Step[JobT, ResultT]],
        on_done: OnDone[ResultT],
        limit: TimeLimit[JobT, ResultT] | None = None,
    ) -> list[ResultT | Failure]:
        """Run the jobs one after another. A time limit interrupts Python code, not a single operation of a library.

        Raises:
            UsageError: There is a time limit, and this is not the main thread of a process on Linux or macOS.
        """
        schedule = Schedule(jobs)
        while (number := schedule.take()) is not None:
            job = schedule.jobs[number]
            late = limit.result_of(job) if limit is not None else None
            if limit is None or late is None:
                with output_to_stderr(), no_sudden_exit():
                    answer = attempt(function, job)
            else:
                answer = run_limited(function, job, limit.seconds, late)
            for finished in schedule.settle(number, answer, place(), alone=True):
                on_done(finished, schedule.outcomes[finished])
        return schedule.results()

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to stop."""


def run_limited(function: Callable[[JobT], ResultT], job: JobT, seconds: float, late: ResultT) -> Answer:
    """The answer of a job, or ``late`` if it takes longer."""
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
                return attempt(function, job)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeLimitError:
        return "done", late
    finally:
        signal.signal(signal.SIGALRM, previous)
