"""Command line: a thin shell over the functions of `forgetbench`.

Exit status: 0 success, 1 failure, 2 usage error.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from forgetbench.errors import ForgetBenchError, UsageError, os_error_message

if TYPE_CHECKING:
    from cyclopts import App


def make_app() -> App:
    """The application with all its commands."""
    from cyclopts import App, Parameter

    from forgetbench.cli import (
        admin,
        attack,
        data,
        engine,
        import_,
        list,
        report,
        reproduce,
        run,
        serve,
        slurm,
        submit,
        tune,
    )

    app = App(
        name="forgetbench",
        help="Benchmark machine unlearning in image classifiers, and publish the results on a leaderboard.",
        help_format="plaintext",
        version=_version,
        default_parameter=Parameter(negative=""),
        suppress_keyboard_interrupt=False,  # `main` explains it
    )
    for module in (list, run, attack, import_, tune, reproduce, report, data, engine, slurm, submit, serve, admin):
        module.add_commands(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    try:
        _accept_all_characters()
        with _sigterm_as_interrupt():
            status = _exit_status(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt as interruption:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process without a traceback
        _fail("Interrupted. Finished work is kept; the same command resumes.")
        status = 128 + (signal.SIGTERM if isinstance(interruption, _Terminated) else signal.SIGINT)
    sys.exit(status)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, by which schedulers end a command."""


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: what runs is cancelled, and worker processes end. Commands may set another handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit_status(arguments: Sequence[str]) -> int:
    from cyclopts import CycloptsError

    try:
        result = make_app()([*arguments], exit_on_error=False, result_action="return_value")
        if sys.stdout is not None:
            sys.stdout.flush()  # so that a full disk is reported here
    except CycloptsError:
        return 2  # cyclopts has printed the message
    except UsageError as error:
        return _fail(str(error), 2)
    except ForgetBenchError as error:
        return _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that flushing at the end of Python does not fail
        return 0
    except OSError as error:
        return _fail(os_error_message(error))
    return result if isinstance(result, int) else 0


def _fail(message: str, status: int = 1) -> int:
    from forgetbench.cli.console import print_error

    print_error(message)
    return status


def _accept_all_characters() -> None:
    """Spell out the characters that the encoding of standard output or standard error lacks, in the way of JSON."""
    codecs.register_error("forgetbench.spelled", _spell)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="forgetbench.spelled")


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[place : place + 2].hex() for place in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs), error.end


def _version() -> str:
    import forgetbench

    return forgetbench.__version__
