"""Jobs as tasks of a Ray cluster: one that runs, or one of this machine alone.

Only tasks, their results and their cancellation are used. A job's own error is a value, so that an error of Ray means
that a worker or its machine was lost; this package's `Schedule` decides what is run again.
"""

from __future__ import annotations

import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.method_label import MethodFile
from forgetbench.methods._foreign_code import no_sudden_exit
from forgetbench.runner.engines.base import (
    RETRIES,
    Answer,
    Failure,
    JobT,
    OnDone,
    ResultT,
    Schedule,
    Step,
    TimeLimit,
    attempt,
    place,
)
from forgetbench.runner.engines.code import code_identity, difference
from forgetbench.runner.engines.devices import pick_device
from forgetbench.store import digest, write_atomically

_WINDOW = 2
"""Submitted tasks for each place in the cluster: enough that no worker waits, and few to cancel."""
_WAIT_SECONDS = 1.0
"""Longest time after which new places in the cluster are noticed."""
_CHECK_SECONDS = 300.0
"""Time that a node has to start a worker and import torch."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Parcel(Generic[JobT, ResultT]):
    """What travels to a worker: a job, and what it needs there."""

    function: Callable[[JobT], ResultT]
    """The job function."""
    job: JobT
    """The job."""
    code: Mapping[str, str]
    """The driver's `code_identity`."""
    files: Mapping[str, str]
    """Path of a method's file on the driver -> its text."""
    seconds: float | None = None
    """The time limit."""
    late: ResultT | None = None
    """The result if it takes longer."""
    cpu: bool = True
    """Whether the job runs on a CPU, and so with one thread."""


class RayEngine:
    """Tasks on a Ray cluster; a worker that is lost costs only its job.

    Args:
        address: ``HOST:PORT`` of the cluster's head, or ``auto`` for the cluster of this machine; "" connects to
            RAY_ADDRESS, or starts a cluster of this machine alone.
        device: ``cpu``, ``cuda``, or ``auto`` for GPUs if the cluster has any.
        jobs_per_gpu: Number of jobs that share a GPU.
        retries: Number of times that a job is run again after its worker was lost.
    """

    def __init__(
        self, address: str = "", *, device: str = "auto", jobs_per_gpu: int = 1, retries: int = RETRIES
    ) -> None:
        self.address, self._device, self._jobs_per_gpu, self._retries = address, device, jobs_per_gpu, retries
        self._ray: Any = None
        self._ours = False
        self._known_places, self._places_time = 1, -math.inf

    @property
    def exclusive(self) -> bool:
        """Whether each job has a GPU for itself."""
        return self._on_gpu and self._jobs_per_gpu == 1

    @property
    def _on_gpu(self) -> bool:
        return self._device != "cpu"

    def find_device(self, name: str) -> str:
        """The torch device that a worker has.

        Raises:
            UsageError: It has none.
        """
        if name.startswith("cuda:"):
            raise UsageError(f"--device {name} names a GPU of one machine. With --engine ray, use --device cuda.")
        [device] = self._get([self._task(pick_device, self._device if name == "auto" else name)])
        return str(device)

    def map(
        self,
        function: Callable[[JobT], ResultT],
        jobs: Sequence[JobT | Step[JobT, ResultT]],
        on_done: OnDone[ResultT],
        limit: TimeLimit[JobT, ResultT] | None = None,
    ) -> list[ResultT | Failure]:
        """Run the jobs wherever the cluster has a place for them."""
        ray = self._ray
        if ray is None:
            raise ForgetBenchError("The engine is not open: use it in a with statement.")
        schedule = Schedule(jobs, retries=self._retries, workers=self._places())
        flying: dict[Any, int] = {}
        shared: set[int] = set()
        try:
            while schedule.pending or flying:
                while len(flying) < _WINDOW * self._places() and (number := schedule.take()) is not None:
                    flying[self._submit(function, schedule.jobs[number], limit)] = number
                if not flying and (number := schedule.take_alone()) is not None:
                    flying[self._submit(function, schedule.jobs[number], limit)] = number
                if len(flying) > 1:
                    shared.update(flying.values())
                ready, _ = ray.wait(list(flying), num_returns=1, timeout=_WAIT_SECONDS)
                more, _ = ray.wait(list(flying), num_returns=len(flying), timeout=0)
                for reference in {*ready, *more}:
                    number = flying.pop(reference)
                    alone = number not in shared
                    shared.discard(number)
                    where, answer = self._answer(reference, schedule.jobs[number])
                    for finished in schedule.settle(number, answer, where, alone=alone, healthy=self._is_healthy):
                        on_done(finished, schedule.outcomes[finished])
        finally:  # after Ctrl-C, or an error of the callback
            for reference in flying:
                ray.cancel(reference, force=True)
        return schedule.results()

    def on_each_worker(self, function: Callable[[JobT], ResultT], job: JobT) -> dict[str, ResultT | Failure]:
        """Run a job once on every node of the cluster; host name -> its result."""
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        tasks = {
            f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})": self._run.options(
                num_gpus=0, scheduling_strategy=strategy(node["NodeID"], soft=False), name="check"
            ).remote(self._parcel(function, job, None))
            for node in self._nodes()
        }
        outcomes: dict[str, ResultT | Failure] = {}
        for name, reference in tasks.items():
            where, (kind, value) = self._answer(reference, job, seconds=_CHECK_SECONDS)
            outcomes[name] = value if kind == "done" else Failure("job" if kind == "job" else "lost", value, 1, where)
        return outcomes

    def machines(self) -> int:
        """Number of nodes of the cluster that can run jobs."""
        return len(self._nodes())

    def __enter__(self) -> Self:
        """Connect to the cluster, or start one on this machine.

        Raises:
            UsageError: Ray is not installed, or no cluster answers at the address.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports nothing
        try:
            import ray
            import ray.util.scheduling_strategies
        except ImportError as error:
            raise UsageError("--engine ray needs Ray: pip install 'forgetbench[ray]'.") from error
        self._ray, self._ours = ray, not ray.is_initialized()
        if self._ours:
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
            if self.address:
                options["address"] = self.address
            elif (
                "RAY_ADDRESS" not in os.environ
            ):  # not the last cluster of this machine, which may be another's, or dead
                options |= {"address": "local", "include_dashboard": False}
            on_sigterm = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(**options)
            except (ConnectionError, TimeoutError, RuntimeError, ValueError, AssertionError) as error:
                place_ = self.address or os.environ.get("RAY_ADDRESS", "this machine")
                raise UsageError(
                    f"No Ray cluster answers at {place_} ({str(error).splitlines()[0] if str(error) else error!r}). "
                    "Start one with `ray start --head`, or give its address with --engine ray:HOST:6379."
                ) from error
            if callable(on_sigterm) and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray has set its own, which ends the process
        if self._device == "auto":
            resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
            self._device = "cuda" if resources.get("GPU", 0) > 0 else "cpu"
        gpus = 1 / self._jobs_per_gpu if self._on_gpu else 0
        self._run = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run_parcel)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._ours and self._ray is not None:
            self._ray.shutdown()
        self._ray = None

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]

    def _places(self) -> int:
        """Number of jobs that the cluster can run at the same time, at least 1; at most a second old."""
        if time.monotonic() - self._places_time >= _WAIT_SECONDS:  # a question to the head takes milliseconds
            resources = self._ray.cluster_resources()
            cpus = int(resources.get("CPU", 1))
            places = min(cpus, int(resources.get("GPU", 0) * self._jobs_per_gpu)) if self._on_gpu else cpus
            self._known_places, self._places_time = max(1, places), time.monotonic()
        return self._known_places

    def _parcel(
        self, function: Callable[[JobT], ResultT], job: JobT, limit: TimeLimit[JobT, ResultT] | None
    ) -> Parcel[JobT, ResultT]:
        late = limit.result_of(job) if limit is not None else None
        seconds = limit.seconds if limit is not None and late is not None else None
        return Parcel(function, job, code_identity(), _method_files(job), seconds, late, not self._on_gpu)

    def _submit(self, function: Callable[[JobT], ResultT], job: JobT, limit: TimeLimit[JobT, ResultT] | None) -> object:
        name = str(getattr(job, "title", function.__name__))
        return self._run.options(name=name).remote(self._parcel(function, job, limit))

    def _task(self, function: Callable[[JobT], ResultT], job: JobT) -> object:
        return self._submit(function, job, None)

    def _get(self, references: Sequence[object]) -> list[Any]:
        """The results of tasks; an error of the first that failed is raised."""
        results = []
        for reference in references:
            _, (kind, value) = self._answer(reference, None)
            if kind != "done":
                raise value
            results.append(value)
        return results

    def _answer(self, reference: object, job: object, *, seconds: float | None = None) -> tuple[str, Answer]:
        """Where a task ran, and how it ended."""
        exceptions = self._ray.exceptions
        try:
            where, answer = self._ray.get(reference, timeout=seconds)
        except exceptions.OutOfMemoryError as error:
            return "a node whose memory was full", ("memory", MemoryError(str(error).splitlines()[0]))
        except exceptions.RayTaskError as error:  # the job could not be read there
            reason = str(error.cause or error).splitlines()[-1]
            return "a worker", (
                "job",
                ForgetBenchError(
                    f"A worker cannot run jobs: {reason}. Install ForgetBench on all machines of the cluster."
                ),
            )
        except (exceptions.RayError, TimeoutError) as error:
            title = getattr(job, "title", "a job")
            reason = f"A worker was lost in '{title}' ({type(error).__name__}): its process or its machine ended."
            return "a lost worker", (
                "lost",
                ForgetBenchError(f"{reason} Run the command again: finished jobs are not repeated."),
            )
        return str(where), answer

    def _is_healthy(self) -> bool:
        """Whether the cluster can do a job that does nothing."""
        _, (kind, _value) = self._answer(self._task(abs, 0), None, seconds=_CHECK_SECONDS)
        return kind == "done"


def _method_files(job: object) -> dict[str, str]:
    """Path -> text of the files of methods that a job refers to: workers need not have them."""
    files: dict[str, str] = {}
    for spec in _specs(job):
        path = MethodFile.parse(spec.file).path
        files[path] = Path(path).read_text(encoding="utf-8")
    return files


def _specs(job: object) -> list[Any]:
    """The method specifications in a job that have a file."""
    if not is_dataclass(job):
        return []
    values = [getattr(job, field.name) for field in fields(job)]
    values += [item for value in values if isinstance(value, tuple) for item in value]
    return [value for value in values if isinstance(getattr(value, "file", None), str)]


# In a worker of the cluster.


def _run_parcel(parcel: Parcel[Any, Any]) -> tuple[str, Answer]:
    """Do a job: where, and how it ended."""
    from forgetbench.runner.engines.local import run_limited

    wrong = difference(parcel.code, code_identity(), place())
    if wrong:
        return place(), ("job", UsageError(wrong))
    if parcel.cpu:
        _use_one_thread()
    job = _with_local_files(parcel.job, parcel.files)
    if parcel.seconds is not None:
        return place(), run_limited(parcel.function, job, parcel.seconds, parcel.late)
    with no_sudden_exit():
        return place(), attempt(parcel.function, job)


@cache
def _use_one_thread() -> None:
    """Use one thread in this process, so that bits repeat.

    Ray has loaded numpy already, for which variables are too late; libraries that are loaded later read them. To look
    for loaded libraries takes milliseconds.
    """
    for name in _THREADS:
        os.environ[name] = "1"
    from threadpoolctl import threadpool_limits  # a dependency of scikit-learn

    threadpool_limits(1)


def _with_local_files(job: Any, files: Mapping[str, str]) -> Any:
    """The job with copies of its methods' files on this machine."""
    copies = {path: _local_copy(path, text) for path, text in files.items()}

    def moved(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(moved(item) for item in value)
        if not isinstance(getattr(value, "file", None), str):
            return value
        address = MethodFile.parse(value.file)
        return replace(value, file=value.file.replace(address.path, copies[address.path], 1))

    if not copies:
        return job
    return replace(job, **{field.name: moved(getattr(job, field.name)) for field in fields(job)})


def _local_copy(path: str, text: str) -> str:
    """The path of a file with this text on this machine: the driver's, or a copy in a folder named by its hash."""
    original = Path(path)
    try:
        if original.read_text(encoding="utf-8") == text:
            return path
    except (OSError, UnicodeDecodeError):
        pass
    copy = Path(tempfile.gettempdir()) / f"forgetbench-methods-{os.getuid()}" / digest(text)[:16] / original.name
    if not copy.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(copy, text.encode())
    return str(copy)
