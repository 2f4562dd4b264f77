"""The command line: a thin shell over the functions of the package.

Exit status 0: done. 1: something went wrong. 2: the call was wrong, and the message says how to mend it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from forgetbench.errors import ForgetBenchError, UsageError


def make_app() -> App:
    """The application with all its commands."""
    from forgetbench.cli import admin, data
    from forgetbench.cli import import_ as observing
    from forgetbench.cli import list as listing
    from forgetbench.cli import report as reporting
    from forgetbench.cli import reproduce as reference
    from forgetbench.cli import run as running
    from forgetbench.cli import serve as server
    from forgetbench.cli import submit as submitting
    from forgetbench.cli import tune as tuning

    app = App(
        name="forgetbench",
        help="Benchmark machine unlearning in image classifiers, and show the results on a leaderboard.",
        help_format="plaintext",
        version=_version,
    )
    for module in (listing, running, observing, tuning, reference, reporting, data, submitting, server, admin):
        module.add_commands(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit status."""
    # not list(...): importing forgetbench.cli.list binds that name in this module
    sys.exit(_call([*(sys.argv[1:] if arguments is None else arguments)]))


def _call(arguments: list[str]) -> int:
    from forgetbench.cli.console import complain

    try:
        result = make_app()(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return 2  # cyclopts has printed what was wrong
    except UsageError as error:
        complain(str(error))
        return 2
    except ForgetBenchError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("Stopped. What was finished is kept: the same command continues.")
        return 130
    except BrokenPipeError:
        return 0
    return result if isinstance(result, int) else 0


def _version() -> str:
    from importlib.metadata import version

    return version("forgetbench")
