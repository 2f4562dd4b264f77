"""One row of the table of a board. A page has a hundred, and the template engine takes three times as long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from markupsafe import Markup, escape

from forgetbench.leaderboard.boards.queries import Cell, Column
from forgetbench.leaderboard.db.models import Entry
from forgetbench.leaderboard.render.formatting import Ranks, cell_text, date, percent, place_text, z_text
from forgetbench.leaderboard.render.fragments import flag_mark, row_chip, row_name, strip, tier_mark
from forgetbench.leaderboard.render.rows import Axis, ShownRow
from forgetbench.method_label import MethodLabel
from forgetbench.scoring.vocabulary import PARTIAL

_SCOPES = {"own originals": "place among methods with own originals only", "claimed": "place among claimed rows only"}
"""Ranking whose places are not those of the board -> what they are."""
_BASELINES = {"Retrain": "the goal", PARTIAL: "what retraining gives"}


def table_row(
    row: ShownRow,
    axis: Axis,
    columns: Sequence[Column] = (),
    limit: float | None = None,
    titles: Mapping[str, str] | None = None,
    *,
    choose: bool = False,
    kind: str = "",
) -> Markup:
    """A row of the table of a board.

    Args:
        row: The row.
        axis: Axis of distances of the table.
        columns: Metrics that are shown.
        limit: From this z on, a metric is marked as outside the oracle band.
        titles: Metric -> its title.
        choose: Whether the row can be chosen for comparing.
        kind: Class of the row in the style sheet.
    """
    entry = row.source.entry if row.source else None
    css = f"{kind}{' reference' if row.baseline else ''}{' claimed' if row.tier == 'claimed' else ''}"
    cells = "".join(_metric_cell(row.source.cells.get(column.name), column, limit) for column in columns if row.source)
    back = f'<span class="{"z out" if row.outcome.recoverable else "quiet"}">{escape(row.recovery_text)}</span>'
    cost = cost_mark(entry) if entry else percent(row.cost)
    why_not = f' title="{escape(row.outcome.reason)}"' if row.outcome.reason else ""
    return Markup(  # noqa: S704 - all that was submitted is escaped
        f'''<tr role="row" class="{css}">
  <td role="cell" class="rank" data-label="Place">{_place(row, entry, choose=choose)}</td>
  <th scope="row" role="rowheader" class="method">{_method(row, entry, axis)}</th>
  <td role="cell" class="verdict" data-label="Verdict">{_verdict(row)}</td>
  <td role="cell" class="distance" data-label="Distance">{_distance(row, axis, titles or {})}</td>
  <td role="cell" class="n" data-label="Forgotten">{row.forgotten_text}</td>
  <td role="cell" class="n" data-label="Harm, points">{row.harm_text}</td>
  <td role="cell" class="back" data-label="Recalibration"{why_not}>{back}</td>
{cells}  <td role="cell" class="n" data-label="Cost">{cost}</td>
</tr>
'''
    )


def _place(row: ShownRow, entry: Entry | None, *, choose: bool) -> str:
    place = str(escape(row.place)) if row.place else '<span class="quiet">ref.</span>' if row.baseline else "–"
    if row.place and row.source and row.source.placing:
        place = str(place_mark(row.source.placing))
    if choose and entry:
        label = f"Choose {escape(row.label)} for comparing"
        place += f'<input type="checkbox" name="ids" value="{row.id}" aria-label="{label}">'
    return place


def _method(row: ShownRow, entry: Entry | None, axis: Axis) -> str:
    """Tier and name of a row, and by whom and how it was made."""
    if entry:
        name = f'{tier_mark(entry.tier)} <a href="/entries/{row.id}">{row_name(row.label)}</a>'
    else:
        linked = f'<a href="/methods/{quote(row.method, safe="/")}">{row_name(row.label)}</a>'
        shown = escape(row.label) if row.baseline else linked
        name = f'<span class="tier" title="recorded by the authors of the package">shipped</span> {shown}'
    origin = _origin(row, entry, axis)
    name += f'<div class="why">{origin}</div>\n' if origin else ""
    if row.reasons and (not row.place or row.scope == "own originals"):
        name += f'<div class="why">{escape(row.reasons[0])}</div>'
    if entry and entry.state == "flagged":
        name += f'<div class="why">under review: {escape(entry.note)}</div>'
    return name


def _origin(row: ShownRow, entry: Entry | None, axis: Axis) -> str:
    """Who ran a row, or how it was made."""
    if entry and not row.baseline:
        operator = ", the operator of this board" if entry.tier == "reference" else ""
        link = f'<a href="/submitters/{quote(entry.submitter, safe="/")}">{escape(entry.submitter)}</a>'
        repeated = f"; {reproductions_text(entry.reproductions)}" if entry.reproductions else ""
        return f'by {link}{operator}, <span class="nowrap">{date(entry.received_at)}</span>{repeated}'
    if row.label == "Retrain":
        return f"trained again without the {'forgotten' if axis.partial is None else 'harmful'} data"
    if row.label == PARTIAL:
        return "trained again, with the bad data that was not found"
    if row.baseline:
        return "the original models, unchanged"
    if row.trials and row.trials > 1:
        best = "the defaults were the best" if row.label == row.method else "the best"
        return f"tuned: {best} of {row.trials} trials"
    published = "preset" in MethodLabel.parse(row.label).parameters
    return "hyper-parameters of a publication" if published else "defaults" if row.label == row.method else ""


def _verdict(row: ShownRow) -> str:
    if row.baseline:
        return f'<span class="quiet">{_BASELINES.get(row.label, "doing nothing")}</span>'
    flags = "".join(flag_mark(name) for name in row.flags if name != row.verdict)
    return f'{row_chip(row)}<div class="flags">{flags}</div>' if row.flags else row_chip(row)


def _distance(row: ShownRow, axis: Axis, titles: Mapping[str, str]) -> str:
    """The distance of a row as a number, what sets it, and its place on the axis."""
    if not row.distance:
        return "–"
    by = ""
    if row.within_band:
        by = '<span class="z in">as retraining</span>'
    elif row.decided_by and not row.baseline:
        by = f'<span class="decided">by {escape(titles.get(row.decided_by, row.decided_by))}</span>'
    number = f'<div class="n"><strong>{row.distance_text}</strong>{by}</div>'
    return f'<div class="measure">{number}{strip(row, axis)}</div>'


def _metric_cell(cell: Cell | None, column: Column, limit: float | None) -> str:
    """A metric with its z, marked where it is outside the oracle band."""
    if cell is None or cell.value is None:
        note = f' title="{escape(cell.note)}"' if cell and cell.note else ""
        return f'<td class="n missing"{note}>–</td>\n'
    z = ""
    if cell.z is not None:
        outside = limit is not None and (cell.z >= limit or cell.z <= -limit)
        z = f'<span class="z{" out" if outside else ""}">z {z_text(cell.z)}</span>'
    return f'<td class="n">{cell_text(cell, column)}{z}</td>\n'


def place_mark(placing: Ranks) -> Markup:
    """The rank interval of a row, with a title where it is not among all rows of the board."""
    text = place_text(placing)
    title = _SCOPES.get(placing.scope)
    return Markup(f'<abbr title="{title}">{text}</abbr>' if title else text)  # noqa: S704 - numbers and own words


def cost_mark(entry: Entry) -> Markup:
    """The cost of an entry, and who measured it."""
    text = percent(entry.cost)
    if entry.cost_class:
        css = f"cost-class{' retraining' if entry.cost_class == 'retraining' else ''}"
        title = "class of the cost that this board's runner measured"
        text += f'<span class="{css}" title="{title}">{escape(entry.cost_class)}</span>'
    elif entry.cost is not None and entry.tier == "claimed":
        text += '<span class="cost-class" title="as the submitter measured it">claimed</span>'
    return Markup(text)  # noqa: S704 - escaped


def reproductions_text(others: int) -> str:
    """By how many others an entry was reproduced; "" if by none."""
    return f"reproduced by {others} other{'s' if others > 1 else ''}" if others else ""
