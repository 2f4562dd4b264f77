"""Engines: where jobs run. In this process one after another, or side by side in processes.

An engine maps a function over jobs that do not depend on each other and returns the results in their order. The store
makes all jobs resumable. What a job prints goes to standard error.
"""

from __future__ import annotations

import os

from forgetbench.errors import UsageError
from forgetbench.runner.engines.base import Engine, Failure, OnDone, TimeLimit, machine_fault, results_of
from forgetbench.runner.engines.local import LocalEngine
from forgetbench.runner.engines.processes import ProcessesEngine

__all__ = [
    "Engine",
    "Failure",
    "LocalEngine",
    "OnDone",
    "ProcessesEngine",
    "TimeLimit",
    "machine_fault",
    "make_engine",
    "results_of",
]


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
