"""A board of another machine, here: its originals in a home of their own, beside whatever was trained here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from forgetbench.leaderboard.client import pull_pack
from forgetbench.packs import read_pack
from forgetbench.store import digest
from forgetbench.suite import Options, adopt_originals
from forgetbench.tasks import Task, read_task


def bring(name: str, server: str, options: Options, *, pack: str = "") -> tuple[Task, Options]:
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
        folder = pull_pack(name, server, Path(place) / "pack", pack=pack)
        card = read_pack(folder, verify=False).card
        here = replace(options, home=options.home / "boards" / digest(card.model_dump(mode="json"))[:12])
        task = read_task(name).with_counts(seeds=card.seeds, draws=card.draws)
        adopt_originals(task, folder, here)
    return task, here
