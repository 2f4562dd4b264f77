"""ForgetBench: a benchmark suite for machine unlearning in image classifiers, with a leaderboard.

Example:
    >>> import forgetbench as fb
    >>> task = fb.load_task("digits/cnn/class", seeds=6)
    >>> board = fb.evaluate(["ssd", "scrub"], task)  # doctest: +SKIP
    >>> board.to_frame()  # doctest: +SKIP

Names are imported on first use, so that ``import forgetbench`` is fast and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetbench.api.attacks import attack, audit_attacks, check_attack, list_attacks
    from forgetbench.api.board import BoardResult, RunResult, load_results
    from forgetbench.api.evaluation import audit, evaluate, tune
    from forgetbench.api.leaderboard import submit, verify
    from forgetbench.api.methods import check_method, get_method, list_methods
    from forgetbench.api.planning import plan, plan_jobs
    from forgetbench.api.reproduction import reproduce
    from forgetbench.api.scoring import score
    from forgetbench.api.tasks import list_datasets, list_metrics, list_tasks, load_task
    from forgetbench.errors import ForgetBenchError, UsageError
    from forgetbench.methods import ForgetRequest, Method, param
    from forgetbench.runner.config import RunConfig
    from forgetbench.scoring.scorecards import Scorecard
    from forgetbench.tasks.task import Task

    __version__: str

__all__ = [
    "BoardResult",
    "ForgetBenchError",
    "ForgetRequest",
    "Method",
    "RunConfig",
    "RunResult",
    "Scorecard",
    "Task",
    "UsageError",
    "__version__",
    "attack",
    "audit",
    "audit_attacks",
    "check_attack",
    "check_method",
    "evaluate",
    "get_method",
    "list_attacks",
    "list_datasets",
    "list_methods",
    "list_metrics",
    "list_tasks",
    "load_results",
    "load_task",
    "param",
    "plan",
    "plan_jobs",
    "reproduce",
    "score",
    "submit",
    "tune",
    "verify",
]

_MODULES = {
    "api.attacks": ("attack", "audit_attacks", "check_attack", "list_attacks"),
    "api.board": ("BoardResult", "RunResult", "load_results"),
    "api.evaluation": ("audit", "evaluate", "tune"),
    "api.leaderboard": ("submit", "verify"),
    "api.methods": ("check_method", "get_method", "list_methods"),
    "api.planning": ("plan", "plan_jobs"),
    "api.reproduction": ("reproduce",),
    "api.scoring": ("score",),
    "api.tasks": ("list_datasets", "list_metrics", "list_tasks", "load_task"),
    "errors": ("ForgetBenchError", "UsageError"),
    "methods": ("ForgetRequest", "Method", "param"),
    "runner.config": ("RunConfig",),
    "scoring.scorecards": ("Scorecard",),
    "tasks.task": ("Task",),
}
"""Module of this package -> the public names that it defines."""


def __getattr__(name: str) -> Any:
    """A public name, imported on first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("forgetbench")
    else:
        module = next((module for module, names in _MODULES.items() if name in names), None)
        if module is None:
            raise AttributeError(f"module 'forgetbench' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"forgetbench.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted(__all__)
