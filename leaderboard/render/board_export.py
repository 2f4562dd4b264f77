"""A view of a board as a file: exactly its rows and columns, in full precision."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator

from forgetbench._text import latex, latex_signs
from forgetbench.leaderboard.boards.queries import Page, Row
from forgetbench.leaderboard.render import formatting
from forgetbench.leaderboard.render import serializers as documents

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def address(page: Page, base: str) -> str:
    """Where the board of a view stands on the server."""
    board = page.board
    return f"{base}/boards/{board.task}" + (f"?pack={board.pack_sha256[:12]}" if board.superseded_at else "")


def as_json(page: Page, base: str) -> bytes:
    """The board's document, as the API gives it."""
    return json.dumps({**documents.board(page, None), "url": address(page, base)}, indent=1).encode()


def as_csv(page: Page, base: str) -> bytes:
    """One row for each entry; every metric as value, ends of its interval, and z; units in the head."""
    head = ["id", "rank_low", "rank_high", "method", "label", "distance [oracle sd]", "distance_low", "distance_high"]
    for column in page.columns:
        unit = f" [{column.unit}]" if column.unit else ""
        head += [f"{column.name}{unit}", f"{column.name}_low", f"{column.name}_high", f"{column.name}_z"]
    head += ["cost [share of retraining's FLOPs]", "flags", "status", "reasons", "tier", "submitter", "received", "url"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(head)
    for row in _rows(page):
        entry, placing = row.entry, row.placing
        line: list[object] = [
            entry.id,
            placing.low if placing else "",
            placing.high if placing else "",
            guarded(entry.method),
            guarded(entry.label),
            _exact(entry.distance),
            _exact(entry.distance_low),
            _exact(entry.distance_high),
        ]
        for column in page.columns:
            cell = row.cells.get(column.name)
            line += [_exact(number) for number in (cell.value, cell.low, cell.high, cell.z)] if cell else [""] * 4
        line += [
            _exact(entry.cost),
            guarded(" ".join(entry.flags or [])),
            guarded(entry.status or ""),
            guarded("; ".join(entry.reasons or [])),
            entry.tier,
            guarded(entry.submitter),
            entry.received_at.isoformat(),
            f"{base}/entries/{entry.id}",
        ]
        writer.writerow(line)
    return stream.getvalue().encode()


def as_markdown(page: Page, base: str) -> bytes:
    """A table as the page shows it, for an issue or a README."""
    head, lines = _shown(page, markdown_text)
    linked = []
    for row, cells in zip(_rows(page), lines, strict=True):
        cells[1] = f"[{cells[1]}]({base}/entries/{row.entry.id})"
        linked.append(cells)
    rule = ["---", "---", *("--:" for _ in head[2:])]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *linked))
    return f"{table}\n\n{markdown_text(_caption(page))}: <{address(page, base)}>\n".encode()


def as_latex(page: Page, base: str) -> bytes:
    """A booktabs table as the page shows it."""
    head, lines = _shown(page, latex)
    head = [latex_signs(name) for name in head]
    body = [" & ".join(latex_signs(cell) for cell in cells) + r" \\" for cells in lines]
    split = len(page.references)
    parts = [
        f"% {address(page, base)}, pack {page.board.pack_sha256[:12]}",
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *body[:split],
        *([r"\midrule"] if split else []),
        *body[split:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return ("\n".join(parts) + "\n").encode()


FORMATS: dict[str, tuple[str, Callable[[Page, str], bytes]]] = {
    "json": ("application/json", as_json),
    "csv": ("text/csv; charset=utf-8", as_csv),
    "md": ("text/markdown; charset=utf-8", as_markdown),
    "tex": ("application/x-tex; charset=utf-8", as_latex),
}
"""Ending of the address -> media type and writer."""


def guarded(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _exact(number: float | None) -> str:
    return "" if number is None else repr(number)


def _rows(page: Page) -> Iterator[Row]:
    yield from page.references
    yield from page.rows


def _shown(page: Page, text: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
    units = [f", {column.shown_unit}" if column.shown_unit else "" for column in page.columns]
    titles = [f"{column.title}{unit}" for column, unit in zip(page.columns, units, strict=True)]
    head = [text(title) for title in ("Rank", "Method", "Distance", *titles, "Cost")]
    lines = []
    for row in _rows(page):
        entry, placing = row.entry, row.placing
        rank = (
            formatting.rank_text(placing.low, placing.high) if placing else "ref" if entry.tier == "reference" else "–"
        )
        distance = formatting.estimate(entry.distance, entry.distance_low, entry.distance_high)
        cells = [formatting.cell_text(row.cells.get(column.name), column) for column in page.columns]
        lines.append([rank, text(entry.label), distance, *cells, text(formatting.per_cent(entry.cost))])
    return head, lines


def _caption(page: Page) -> str:
    board = page.board
    return f"{board.task}, protocol {board.protocol}, {board.seeds} seeds, values ± half of the 95 % interval"


def markdown_text(text: str) -> str:
    """Text that stays text in Markdown."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_[]|#~!" else character for character in plain)
