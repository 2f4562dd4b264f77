"""Engines: where jobs run. In this process one after another, or side by side in processes.

An engine maps a function over jobs and returns the results in their order. A job may be a `Step`, which is made from
the results of others; `base.Schedule` is the order of all engines. The store makes all jobs resumable. What a job
prints goes to standard error.
"""

from __future__ import annotations

from forgetbench.errors import UsageError
from forgetbench.evidence.environment import cores
from forgetbench.runner.engines.base import Engine, Failure, OnDone, Step, TimeLimit, machine_fault, results_of
from forgetbench.runner.engines.devices import visible_gpus
from forgetbench.runner.engines.local import LocalEngine
from forgetbench.runner.engines.processes import ProcessesEngine

__all__ = [
    "Engine",
    "Failure",
    "LocalEngine",
    "OnDone",
    "ProcessesEngine",
    "Step",
    "TimeLimit",
    "machine_fault",
    "make_engine",
    "results_of",
]

ENGINES = ("auto", "local", "processes", "ray")
"""Names of engines."""


def make_engine(name: str, workers: int | None, device: str, jobs_per_gpu: int = 1) -> Engine:
    """An engine by name.

    ``auto`` is processes on a CPU, and on several GPUs or with several jobs per GPU; on one GPU it is local.

    Args:
        name: ``auto``, ``local``, ``processes``, ``ray`` or ``ray:ADDRESS``.
        workers: Number of processes; None is one per core, or on GPUs as many as run ``jobs_per_gpu`` jobs on each.
        device: The torch device.
        jobs_per_gpu: Number of jobs that share a GPU.

    Raises:
        UsageError: The name is unknown, or the numbers do not fit the engine or the GPUs.
    """
    kind, _, address = name.partition(":")
    if kind not in ENGINES or (address and kind != "ray"):
        raise UsageError(f"Unknown engine {name!r}. Available: {', '.join(ENGINES)}, ray:HOST:PORT.")
    if kind == "ray":
        from forgetbench.runner.engines.ray import RayEngine

        if workers is not None:
            raise UsageError(
                "--workers does not apply to --engine ray: the cluster's cores and GPUs are used. Omit it."
            )
        return RayEngine(address, device=device, jobs_per_gpu=jobs_per_gpu)
    slots = visible_gpus(device) * jobs_per_gpu
    if jobs_per_gpu > 1 and (not slots or name == "local"):
        reason = "--engine local runs one job at a time" if slots else f"the device is {device}"
        raise UsageError(f"--jobs-per-gpu {jobs_per_gpu} does not apply: {reason}. Omit it.")
    if name == "local" or (name == "auto" and device != "cpu" and len(slots) < 2):
        return LocalEngine()
    if not slots:
        return ProcessesEngine(workers or cores())
    if workers is not None and workers > len(slots):
        raise UsageError(
            f"--workers {workers} is more than the {len(slots)} jobs that the GPUs run at the same time. To share a "
            f"GPU, give --jobs-per-gpu {-(-workers // len(visible_gpus(device)))}."
        )
    return ProcessesEngine(workers or len(slots), slots=slots)
