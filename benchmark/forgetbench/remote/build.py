"""Build a sealed board on the server's machine: its public and sealed draws, and its development bundle."""

from __future__ import annotations

from dataclasses import replace

from forgetbench.auditing.run import audit_task
from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.reference import BundleKind
from forgetbench.leaderboard.db.models import Board
from forgetbench.leaderboard.db.session import open_database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import seals
from forgetbench.runner.config import NullProgress, ProgressCallback, RunConfig
from forgetbench.runner.display import write_display
from forgetbench.runner.run import run
from forgetbench.tasks.task import Task


def build_sealed_board(
    task: Task, settings: Settings, config: RunConfig, progress: ProgressCallback | None = None, *, audit: bool = False
) -> Board:
    """Train the originals and oracles of a board's draws and of its development bundle, and install the board.

    The seeds of everything hidden derive from the server's salt. All models are kept in the server's folder, so that an
    interrupted build resumes, and no other run on this machine uses them.

    Args:
        task: The task with its counts of seeds and draws.
        settings: Folders and database of the server.
        config: Device and worker processes; its home is not used.
        progress: Progress callback.
        audit: Also test the metrics on both kinds of draws; those that fail do not rank.

    Raises:
        UsageError: The server's folder or salt is not usable, or the task's images are missing.
        ForgetBenchError: A worker died, or a file is damaged.
    """
    with open_database(settings) as database:
        with database.read_session() as session:
            seal = seals.round_seal(settings, task, seals.next_round(session, task.name))
        settings.sealed_home.mkdir(mode=0o700, exist_ok=True)
        chosen = replace(config, home=settings.sealed_home)
        versions: dict[BundleKind, Task] = {
            "public": task.with_hidden_oracles(seal.salt),
            "sealed": task.with_sealed_draws(seal.salt),
            "development": task.development(),
        }
        if audit:
            for kind in ("public", "sealed"):
                audit_task(versions[kind], chosen, progress or NullProgress())
        runs = run(list(versions.values()), lambda _: [], chosen, progress)
        bundles = {kind: done.reference.folder for kind, done in zip(versions, runs, strict=True) if done.reference}
        if len(bundles) < len(versions):
            raise ForgetBenchError("A board needs oracles. Build it without skipping them.")
        write_display(bundles["public"], versions["public"], chosen)
        return seals.install_sealed_board(database, settings, bundles, seal)
