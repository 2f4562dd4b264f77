"""The boards as plain files that outlive the server: no program, and no address that only the server answers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from forgetbench.leaderboard.boards import charts, entries
from forgetbench.leaderboard.boards import queries as boards
from forgetbench.leaderboard.boards.view import View
from forgetbench.leaderboard.db.models import Board, Entry, utc_now
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.render import board_export as exports
from forgetbench.leaderboard.render.templates import STATIC, Pages
from forgetbench.leaderboard.settings import Settings

_ADDRESS = re.compile(r'(href|src)="/([^"]*)"')
"""An address on this server; what was submitted cannot look like one, for its quotes are escaped."""


def export(session: Session, settings: Settings, folder: Path, base: str) -> Sequence[Path]:
    """Write every board, the superseded ones too, and the page of every entry on one.

    Args:
        session: Where to read.
        settings: Of the site.
        folder: Where to write; made if it is not there.
        base: Address of the server, for the links in the files that lead to it.

    Returns:
        Pages and tables; not the pictures and what they look like.
    """
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    shutil.copytree(STATIC, folder / "static", dirs_exist_ok=True)
    pages, now = Pages(settings), utc_now()
    found = boards.every(session)
    names = {board.id: _name(board) for board in found}
    written: list[Path] = []
    for board in found:
        written += _board(session, pages, board, names[board.id], folder, base)
        written += _entries(session, pages, board, names[board.id], folder, base)
    listed = select(Entry.board_id, func.count()).where(Entry.state.in_(PUBLIC_STATES)).group_by(Entry.board_id)
    counts = {row[0]: row[1] for row in session.execute(listed)}
    index = folder / "index.html"
    index.write_bytes(pages.render("static_index.html", boards=found, names=names, counts=counts, base=base, now=now))
    return [*written, index]


def _name(board: Board) -> str:
    name = board.task.replace("/", "--")
    return f"{name}--{board.pack_sha256[:12]}" if board.superseded_at else name


def _board(session: Session, pages: Pages, board: Board, name: str, folder: Path, base: str) -> list[Path]:
    page = boards.page(session, board, View(columns="all"), None)
    written = []
    for ending, (_, write) in exports.FORMATS.items():
        written.append(folder / f"{name}.{ending}")
        written[-1].write_bytes(write(page, base))
    drawn = [drawing for axes in charts.default_axes(board) if (drawing := charts.draw(session, board, *axes))]
    pictures = [f"{name}-{drawing.x.key}-{drawing.y.key}.svg" for drawing in drawn]
    for drawing, picture in zip(drawn, pictures, strict=True):
        (folder / picture).write_bytes(pages.render("chart.svg", drawing=drawing))
    written.append(folder / f"{name}.html")
    told = {"page": page, "board": board, "name": name, "pictures": pictures, "base": base, "now": utc_now()}
    written[-1].write_bytes(pages.render("static.html", **told))
    return written


def _entries(session: Session, pages: Pages, board: Board, name: str, folder: Path, base: str) -> list[Path]:
    """The page of each entry as the server shows it, its links turned to the files here or to the server."""

    def turned(match: re.Match[str]) -> str:
        attribute, address = match[1], match[2]
        kind, _, rest = address.partition("/")
        if kind == "static":
            return f'{attribute}="../static/{rest.partition("?")[0]}"'
        if kind == "boards":
            return f'{attribute}="../{name}.html"'
        return f'{attribute}="../index.html"' if not address else f'{attribute}="{base}/{address}"'

    written = []
    query = select(Entry.id).where(Entry.board_id == board.id, Entry.state.in_(PUBLIC_STATES)).order_by(Entry.id)
    for identity in session.scalars(query).all():
        whole = entries.find(session, identity)
        body = pages.render("entry.html", alone=True, **entries.shown(whole, base))
        written.append(folder / "entries" / f"{identity}.html")
        written[-1].write_text(_ADDRESS.sub(turned, body.decode()), encoding="utf-8")
        session.expunge_all()
    return written
