"""Bring a server's board to this machine: its originals get a home of their own, separate from locally trained ones."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from forgetbench.errors import UsageError
from forgetbench.evidence.reference import PACK, ReferenceBundle, ReferenceManifest, read_pack
from forgetbench.leaderboard.client.submit import pull_bundle
from forgetbench.runner.config import RunConfig
from forgetbench.runner.jobs import TrainJob
from forgetbench.runner.train import import_original
from forgetbench.store import replace_folder
from forgetbench.tasks.task import Task, read_task


def pull_board(name: str, server: str, config: RunConfig, *, pack: str = "") -> tuple[Task, RunConfig]:
    """Fetch a board's originals into a home of their own, in which methods can run from them.

    There is one home for each reference bundle, so that an interrupted run resumes and local originals are not touched.

    Args:
        name: The board's task.
        server: The leaderboard's address.
        config: Where and how a run would work without the board.
        pack: The first characters of the hash of a reference bundle, which may be superseded; "" is the current one.

    Returns:
        The task with the board's counts, and the configuration with the board's home.

    Raises:
        UsageError: The board's definition of the task differs from the local one.
        ForgetBenchError: The server has no such board, or cannot be reached.
    """
    with TemporaryDirectory(prefix="forgetbench-") as place:
        folder = pull_bundle(name, server, Path(place) / "pack", pack=pack)
        card = read_pack(folder, verify=False).card
        here = replace(config, home=config.home / "boards" / card.digest[:12])
        task = read_task(name).with_counts(seeds=card.seeds, draws=card.draws)
        import_originals(task, folder, here)
    return task, here


@dataclass(frozen=True)
class ImportedOriginals:
    """Originals of a board that were put into the store."""

    count: int
    """Number of originals of the board."""
    replaced: tuple[int, ...]
    """Seeds at which another original was replaced."""


def import_originals(task: Task, pack: Path, config: RunConfig) -> ImportedOriginals:
    """Put the originals of a board's reference bundle into the store, so that runs start from them.

    Raises:
        UsageError: The bundle's definition of the task differs from the local one.
        ForgetBenchError: The bundle contains no originals.
    """
    card = read_pack(pack, verify=False).card
    _check_definition(card, task)
    env = config.env()
    replaced = []
    for seed, sha256 in enumerate(card.originals):
        job = TrainJob(task=task, env=env, role="original", seed=seed)
        if import_original(job, pack / "models" / f"s{seed}.safetensors", sha256):
            replaced.append(seed)
    return ImportedOriginals(len(card.originals), tuple(replaced))


def pull_development_bundle(task: Task, server: str, config: RunConfig, *, pack: str = "") -> ReferenceBundle:
    """Fetch the development bundle of a board to where runs of the task's development version are scored.

    Raises:
        UsageError: The bundle's definition of the task differs from the local one.
        ForgetBenchError: The server has no such bundle, or cannot be reached.
    """
    with TemporaryDirectory(prefix="forgetbench-") as place:
        folder = pull_bundle(task.name, server, Path(place) / "pack", pack=pack, kind="development")
        card = read_pack(folder).card
        local = task.development().with_counts(seeds=card.seeds, draws=card.draws)
        _check_definition(card, local)
        target = config.results.reference_folder(local.name, local.key, local.draws, local.seeds)
        replace_folder(target, lambda new: _copy_files(folder, new), marker=PACK)
    return read_pack(target)


def _copy_files(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _check_definition(card: ReferenceManifest, task: Task) -> None:
    if card.task_key != task.key:
        raise UsageError(
            f"The board's {card.task} differs from the local definition (task keys {card.task_key[:12]} and "
            f"{task.key[:12]}). Install the version of forgetbench that the board uses."
        )
