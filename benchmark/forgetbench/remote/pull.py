"""Bring a server's board to this machine: its originals get a home of their own, separate from locally trained ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from forgetbench.errors import UsageError
from forgetbench.evidence.reference import read_pack
from forgetbench.leaderboard.client.submit import pull_bundle
from forgetbench.runner.config import RunConfig
from forgetbench.runner.jobs import TrainJob
from forgetbench.runner.train import import_original
from forgetbench.store import digest
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
        here = replace(config, home=config.home / "boards" / digest(card.model_dump(mode="json"))[:12])
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
    if card.task_key != task.key:
        raise UsageError(
            f"The board's {card.task} differs from the local definition (task keys {card.task_key[:12]} and "
            f"{task.key[:12]}). Install the version of forgetbench that the board uses."
        )
    env = config.env()
    replaced = []
    for seed, sha256 in enumerate(card.originals):
        job = TrainJob(task=task, env=env, role="original", seed=seed)
        if import_original(job, pack / "models" / f"s{seed}.safetensors", sha256):
            replaced.append(seed)
    return ImportedOriginals(len(card.originals), tuple(replaced))
