"""Runs code that is not ours: its output goes to standard error, and whatever it raises becomes one kind of error."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from forgetbench.errors import ForgetBenchError, UsageError, describe_error


class MethodCodeError(Exception):
    """An error that a method's code raised, which is its ``__cause__``; the message describes it."""


class TimeLimitError(BaseException):
    """Interrupts a job in this process that exceeds its time limit; no `except Exception` of a method stops it."""


@contextmanager
def output_to_stderr() -> Iterator[None]:
    """Send the standard output of the block to standard error, also that of child processes."""
    stream, saved = sys.stdout, None
    _flush()
    with contextlib.suppress(OSError):  # a process without standard output, such as a service
        saved = os.dup(1)
        os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = stream
        _flush()  # what was written through a reference to the stream itself
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()


@contextmanager
def no_sudden_exit() -> Iterator[None]:
    """Raise `SystemExit` where the block would end this process by `os._exit`; processes that it forks may end so."""
    process, leave = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(status)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave


@contextmanager
def wrapped_errors() -> Iterator[None]:
    """Raise a `MethodCodeError` for whatever the block raises, but for Ctrl-C and an exceeded time limit."""
    try:
        yield
    except (KeyboardInterrupt, TimeLimitError, MethodCodeError):
        raise
    except BaseException as error:
        raise MethodCodeError(describe_error(error)) from error


@contextmanager
def refused_errors(doing: str) -> Iterator[None]:
    """Run the parts of a method that are called before anything is trained: an error refuses the method.

    Args:
        doing: What the block does, for the message: "my_method.py: making MyMethod".

    Raises:
        UsageError: The block raised anything but an error of ForgetBench.
    """
    try:
        with output_to_stderr(), wrapped_errors():
            yield
    except MethodCodeError as error:
        if isinstance(error.__cause__, ForgetBenchError):
            raise error.__cause__ from None
        raise UsageError(f"{doing} raised {error}.") from error.__cause__


@contextmanager
def capture_warnings() -> Iterator[list[str]]:
    """Collect the warnings of methods for the row's notes, so that they do not break a progress bar."""
    logger, messages = logging.getLogger("forgetbench.methods"), []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    listener, propagate = Listener(logging.WARNING), logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate
