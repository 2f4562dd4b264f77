"""Boards as tables: for the terminal, and as Markdown, LaTeX, CSV, JSON and HTML."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from forgetbench._text import latex, latex_signs
from forgetbench.evidence.reference import ReferenceManifest
from forgetbench.evidence.run import ModelRecord
from forgetbench.metrics import metrics, ranking_metrics
from forgetbench.scoring.scorecards import BoardRow, Scorecard, Value
from forgetbench.scoring.scorer import NO_UNLEARNING, RankedRuns, contends

EXTRA = ("accuracy.test",)
"""Metrics that a table shows beside the ranking ones; records hold all that there are."""


@dataclass(frozen=True)
class Table:
    """A board, ready to print."""

    title: str
    """The task."""
    header: tuple[str, ...]
    """Column heads."""
    rows: tuple[tuple[str, ...], ...]
    """Cells as they are read."""
    notes: tuple[str, ...]
    """What a reader must know, below the table."""
    records: tuple[dict[str, Any], ...]
    """The same rows in full precision."""


class Row(NamedTuple):
    """A row of a board."""

    card: Scorecard
    """Its scorecard."""
    place: BoardRow | None
    """Its place; None for the reference rows and for rows that were never to be ranked."""


def rows_in_order(standing: RankedRuns) -> list[Row]:
    """Ranked rows by place, the reference rows, then rows that take no place."""
    contestants = [
        index for index, manifest in enumerate(standing.manifests) if manifest is not None and contends(manifest)
    ]
    places = {contestants[row.index]: row for row in standing.board.rows}
    order = [index for index, row in places.items() if row.rank is not None]
    order += [index for index, manifest in enumerate(standing.manifests) if manifest is None]
    order += [index for index in range(len(standing.manifests)) if index not in order]
    return [Row(standing.scorecards[index], places.get(index)) for index in order]


def board_table(standing: RankedRuns, card: ReferenceManifest) -> Table:
    """A standing as a table: ranked rows, the reference rows, then rows that take no place."""
    computed = _computed(standing)
    shown = [name for name in (*(spec.name for spec in ranking_metrics(card.track)), *EXTRA) if name in computed]
    rows, records = [], []
    for scorecard, place in rows_in_order(standing):
        rows.append(
            (
                _place(place),
                scorecard.name,
                _distance(scorecard),
                *(_cell(name, scorecard.metrics.get(name)) for name in shown),
                _percent(scorecard.cost.flops),
                ", ".join(scorecard.flags),
            )
        )
        records.append(_record(scorecard, place, sorted(computed)))
    header = ("rank", "method", "distance", *(_head(name) for name in shown), "FLOPs", "flags")
    return Table(f"{card.task}: {card.title}", header, tuple(rows), _notes(standing, card), tuple(records))


def _computed(standing: RankedRuns) -> set[str]:
    return {name for card in standing.scorecards for name, value in card.metrics.items() if value.value is not None}


def _head(name: str) -> str:
    return f"{name} {metrics.get(name).arrow}"


def _place(row: BoardRow | None) -> str:
    if row is None or row.rank is None:
        return "–"
    return str(row.low) if row.low == row.high else f"{row.low}–{row.high}"


def _distance(card: Scorecard) -> str:
    if card.distance is None:
        return "–"
    value, low, high = card.distance.value, card.distance.low, card.distance.high
    half = f" ±{(high - low) / 2:.1f}" if low is not None and high is not None else ""
    return f"{value:.1f}{half}{' in' if card.distance.within_band else ''}"


def _cell(name: str, value: Value | None) -> str:
    if value is None or value.value is None:
        return "–"
    z = f" (z {value.z:+.1f})" if value.z is not None else ""
    return f"{metrics.get(name).display.text(value.value)}{z}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _record(card: Scorecard, place: BoardRow | None, shown: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "method": card.name,
        "status": card.status,
        "rank_low": place.low if place else None,
        "rank_high": place.high if place else None,
        "tie_group": place.group if place else None,
        "distance": card.distance.value if card.distance else None,
        "distance_low": card.distance.low if card.distance else None,
        "distance_high": card.distance.high if card.distance else None,
        "decided_by": card.distance.metric if card.distance else None,
        "inside_family_band": card.distance.within_band if card.distance else None,
    }
    for name in shown:
        value = card.metrics.get(name, Value())
        record |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high, f"{name}_z": value.z}
    record |= {
        "flops_share": card.cost.flops,
        "seconds": card.cost.seconds,
        "own_originals_accuracy": card.own_originals,
        "training_flops_share": card.cost.training,
        "flags": " ".join(card.flags),
        "reason": card.reason or card.exclusion_reason,
    }
    return record


def _notes(standing: RankedRuns, card: ReferenceManifest) -> tuple[str, ...]:
    bands, notes = standing.bands, []
    if standing.board.unranked_reason:
        notes.append(f"Informational board, nobody is ranked: {standing.board.unranked_reason}.")
    if bands.family_limit is not None:
        notes.append(
            f"{card.seeds} seeds, track {card.track}. Distance is the largest |z| over {', '.join(bands.ranking)}; "
            f"'in' marks what is inside the family band ({bands.family_limit:.2f}): not told from retraining."
        )
    notes += [f"Not ranking: {name} {bands.references[name].reason}." for name in bands.excluded_metrics]
    infeasible = [
        f"{name} ({reference.reason})" if reference.reason else name
        for name, reference in bands.references.items()
        if reference.feasible is False and name not in bands.excluded_metrics
    ]
    if infeasible:
        notes.append(f"Not ranking, since No unlearning is not told from retraining by it: {', '.join(infeasible)}.")
    if standing.board.detectable is not None and standing.board.detectable >= 0.01:
        notes.append(
            f"Differences of distances below {standing.board.detectable:.2f} are missed more than one time in five."
        )
    if standing.board.unranked_reason:
        silent = [(card.name, f"{card.status}: {card.reason}") for card in standing.scorecards if card.status != "ok"]
    else:
        silent = [(row.name, row.reason) for row in standing.board.rows if row.rank is None]
    notes += [f"{name}: {reason}." for name, reason in silent]
    return tuple(notes) + _notes_on_originals(standing) + _notes_on_relearning(standing)


def _notes_on_originals(standing: RankedRuns) -> tuple[str, ...]:
    """Utility and cost of the originals that methods trained for themselves."""
    board = next(card for card in standing.scorecards if card.name == NO_UNLEARNING).metrics["accuracy.test"].value
    notes = []
    for card in standing.scorecards:
        if card.own_originals is None or board is None:
            continue
        cost = f", trained with {card.cost.training:.2f} times the FLOPs of retraining" if card.cost.training else ""
        notes.append(
            f"{card.name}: takes no place, since it starts from originals of its own (test accuracy "
            f"{100 * card.own_originals:.1f} % beside the board's {100 * board:.1f} %{cost})."
        )
    return tuple(notes)


def _notes_on_relearning(standing: RankedRuns) -> tuple[str, ...]:
    """How fast the forgotten comes back, as whoever made the runs measured it."""
    notes = []
    for card, manifest in zip(standing.scorecards, standing.manifests, strict=True):
        ain = card.metrics.get("ain", Value())
        if not (manifest and manifest.models) or not all(
            "relearn.oracle" in model.measured for model in manifest.models
        ):
            continue
        mine, oracle = (_steps(manifest.models, name) for name in ("relearn", "relearn.oracle"))
        index = ain.reason if ain.value is None else f"{ain.value:.2f}"
        notes.append(
            f"{card.name}: relearns in {mine} steps, oracles in {oracle} (anamnesis index {index}), as measured by "
            "whoever ran it."
        )
    return tuple(notes)


def _steps(models: Sequence[ModelRecord], name: str) -> str:
    """The mean, or what it is at least where a model never came back."""
    bound = "" if all(model.measured[f"{name}.back"] for model in models) else "at least "
    return f"{bound}{fmean(model.measured[name] for model in models):.0f}"


def as_markdown(table: Table) -> str:
    """The table in Markdown."""
    lines = [f"### {table.title}", "", _line(table.header), _line("---" for _ in table.header)]
    lines += [_line(row) for row in table.rows]
    lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def as_latex(table: Table) -> str:
    """The table for LaTeX with booktabs; what a reader must know stands in its caption."""
    task = table.title.partition(":")[0]
    cells = [" & ".join(latex_signs(latex(cell)) for cell in row) + r" \\" for row in (table.header, *table.rows)]
    caption = " ".join([f"{table.title}.", *table.notes])
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{latex_signs(latex(caption))}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', task)}}}",
        rf"\begin{{tabular}}{{ll{'r' * (len(table.header) - 3)}l}}",
        r"\toprule",
        cells[0],
        r"\midrule",
        *cells[1:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def as_csv(tables: Sequence[Table]) -> str:
    """All tables in one CSV in full precision; cells that a spreadsheet would take for a formula are escaped."""
    records = [{"task": table.title.partition(":")[0], **record} for table in tables for record in table.records]
    columns = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: escape_formula(value) for name, value in record.items()} for record in records)
    return text.getvalue()


def escape_formula(value: Any) -> Any:
    """A text that begins with = + - @ or a control character gets an apostrophe in front; numbers stay."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def as_json(tables: Sequence[Table]) -> str:
    """All tables as JSON in full precision; what is no number is null."""
    boards = [
        {"task": table.title, "notes": table.notes, "rows": [_numbers(row) for row in table.records]}
        for table in tables
    ]
    return json.dumps(boards, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def as_html(tables: Sequence[Table], figures: Sequence[Sequence[str]] = ()) -> str:
    """All tables as one self-contained page.

    Args:
        tables: The boards.
        figures: For each board, and then for all together, the figures that stand below it, as HTML.
    """
    parts = [_HEAD]
    for number, table in enumerate(tables):
        cells = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in table.header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
        )
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
        parts.append(
            f"<h2>{html.escape(table.title)}</h2><div class=scroll><table><thead><tr>{cells}</tr></thead>"
            f"<tbody>{body}</tbody></table></div><ul>{notes}</ul>"
        )
        parts += figures[number] if number < len(figures) else ()
    for more in figures[len(tables) :]:
        parts += ["<h2>All tasks</h2>", *more] if more else ()
    return "\n".join([*parts, "</main></html>\n"])


_HEAD = """<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>ForgetBench report</title><style>
:root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:.25rem .7rem;text-align:left;border-bottom:1px solid color-mix(in srgb,currentColor 18%,transparent)}
figure{margin:2rem 0}figure img{background:#fff;max-width:100%;height:auto}figcaption{max-width:46rem;margin-top:.5rem}
</style><main><h1>ForgetBench report</h1>"""


def _line(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
