"""A runner in a process of its own, with made-up methods in place of the sandbox: for tests that kill it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.db.session import open_database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import seals
from forgetbench.leaderboard.submissions.seals import BoardDraws
from forgetbench.runner.config import RunConfig
from forgetbench.verification import runner as runner_module
from forgetbench.verification.limits import Limits
from forgetbench.verification.rerun import MeasuredCost, Rerun
from forgetbench.verification.sandbox import TrustedProcess
from support.leaderboard import TASK, World


def worlds() -> dict[str, World]:
    """The made-up task on public and on sealed draws."""
    return {"public": World(TASK), "sealed": World(f"{TASK}/sealed-0123456789ab", seed=11)}


def make_up(folder: Path, seconds: float):
    """A replacement of `run_method`: writes a run whose logits follow from the hyper-parameter ``number``."""

    def run(task, code, label, sandbox, limits, config, progress):
        progress("model 1 of 6")
        time.sleep(seconds)
        number = code.parameters["number"]
        target = folder / f"{number}-{task.draws}-{time.monotonic_ns()}"
        method = {"source": code.source, "needs": ("forget",)}
        made = task.world.write_run(target, f"mine-{number}", start=300 + 20 * number, method=method)
        measured = MeasuredCost(
            sandbox="fake",
            read=("forget",),
            requested_network=False,
            flops=0.04,
            time=0.02,
            seconds=1.5,
            cpu_seconds=1.0,
            memory=2**20,
        )
        return Rerun(read_run(made), measured)

    return run


def main() -> None:
    """Start a runner for each line of standard input, and write its process id; the first line has the settings."""
    message = json.loads(sys.stdin.readline())
    settings = Settings.model_validate(message["settings"])
    draws = {
        kind: BoardDraws(SimpleNamespace(draws=kind, world=world), SimpleNamespace(folder=None))
        for kind, world in worlds().items()
    }
    seals.board_draws = lambda *_: draws
    runner_module.import_originals = lambda *_: None
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # killed runners leave no zombies
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run = make_up(Path(message["folder"]), message["seconds"])
            with open_database(settings) as database:
                config = RunConfig(device="cpu", home=settings.runner)
                runner_module.Runner(settings, database, TrustedProcess(), Limits(), config, run=run).run()
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
