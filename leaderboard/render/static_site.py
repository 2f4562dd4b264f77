"""The boards and entries as plain files that outlive the server: its own pages, with links to files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.orm import Session

from forgetbench.leaderboard.boards import entries, queries
from forgetbench.leaderboard.boards.matrix import MatrixView
from forgetbench.leaderboard.boards.view import PageView
from forgetbench.leaderboard.db.models import Board, Entry
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.render import exports
from forgetbench.leaderboard.render.board_page import PageChart, board_context, chart_axes, draw_chart
from forgetbench.leaderboard.render.front_page import front_page
from forgetbench.leaderboard.render.templates import STATIC, Pages
from forgetbench.leaderboard.settings import Settings

_LINK = re.compile(r'(href|src)="([/?][^"]*)"')
"""A link on this site; submitted text cannot look like one, because its quotes are escaped."""


def export(session: Session, settings: Settings, folder: Path, base: str) -> Sequence[Path]:
    """Write the pages of all boards, superseded ones included, and of all their entries.

    Args:
        session: Where to read.
        settings: Settings of the site.
        folder: Where to write; created if it does not exist.
        base: Address of the server, for links to pages that are not written.

    Returns:
        Pages and tables, without style sheet and script.
    """
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    shutil.copytree(STATIC, folder / "static", dirs_exist_ok=True)
    pages, boards = Pages(settings, static=True), queries.all_boards(session)
    files = {exports.board_url(board, ""): _name(board) for board in boards}
    written: list[Path] = []

    def write(path: Path, page: bytes, url: str) -> None:
        path.write_text(_LINK.sub(_relinker(files, base, url, path.parent != folder), page.decode()), encoding="utf-8")
        written.append(path)

    for board in boards:
        name, url = _name(board), exports.board_url(board, "")
        view = PageView(columns="all", pack=board.pack_sha256 if board.superseded_at else "")
        table = queries.board_page(session, board, view, None)
        for ending, writer in exports.BOARD_WRITERS.items():
            written.append(folder / f"{name}.{ending}")
            written[-1].write_text(writer(table, base), encoding="utf-8")
        drawn = [(x, y, draw_chart(session, board, x, y)) for x, y in chart_axes(board, view)]
        context = board_context(session, board, view, None, [PageChart(*chart) for chart in drawn if chart[2]])
        write(folder / f"{name}.html", pages.render("board.html", program="", base=base, **context), url)
        query = select(Entry.id).where(Entry.board_id == board.id, Entry.state.in_(PUBLIC_STATES)).order_by(Entry.id)
        for entry_id in session.scalars(query).all():
            context = entries.template_context(entries.get_entry(session, entry_id), base)
            write(
                folder / "entries" / f"{entry_id}.html", pages.render("entry.html", **context), f"/entries/{entry_id}"
            )
            session.expunge_all()
    superseded = [board for board in queries.all_boards(session) if board.superseded_at]
    overview = pages.render("overview.html", superseded=superseded, **front_page(session, MatrixView(), ()))
    write(folder / "index.html", overview, "/")
    return written


def _name(board: Board) -> str:
    """Name of a board's files, without an ending."""
    name = board.task.replace("/", "--")
    ambiguous = "--" in board.task
    return f"{name}--{board.pack_sha256[:12]}" if board.superseded_at or ambiguous else name


def _relinker(files: dict[str, str], base: str, url: str, in_folder: bool) -> Callable[[re.Match[str]], str]:
    """A function that points a link to its file, or to the server where it has none.

    Args:
        files: Address of each board -> name of its files.
        base: Address of the server.
        url: Address of the page on the server, to which links with only a query belong.
        in_folder: Whether the page is in a folder of its own.
    """
    root = "../" if in_folder else ""
    addresses = {quote(address, safe="/?="): name for address, name in files.items()}

    def relink(match: re.Match[str]) -> str:
        address = unescape(match[2])
        path, _, query = address.partition("?")
        if address.startswith("?"):
            target = f"{base}{url.partition('?')[0]}{match[2]}"
        elif path.startswith("/static/"):
            target = root + path[1:]
        elif path == "/":
            target = f"{root}index.html"
        elif address in addresses:
            target = f"{root}{addresses[address]}.html"
        elif path.startswith("/entries/") and "." not in path and not query:
            target = f"{root}{path[1:]}.html"
        else:
            target = f"{base}{match[2]}"
        return f'{match[1]}="{target}"'

    return relink
