"""The runner of a server: takes methods from the queue, runs them in a sandbox, and hands their evidence back.

Jobs are leased like those of the scoring worker. What a method produced is kept in the runner's store, so a runner that
was killed goes on where it stopped, and the server receives the evidence of an entry once.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

from forgetbench.errors import UsageError
from forgetbench.evidence.environment import environment
from forgetbench.evidence.run import Manifest
from forgetbench.leaderboard import logging as leaderboard_logging
from forgetbench.leaderboard.db import queue, runs
from forgetbench.leaderboard.db.models import Board, Entry, Job
from forgetbench.leaderboard.db.session import Database, open_database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import names, seals
from forgetbench.leaderboard.submissions.uploads import text_errors
from forgetbench.leaderboard.worker.supervisor import UNAVAILABLE
from forgetbench.leaderboard.worker.worker import Worker
from forgetbench.remote.pull import import_originals
from forgetbench.runner.config import RunConfig
from forgetbench.tasks.seal import Draws
from forgetbench.verification.calls import MethodCode
from forgetbench.verification.limits import Limits
from forgetbench.verification.rerun import MeasuredCost, MethodFailedError, Rerun, run_method
from forgetbench.verification.sandbox import Sandbox, find_sandbox

log = logging.getLogger("forgetbench.runner")
ACTOR = "runner"
"""Actor of the runner's changes in an entry's history."""
RunMethod = Callable[..., Rerun]


class Runner(Worker):
    """One runner; several may work on the same database.

    Args:
        settings: Configuration of the server.
        database: Its database.
        sandbox: Where submitted code runs.
        limits: Limits of one call of a method.
        config: Device and image sets.
        parent: Id of the parent process, with which the runner ends.
        run: Runs a method; replaced in tests.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        sandbox: Sandbox,
        limits: Limits,
        config: RunConfig,
        *,
        parent: int | None = None,
        run: RunMethod = run_method,
    ) -> None:
        super().__init__(settings, database, parent=parent)
        self._sandbox, self._limits, self._config, self._run = sandbox, limits, config, run
        self._handlers = {"run": self._verify_entry}

    def _prepare(self) -> None:
        """Make the runner's own folder, private, because it holds originals of sealed draws."""
        self._config.home.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _send_heartbeat(self) -> None:
        """Record that this runner is running."""
        if time.monotonic() - self._last_heartbeat > self.settings.lease_seconds / 3:
            queue.record_heartbeat(self.database, self.name, "", runs_methods=True)
            self._last_heartbeat = time.monotonic()

    @property
    def max_attempts(self) -> int:
        """More than of the scoring worker: a run takes long, and each attempt goes on where the last one stopped."""
        return 10 * self.settings.job_attempts

    def _fail(self, job: Job, error: str) -> None:
        """Mark a job as failed for a reason of this machine."""
        with self.database.write_session() as session:
            queue.complete(session, job, error=error)
            reason = "The runner could not run it, which is the server's fault. Its operator can retry it."
            runs.fail_run(session, job.subject, reason, ACTOR, reject=False)

    def _verify_entry(self, job: Job) -> None:
        """Run the method of an entry on public and sealed draws."""
        with self.database.write_session() as session:
            entry = session.get_one(Entry, job.subject)
            if entry.state in {"withdrawn", "rejected"}:
                queue.complete(session, job)
                return
            run = runs.start_run(session, entry.id, self.name)
            board = session.get_one(Board, entry.board_id)
            claimed = Manifest.model_validate(entry.manifest)
            code = dict(run.code)
            session.flush()
            session.expunge_all()
        try:
            reruns = self._run_on_draws(job, board, code, claimed)
        except MethodFailedError as error:
            log.info("entry %s cannot be verified: %s", entry.id, error)
            with self.database.write_session() as session:
                queue.complete(session, job)
                runs.fail_run(session, entry.id, str(error), ACTOR)
            return
        except KeyboardInterrupt:
            with self.database.write_session() as session:
                queue.retry_later(session, job, "the runner was stopped", delay=0)
            raise
        manifest, cost = reruns["public"].run.manifest, _shown_cost(reruns["sealed"].measured)
        seals.receive_verified_runs(
            self.database,
            self.settings,
            entry.id,
            {draws: rerun.run.folder for draws, rerun in reruns.items()},
            actor=ACTOR,
            report=self._report(reruns),
            job=job,
            record=lambda session, row: runs.finish_run(
                session, row, manifest, cost, names.shown_method(manifest, row.submitter)
            ),
        )

    def _run_on_draws(self, job: Job, board: Board, code: dict[str, Any], claimed: Manifest) -> dict[Draws, Rerun]:
        """The runs on public and sealed draws."""
        method = MethodCode(code["name"], code["parameters"], code["source"], code["class_name"])
        config = replace(self._config, home=self._config.home / board.pack_sha256[:16])
        label = claimed.row if claimed.models else ""
        reruns: dict[Draws, Rerun] = {}
        for draws, (task, bundle) in seals.board_draws(self.settings, board).items():
            import_originals(task, bundle.folder, config)

            report = partial(self._report_progress, job.subject, draws)
            rerun = self._run(task, method, label, self._sandbox, self._limits, config, report)
            _check_identity(rerun, claimed)
            reruns[draws] = rerun
        return reruns

    def _report_progress(self, entry_id: str, draws: Draws, text: str) -> None:
        with self.database.write_session() as session:
            runs.report_progress(session, entry_id, f"{draws} draws: {text}")

    def _report(self, reruns: dict[Draws, Rerun]) -> dict[str, Any]:
        return {
            "runner": self.name,
            "sandbox": self._sandbox.name,
            "environment": environment(self._config.env().device),
            "measured": {draws: rerun.measured.model_dump(mode="json") for draws, rerun in reruns.items()},
        }


def _shown_cost(measured: MeasuredCost) -> dict[str, Any]:
    """The cost that the row shows: that on sealed draws, which the method's author has never seen."""
    return {**measured.model_dump(mode="json"), "cost_class": measured.cost_class, "relative": measured.relative}


def _check_identity(rerun: Rerun, claimed: Manifest) -> None:
    """Refuse reserved and deceptive names, which the file chooses when it runs, and a claim whose source was another.

    Raises:
        MethodFailedError: It is one of both.
    """
    method = rerun.run.manifest.method
    if errors := [*text_errors(method.model_dump(mode="json")), *names.check_names(rerun.run.manifest)]:
        raise MethodFailedError(f"The submitted file chose a name that is refused: {errors[0].message}.")
    if claimed.models and claimed.method.fingerprint != method.fingerprint:
        raise MethodFailedError(
            "The claimed evidence was made by other source, or by another version of this package's methods, than what "
            "runs here. Make the run again with the version that this server has, and submit that."
        )


def run_runner(
    settings: Settings,
    *,
    trust_code: bool = False,
    container: str = "",
    limits: Limits | None = None,
    config: RunConfig | None = None,
    parent: int | None = None,
) -> None:
    """Run submitted methods until SIGINT or SIGTERM; the current job is given back to the queue.

    Args:
        settings: Configuration of the server.
        trust_code: Run submitted code without a sandbox.
        container: Image of a container to use as the sandbox.
        limits: Limits of one call of a method.
        config: Device and image sets; its home is replaced by the runner's.
        parent: Id of the parent process, with which the runner ends.

    Raises:
        UsageError: There is no sandbox on this machine, or the database is not usable.
    """
    leaderboard_logging.configure(settings.log_level)
    sandbox = find_sandbox(trust_code=trust_code, container=container, hidden=[settings.server_folder])
    with open_database(settings) as database:
        home = settings.runner
        runner = Runner(
            settings, database, sandbox, limits or Limits(), replace(config or RunConfig(), home=home), parent=parent
        )

        def stop(_signal: int, _frame: FrameType | None) -> None:
            runner.stop()
            raise KeyboardInterrupt  # a method may run for an hour; its finished models are in the store

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        try:
            runner.run()
        except KeyboardInterrupt:
            log.info("runner %s stopped", runner.name)


def run_supervised_runner() -> None:
    """Entry point of the process that `serve` starts: settings and parent id come from standard input."""
    message = json.load(sys.stdin)
    settings = Settings.model_validate(message["settings"])
    try:
        run_runner(settings, parent=message["parent"])
    except UsageError as error:
        log.warning("no runner, so that nothing is verified: %s", error)
        sys.exit(UNAVAILABLE)


if __name__ == "__main__":
    run_supervised_runner()
