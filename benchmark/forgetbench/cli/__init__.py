"""Command line: a thin shell over the functions of `forgetbench`.

Exit status: 0 success, 1 failure, 2 usage error.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forgetbench.errors import ForgetBenchError, UsageError, os_error_message

if TYPE_CHECKING:
    from cyclopts import App


def make_app() -> App:
    """The application with all its commands."""
    from cyclopts import App, Parameter

    from forgetbench.cli import admin, data, engine, import_, list, report, reproduce, run, serve, submit, tune

    app = App(
        name="forgetbench",
        help="Benchmark machine unlearning in image classifiers, and publish the results on a leaderboard.",
        help_format="plaintext",
        version=_version,
        default_parameter=Parameter(negative=""),
        suppress_keyboard_interrupt=False,  # `main` explains it
    )
    for module in (list, run, import_, tune, reproduce, report, data, engine, submit, serve, admin):
        module.add_commands(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    try:
        _accept_all_characters()
        status = _exit_status(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process without a traceback
        _fail("Interrupted. Finished work is kept; the same command resumes.")
        status = 130
    sys.exit(status)


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
