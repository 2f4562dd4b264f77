"""How to cite an entry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from forgetbench.latex import latex

if TYPE_CHECKING:
    from forgetbench.leaderboard.entries import Whole


def bibtex(whole: Whole, base: str) -> str:
    """The entry as a BibTeX record."""
    entry, board = whole.entry, whole.board
    key = re.sub(r"[^a-z0-9]+", "-", f"forgetbench-{entry.method}-{entry.id[:6]}".lower()).strip("-")
    fields = {
        "title": f"{{{latex(entry.label)} on {latex(board.task)}}}",
        "author": f"{{{latex(entry.submitter)}}}",
        "howpublished": f"ForgetBench leaderboard, protocol {board.protocol}",
        "year": str(entry.received_at.year),
        "note": f"Entry {entry.id}, pack {board.pack_sha256[:12]}",
        "url": f"{base}/entries/{entry.id}",
    }
    lines = ",\n".join(f"  {name:<12} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}\n}}"
