"""Command line: a thin shell over the functions of `forgetbench`.

Exit status: 0 success, 1 failure, 2 usage error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from forgetbench.errors import ForgetBenchError, UsageError


def make_app() -> App:
    """The application with all its commands."""
    from forgetbench.cli import admin, data, import_, list, report, reproduce, run, serve, submit, tune

    app = App(
        name="forgetbench",
        help="Benchmark machine unlearning in image classifiers, and publish the results on a leaderboard.",
        help_format="plaintext",
        version=_version,
        default_parameter=Parameter(negative=""),
    )
    for module in (list, run, import_, tune, reproduce, report, data, submit, serve, admin):
        module.add_commands(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    sys.exit(_exit_status(sys.argv[1:] if arguments is None else arguments))


def _exit_status(arguments: Sequence[str]) -> int:
    from forgetbench.cli.console import print_error

    try:
        result = make_app()([*arguments], exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return 2  # cyclopts has printed the message
    except UsageError as error:
        print_error(str(error))
        return 2
    except ForgetBenchError as error:
        print_error(str(error))
        return 1
    except KeyboardInterrupt:
        print_error("Interrupted. Finished work is kept; the same command resumes.")
        return 130
    except BrokenPipeError:
        return 0
    return result if isinstance(result, int) else 0


def _version() -> str:
    import forgetbench

    return forgetbench.__version__
