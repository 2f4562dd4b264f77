"""The commands that run an entry again: made here, for what a submitter wrote is nothing to paste into a shell."""

from __future__ import annotations

import re
import shlex

from forgetbench.evidence import Manifest
from forgetbench.leaderboard.models import Board, Entry
from forgetbench.methods import methods

_NAME = re.compile(r"[A-Za-z_]\w*")
_WORD = re.compile(r"[\w.+-]+", re.ASCII)


def commands(entry: Entry, board: Board, manifest: Manifest, server: str) -> list[str]:
    """Command lines, one after the other; each word is quoted.

    A method that has a name here is run by it; anything else by ``reproduce``, which runs a stranger's source only when
    it is told to.
    """
    if entry.tier == "reference":
        words = ["forgetbench", "pack", "build", board.task, "--seeds", str(board.seeds), *_draws(board)]
        return [shlex.join(words)]
    row = _registered(manifest)
    if row is None:
        return [shlex.join(["forgetbench", "reproduce", "--submission", entry.id, "--server", server])]
    pack = ["--pack", board.pack_sha256[:12]] if board.superseded_at else []
    counts = ["--seeds", str(board.seeds), *_draws(board)]
    return [
        shlex.join(["forgetbench", "pack", "pull", board.task, "--server", server, *pack]),
        shlex.join(["forgetbench", "run", board.task, *counts, "--evidence-only", "--method", row]),
    ]


def _draws(board: Board) -> list[str]:
    return ["--draws", str(board.draws)] if board.draws > 1 else []


def _registered(manifest: Manifest) -> str | None:
    """The method as ``run --method`` takes it; None where it has no name here, or a value has no place in a word."""
    method = manifest.method
    if method.source is not None or method.observed or method.name not in methods:
        return None
    values = []
    for name, value in method.parameters.items():
        text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
        if not _NAME.fullmatch(name) or not isinstance(value, None | bool | int | float | str):
            return None
        if not _WORD.fullmatch(text):
            return None
        values.append(f"{name}={text}")
    return method.name + (":" + ",".join(values) if values else "")
