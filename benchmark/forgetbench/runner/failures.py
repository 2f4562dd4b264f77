"""What is said of jobs that have no result: which they are, why, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forgetbench.errors import ForgetBenchError, UsageError, describe_error, os_error_message, printable
from forgetbench.object_store import ObjectStore
from forgetbench.runner.engines.base import Failure
from forgetbench.store import Store

_SHOWN = 10
"""Number of failed jobs that a message lists."""


class JobsFailedError(ForgetBenchError):
    """Jobs of a run failed, and all others are finished; the message lists them."""


@dataclass(frozen=True)
class FailedJob:
    """A job without a result."""

    task: str
    """Name of its task."""
    title: str
    """What the job makes."""
    failure: Failure
    """What failed."""

    @property
    def reason(self) -> str:
        """The error in one printable text."""
        error = self.failure.error
        if isinstance(error, ForgetBenchError):
            return printable(str(error))
        return os_error_message(error) if isinstance(error, OSError) else describe_error(error)

    def __str__(self) -> str:
        tries = f" ({self.failure.attempts} attempts, the last on {self.failure.where})"
        return f"{self.task}, {self.title}: {self.reason}{tries if self.failure.attempts > 1 else ''}"


def summary(failed: Sequence[FailedJob], finished: int) -> str:
    """The jobs that failed, and what became of the others."""
    shown = [f"- {job}" for job in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        shown.append(f"- and {len(failed) - _SHOWN} more")
    head = (
        f"{len(failed)} of {len(failed) + finished} jobs failed; the others are finished and kept. Run the same "
        "command again: it repeats only what failed and what depends on it."
    )
    return "\n".join([head, *shown])


def not_shared(store: Store) -> str:
    """What to do if a machine does not find the artifacts of another one."""
    if isinstance(store, ObjectStore):
        return f"It does not find in {store.url} what another machine has put there. Give it access to the same bucket."
    return (
        f"It does not share the store {store.root}. Set FORGETBENCH_HOME to a folder that all machines see under the "
        "same path, or give a bucket with --store."
    )


def error_of(failed: Sequence[FailedJob], finished: int) -> BaseException:
    """The error to raise for failed jobs.

    A wrong call is a `UsageError` and stays one. An error that no code expects is returned itself, with its traceback.

    Args:
        failed: The jobs, at least one.
        finished: Number of jobs that have a result.
    """
    errors = [job.failure.error for job in failed]
    if all(isinstance(error, UsageError) for error in errors):
        return errors[0]
    text = summary(failed, finished)
    for error in errors:
        if not isinstance(error, ForgetBenchError | OSError | MemoryError):
            error.add_note(text)
            return error
    failure = JobsFailedError(text)
    failure.__cause__ = errors[0]
    return failure
