"""The command engine: checks where jobs run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from cyclopts import App

from forgetbench.cli.console import print_json, print_note, print_table
from forgetbench.cli.options import RUN, Json, RunOptions

if TYPE_CHECKING:
    from forgetbench.runner.engine_check import EngineReport


def add_commands(app: App) -> None:
    """Add this module's commands."""
    app.command(engine := App(name="engine", help="Where jobs run.", help_format="plaintext"))
    engine.command(check)


def check(*, machines: int = 1, options: RunOptions = RUN, json: Json = False) -> int:
    """Check an engine: two jobs, code and devices of every machine, and a round trip through the store.

    Run this first on a cluster. Exit status 1 if something is wrong.

    Example: forgetbench engine check --engine ray:head:6379

    Args:
        machines: Number of machines to wait for, for five minutes at most; a note says if some are missing.
    """
    from forgetbench.runner.engine_check import check_engine

    report = check_engine(options.config(), machines=machines)
    print_json({**asdict(report), "ok": report.ok}) if json else _print_report(report, options.engine)
    return 0 if report.ok else 1


def _print_report(report: EngineReport, engine: str) -> None:
    rows = [
        (
            machine.machine,
            machine.hardware,
            ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
            machine.problem or "ok",
        )
        for machine in report.machines
    ]
    print_table(f"engine {engine}, device {report.device}", ("machine", "hardware", "versions", ""), rows)
    if len(report.machines) < report.expected:
        print_note(f"{len(report.machines)} of {report.expected} machines take part.")
    print_note("Two jobs came back." if report.echoed else "Two jobs did not come back: see the messages above.")
