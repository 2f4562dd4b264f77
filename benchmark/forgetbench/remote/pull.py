"""A board of another machine, here: its originals in a home of their own, beside whatever was trained here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from forgetbench.errors import UsageError
from forgetbench.evidence.reference import read_pack
from forgetbench.leaderboard.client.submit import pull_bundle
from forgetbench.runner.config import RunConfig
from forgetbench.runner.train import adopt
from forgetbench.store import digest
from forgetbench.tasks.task import Task, read_task


def bring(name: str, server: str, options: RunConfig, *, pack: str = "") -> tuple[Task, RunConfig]:
    """Fetch a board's originals; what runs from them works, and is kept, apart from the user's own results.

    The home is one for each pack, so that a run that was killed continues, and originals that were trained here stay.

    Args:
        name: The board's task.
        server: The leaderboard's address.
        options: Where and how a run would work without the board.
        pack: The beginning of a pack's hash, of a board that may be superseded; "" is the present board's.

    Returns:
        The task with the board's counts, and the options with the board's home.

    Raises:
        UsageError: The task is defined otherwise here than on the board.
        ForgetBenchError: The server has no such board, or cannot be reached.
    """
    with TemporaryDirectory(prefix="forgetbench-") as place:
        folder = pull_bundle(name, server, Path(place) / "pack", pack=pack)
        card = read_pack(folder, verify=False).card
        here = replace(options, home=options.home / "boards" / digest(card.model_dump(mode="json"))[:12])
        task = read_task(name).with_counts(seeds=card.seeds, draws=card.draws)
        adopt_originals(task, folder, here)
    return task, here


@dataclass(frozen=True)
class Adopted:
    """Originals of a board that were put into the store."""

    count: int
    """How many there are now."""
    replaced: tuple[int, ...]
    """Seeds of those that stand where another original was."""


def adopt_originals(task: Task, pack: Path, options: RunConfig) -> Adopted:
    """Put the originals of a board's pack into the store, so that runs start from them.

    Raises:
        UsageError: The pack is of another definition of the task than the one here.
        ForgetBenchError: It holds no originals.
    """
    card = read_pack(pack, verify=False).card
    if card.task_key != task.key:
        raise UsageError(
            f"The board's {card.task} is defined otherwise than the one here (task keys {card.task_key[:12]} and "
            f"{task.key[:12]}): install the version of forgetbench that the board uses."
        )
    replaced = []
    for seed, sha in enumerate(card.originals):
        done = adopt(
            {
                "task": task.model_dump(mode="json"),
                "site": options.site().__dict__,
                "role": "original",
                "seed": seed,
                "weights": str(pack / "models" / f"s{seed}.safetensors"),
                "sha256": sha,
            }
        )
        if done["replaced"]:
            replaced.append(seed)
    return Adopted(len(card.originals), tuple(replaced))
