"""Tables and figures as one page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence

from forgetbench.reporting.table_writer import Table


def to_html(tables: Sequence[Table], figures: Sequence[Sequence[str]] = ()) -> str:
    """Tables as one self-contained page.

    Args:
        tables: The tables.
        figures: For each table, and then for all together, the figures below it, as HTML.
    """
    parts = [_HEAD]
    for number, table in enumerate(tables):
        parts.append(f"<h2>{html.escape(table.title)}</h2>{table_html(table)}")
        parts += figures[number] if number < len(figures) else ()
    for more in figures[len(tables) :]:
        parts += ["<h2>All tasks</h2>", *more] if more else ()
    return "\n".join([*parts, "</main></html>\n"])


def table_html(table: Table) -> str:
    """A table with its notes."""
    head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in table.header)
    cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div><ul>{notes}</ul>"


_HEAD = """<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>ForgetBench report</title><style>
:root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:.25rem .7rem;text-align:left;border-bottom:1px solid color-mix(in srgb,currentColor 18%,transparent)}
figure{margin:2rem 0}figure img{background:#fff;max-width:100%;height:auto}figcaption{max-width:46rem;margin-top:.5rem}
</style><main><h1>ForgetBench report</h1>"""
