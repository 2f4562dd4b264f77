"""Repeat a claimed attack on the server's machine: with the board's own models, so that its result may set a flag."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.attacks import MANIFEST, REFERENCE_POPULATIONS, AttackManifest, read_attacked
from forgetbench.evidence.run import Manifest
from forgetbench.leaderboard.boards.entries import method_label
from forgetbench.leaderboard.db import states
from forgetbench.leaderboard.db.models import Board, Entry, KnownAttack
from forgetbench.leaderboard.db.session import open_database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import attacks, reference, seals
from forgetbench.runner.attack_run import run_attacks
from forgetbench.runner.attack_spec import AttackSpec, parse_attacks
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.failures import error_of
from forgetbench.runner.method_spec import parse_methods
from forgetbench.store import digest
from forgetbench.tasks.task import Task, read_task

ACTOR = "runner"
"""Author of the runner's records."""


def repeat_attack(
    settings: Settings, record_id: str, config: RunConfig, progress: ProgressCallback | None = None
) -> str:
    """Run a claimed attack again on the entry's method and on the board's originals and oracles.

    Models that are in the store are not trained again; those of a sealed board are in the server's folder.

    Args:
        settings: Folders and database of the server.
        record_id: The claimed record.
        config: Device and worker processes; its home is used for boards that are not sealed.
        progress: Progress callback.

    Returns:
        The id of the runner's record, which the worker scores.

    Raises:
        UsageError: There is no such record, or its attack or method is not of this package: no foreign code runs here.
        ForgetBenchError: A job failed, or this machine's models are not the board's.
    """
    with open_database(settings) as database:
        with database.read_session() as session:
            record = session.get(KnownAttack, record_id) if "\0" not in record_id else None
            if record is None:
                raise UsageError(f"There is no attack with the id {record_id!r}. The page of an entry lists them.")
            entry = session.get_one(Entry, record.entry_id)
            board = session.get_one(Board, entry.board_id)
            session.expunge_all()
        claimed = read_attacked(settings.evidence / record.id / "row").manifest
        spec, rows = _attack_of(claimed), _rows_of(entry)
        task, chosen = _task_of(settings, board, config)
        done = run_attacks(task, [spec], lambda one: parse_methods(rows, [], one.setting), chosen, progress)
        if done.failed:
            raise error_of(done.failed, done.jobs)
        if done.refusals:
            raise UsageError(f"{claimed.attack.label} does not apply to {board.task}: {done.refusals[spec.label]}.")
        settings.incoming.mkdir(parents=True, exist_ok=True)
        folder = settings.incoming / f"{states.new_id()}.attack"
        try:
            _collect(done.folders[0], entry, folder)
            populations = {name: read_attacked(folder / name) for name in attacks.POPULATIONS}
            if problems := attacks.check_populations(populations, entry, reference.load_bundle(settings, board)):
                raise ForgetBenchError(
                    f"This machine's models are not the board's: {problems[0].field} {problems[0].message}. Run it on "
                    "the machine that built the board."
                )
            sha256 = digest(populations["row"].manifest.model_dump(mode="json"))
            return attacks.store_attack(database, settings, entry, populations, sha256, folder, None, author=ACTOR)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _attack_of(claimed: AttackManifest) -> AttackSpec:
    """The attack of a record, as this package has it."""
    if claimed.attack.source is not None:
        raise UsageError(
            f"{claimed.attack.label} is in a file of its author, and the runner runs no foreign attack. Review its "
            "source; an installed package can offer it by the entry point forgetbench.attacks."
        )
    [spec] = parse_attacks([claimed.attack.label])
    if spec.record() != claimed.attack:
        raise UsageError(f"{claimed.attack.label} of this package is another attack: options or fingerprint differ.")
    return spec


def _rows_of(entry: Entry) -> list[str]:
    """The method of an entry as a command line names it; none for the reference rows."""
    if entry.baseline:
        return []
    label = method_label(Manifest.model_validate(entry.manifest)) if entry.registered else None
    if label is None:
        raise UsageError(f"{entry.label} is no method of this package, so its models cannot be made again here.")
    return [label]


def _task_of(settings: Settings, board: Board, config: RunConfig) -> tuple[Task, RunConfig]:
    """The task of a board's public draws, and where its models are."""
    if board.sealed:
        return seals.board_draws(settings, board)["public"].task, replace(config, home=settings.sealed_home)
    return read_task(board.task).with_counts(seeds=board.seeds, draws=board.draws), config


def _collect(source: Path, entry: Entry, folder: Path) -> None:
    """Copy the populations of an attack into a folder in the form of a body."""
    places = {name: source / name for name in REFERENCE_POPULATIONS}
    rows = [path.parent for path in sorted((source / "rows").glob(f"*/{MANIFEST}"))]
    same = [row for row in rows if read_attacked(row).manifest.method_fingerprint == entry.fingerprint]
    if not same:
        raise ForgetBenchError(f"{entry.label} failed when it was run again, so there is nothing to attack.")
    for name, place in {**places, "row": same[-1]}.items():
        shutil.copytree(place, folder / name)
