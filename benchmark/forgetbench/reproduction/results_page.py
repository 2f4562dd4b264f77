"""The page "Results": what works on what among the shipped boards, and how far published claims hold on them."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import stats

from forgetbench.errors import ForgetBenchError
from forgetbench.methods import methods
from forgetbench.metrics._validation import IntArray
from forgetbench.reporting.figures import verdicts
from forgetbench.reporting.figures.catalog import Picture
from forgetbench.reporting.figures.verdicts import PALE
from forgetbench.reporting.literature import sources
from forgetbench.reproduction.reference_file import ReferenceBoard, ReferenceRow, read_board, reference_tasks
from forgetbench.scoring.statistics import distinguished
from forgetbench.scoring.vocabulary import NEARER, Verdict, caveat

HEAD = """# Results

This page is generated from the results that ship with the package. Every board was recorded by
`forgetbench reproduce TASK --record` and can be computed again by `forgetbench reproduce TASK`. Rows have default
hyper-parameters, which were chosen on other models than those of the boards. A [board](read-a-board.md) has more: tuned
rows, every metric with its band, cost, and what each class lost.

## What works on what
"""
CAPTION = f"Verdicts of all methods with default hyper-parameters. {verdicts.CAPTION}"
CLAIMS = """
## Published claims

How far does what papers found hold on these boards? Cells are distances to retraining with their 95 % intervals, in
standard deviations of the oracles. A pair of methods is *distinguished* where the test behind the rank intervals finds
a difference (joint sign flips of the seeds, 5 %). Papers used larger networks and other images: an order that does not
hold here is no error there, but it is not general.
"""


Columns = dict[str, dict[str, ReferenceRow]]
"""Title of a column -> method -> row."""


class Order(NamedTuple):
    """A published order of methods, and the boards of the same kind."""

    title: str
    """The claim."""
    source: str
    """A file of reference/published, without its ending."""
    table: str
    """Number of the table in it."""
    column: str
    """The column that orders the methods."""
    best: str
    """``least`` or ``most``: the end of the column that is best."""
    boards: tuple[str, ...]
    """Patterns of tasks."""
    authors: Mapping[str, str]
    """Method -> the row of a board that has the hyper-parameters of the table's authors."""


_JIA = {name: f"{name}:preset=jia2023" for name in ("finetune", "gradient-ascent")}
_FAN = _JIA | {"l1-sparse": "l1-sparse:preset=paper", "salun": "salun:preset=paper"}
ORDERS = (
    Order(
        "SalUn's order on random rows",
        "salun",
        "table 1, 10 %",
        "AvgGap",
        "least",
        ("*/random-*",),
        _FAN | {"random-label": "random-label:preset=fan2024"},
    ),
    Order(
        "Unlearn-Sparse's order on random rows",
        "unlearn-sparse",
        "main table, random 10 %, dense",
        "Disparity",
        "least",
        ("*/random-*",),
        _JIA,
    ),
    Order(
        "Unlearn-Sparse's order on a class",
        "unlearn-sparse",
        "main table, class-wise, dense",
        "Disparity",
        "least",
        ("*/class", "*/class-small"),
        _JIA,
    ),
    Order(
        "MUFAC's order on people",
        "mufac",
        "MUFAC",
        "NoMUS",
        "most",
        ("*/identity", "*/person", "*/clean", "*/legacy"),
        {},  # the table of its own score has them; here they would not fit into the page
    ),
)

OWN = "MUFAC's own score on MUFAC"
OWN_BOARDS = {
    "mufac/cnn/legacy": "the published parts",
    "mufac/cnn/clean": "the published parts without the pictures that leak",
    "mufac/cnn/person": "parts of whole people",
}
"""Board on MUFAC's pictures -> what its parts are."""
OWN_AUTHORS = {
    **{name: f"{name}:preset=choi2023" for name in ("finetune", "unsir", "scrub", "neggrad-plus")},
    "gradient-ascent": "neggrad-plus:preset=choi2023-neggrad",
}
"""`Order.authors` of MUFAC."""


def page() -> str:
    """The page as Markdown; its picture is that of `picture`."""
    boards = _boards()
    parts = [HEAD, f"![{CAPTION}](pictures/verdicts.svg)\n", CAPTION + "\n", _summary(boards), CLAIMS]
    for order in ORDERS:
        chosen = [board for board in boards if any(fnmatch.fnmatch(board.task, pattern) for pattern in order.boards)]
        if chosen:
            parts += [f"### {order.title}\n", _order_table(order, chosen)]
    own = [board for board in boards if board.task in OWN_BOARDS]
    if own:
        parts += [f"### {OWN}\n", _own_scores(ORDERS[-1], own)]
    parts += [
        '### "Fine-tuning is enough"\n',
        "Fine-tuning on retained data is a baseline of nearly every paper, and often a strong one in its tables.\n",
        _against_nothing("finetune", boards),
        '### "MSG and CT lead"\n',
        "Cadet et al. 2024 find these two methods of the NeurIPS 2023 challenge to be the most reliable of eighteen. "
        "The other methods of each board, by where they are:\n",
        _against_others(("msg", "ct"), boards),
    ]
    return "\n".join(parts)


def picture() -> Picture:
    """The matrix of verdicts."""
    drawn = verdicts.verdicts({board.task: _results(board) for board in _boards()})
    if drawn is None:
        raise ForgetBenchError("No shipped board has verdicts.")
    return Picture("verdicts", drawn, CAPTION)


def _boards() -> list[ReferenceBoard]:
    """The shipped boards of the present protocol."""
    return [board for board in map(read_board, reference_tasks()) if not board.lacks]


def _defaults(board: ReferenceBoard) -> dict[str, ReferenceRow]:
    """Method -> its row with default hyper-parameters, where it has a distance."""
    rows = board.rows[board.references :]
    return {row.label: row for row in rows if row.label in methods and row.distance is not None}


def _results(board: ReferenceBoard) -> dict[str, verdicts.Result]:
    nothing = (None, None, None, None)
    return {
        name: verdicts.Result(row.verdict, *(row.forgotten or nothing)[:2], row.flags, (row.distance or nothing)[0])
        for name, row in _defaults(board).items()
    }


def _summary(boards: Sequence[ReferenceBoard]) -> str:
    """For each board: seeds, how near doing nothing and retraining are, and how many methods have which verdict."""
    lines = [
        "| board | nearer | at a price | in name only | as nothing | worse | collapsed | seeds | limit | Retrain "
        "| No unlearning |",
        "| --- " * 11 + "|",
    ]
    for board in boards:
        counts = Counter(result.says for result in _results(board).values())
        retrain, nothing = (row.distance[0] if row.distance else None for row in board.rows[:2])
        good = counts[Verdict.REACHES_RETRAINING] + counts[Verdict.BETTER]
        reach = counts[Verdict.REACHES_RETRAINING]
        numbers = [
            f"{good}, of which {reach} {'reaches' if reach == 1 else 'reach'} retraining" if reach else good,
            *(counts[says] for says in (Verdict.AT_A_PRICE, PALE, Verdict.AS_NOTHING, Verdict.WORSE)),
            counts[Verdict.COLLAPSED],
            board.seeds,
            *map(_number, (board.family_limit, retrain, nothing)),
        ]
        lines.append(f"| `{board.task}` | " + " | ".join(map(str, numbers)) + " |")
    outside = [f"`{board.task}`" for board in boards if board.rows[0].verdict != Verdict.REACHES_RETRAINING]
    note = (
        "Distances are in standard deviations of the oracles; retrained models are below the limit in 19 of 20 cases"
        + (f" (not on {' and '.join(outside)})" if outside else "")
        + ". *Nearer* methods keep their accuracy, and recalibration does not undo their forgetting; "
        "[other attacks](what-attacks-find.md) undo that of many. *In name only*: significantly nearer than doing "
        "nothing, but nothing was forgotten, or recalibration brings it back."
    )
    return "\n".join([*lines, "", note, ""])


def _number(value: float | None) -> str:
    """A distance with three digits."""
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _interval(row: ReferenceRow | None) -> str:
    if row is None or row.distance is None:
        return "–"
    value, low, high, _ = row.distance
    return f"{_number(value)} ({_number(max(0.0, low or 0.0))} to {_number(high)})"


def _order_table(order: Order, boards: Sequence[ReferenceBoard]) -> str:
    """The methods in their published order with their distances here, and how many pairs are in the same order."""
    source = sources()[order.source]
    table = next(table for table in source.tables if table.number == order.table)
    values = {name: table.mean(name, order.column) for name in table.rows if name in methods and name != "retrain"}
    names = sorted(values, key=lambda name: values[name] if order.best == "least" else -values[name])
    columns = _columns(order.authors, names, boards)
    lines = [
        f"{source.short}, {table.setting}; the best of {order.column} first.\n",
        f"| method | published {order.column} | {' | '.join(columns)} |",
        "| --- " * (2 + len(columns)) + "|",
    ]
    for name in names:
        cells = [_interval(rows.get(name)) for rows in columns.values()]
        lines.append(f"| {'No unlearning' if name == 'none' else name} | {values[name]:g} | {' | '.join(cells)} |")
    agreements = [_agreement([rows[name] for name in names if name in rows]) for rows in columns.values()]
    lines.append(f"| **pairs as published** | | {' | '.join(agreements)} |\n")
    return "\n".join(lines)


def _columns(authors: Mapping[str, str], names: Sequence[str], boards: Sequence[ReferenceBoard]) -> Columns:
    """For each board, its rows of some methods with our defaults, and those with the authors' values if it has several.

    Retrain and No unlearning are in both, where they are among the names.
    """
    columns: Columns = {}
    for board in boards:
        by_label = {row.label: row for row in board.rows[board.references :] if row.distance is not None}
        fixed = {"retrain": board.rows[0], "none": board.rows[1]}
        fixed = {name: row for name, row in fixed.items() if name in names}
        columns[f"`{board.task}`"] = fixed | {name: by_label[name] for name in names if name in by_label}
        theirs = {name: by_label[label] for name, label in authors.items() if label in by_label}
        if len(theirs) > 1:  # one row has no order
            columns[f"`{board.task}`, authors' values"] = fixed | theirs
    return columns


def _own_scores(order: Order, boards: Sequence[ReferenceBoard]) -> str:
    """The column that orders a published table, measured on boards: with our defaults, and with its authors' values."""
    source = sources()[order.source]
    table = next(table for table in source.tables if table.number == order.table)
    metric = str(source.columns[order.column].metric)
    names = [name for name in table.rows if name in methods or name == "retrain"]
    published = {name: table.mean(name, order.column) for name in names}
    parts = "; ".join(f"{OWN_BOARDS[board.task]} (`{board.task}`)" for board in boards)
    columns = _columns(OWN_AUTHORS, names, boards)
    lines = [
        f"{order.column} as {source.short} printed it, and measured here with 95 % intervals, at 32 pixels from a "
        f"small network: {parts}. It is the mean of test accuracy and of 1 minus twice the forgetting score, so that "
        "it needs no retrained model to compare with.\n",
        f"| method | published | {' | '.join(columns)} |",
        "| --- " * (2 + len(columns)) + "|",
    ]
    for name in sorted(names, key=lambda name: -published[name]):
        cells = [_figures(rows[name].metrics.get(metric)) if name in rows else "–" for rows in columns.values()]
        shown = {"none": "No unlearning", "retrain": "Retrain"}.get(name, name)
        lines.append(f"| {shown} | {published[name]:.3f} | {' | '.join(cells)} |")
    agreements = []
    for rows in columns.values():
        pairs = [(published[name], row.metrics[metric][0]) for name, row in rows.items() if metric in row.metrics]
        agreements.append(f"{stats.kendalltau(*zip(*pairs, strict=True)).statistic:.2f}" if len(pairs) > 2 else "–")
    lines.append(f"| **Kendall's tau with the published order** | | {' | '.join(agreements)} |\n")
    return "\n".join(lines)


def _figures(figures: tuple[float | None, ...] | None) -> str:
    """A score between 0 and 1 with its interval."""
    if figures is None:
        return "–"
    value, low, high = figures[:3]
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")


def _agreement(rows: Sequence[ReferenceRow]) -> str:
    """How many pairs of rows, in a published order, are in it, in the opposite one, or not distinguished."""
    signs = _compare(rows)
    counts = Counter(signs[one, other] for one, other in combinations(range(len(rows)), 2))
    return f"{counts[-1]}; opposite {counts[1]}; not distinguished {counts[0]}"


def _compare(rows: Sequence[ReferenceRow]) -> IntArray:
    """(K, K): -1 where a row is nearer to retraining than a column, 1 where it is farther, 0 if not distinguished."""
    pseudo = np.array([row.pseudo["distance"] for row in rows])
    means = pseudo.mean(axis=1)
    signs: IntArray = (np.sign(means[:, None] - means) * distinguished(pseudo)).astype(np.int64)
    return signs


def _against_nothing(name: str, boards: Sequence[ReferenceBoard]) -> str:
    """A method next to No unlearning on each board."""
    lines = [
        "| board | No unlearning | " + name + " | p | forgotten, % | verdict |",
        "| --- " * 6 + "|",
    ]
    for board in boards:
        row = _defaults(board).get(name)
        if row is None or row.p_vs_no_unlearning is None or row.forgotten is None:
            continue
        value, low, high = (100 * (number or 0.0) for number in row.forgotten[:3])
        again = caveat(row.verdict, row.forgotten[1], row.flags)
        lines.append(
            f"| `{board.task}` | {_interval(board.rows[1])} | {_interval(row)} | {row.p_vs_no_unlearning:.2g} | "
            f"{round(value)} ({round(low)} to {round(high)}) | {row.verdict}{', ' if again else ''}{again} |"
        )
    return "\n".join(lines) + "\n"


def _against_others(names: Sequence[str], boards: Sequence[ReferenceBoard]) -> str:
    """How many other methods are nearer to retraining than each of some, farther, or not distinguished from it."""
    lines = [
        "| board | method | distance | others farther | not distinguished | others nearer | verdict |",
        "| --- " * 7 + "|",
    ]
    for board in boards:
        for name in names:
            row = _defaults(board).get(name)
            if row is None:
                continue
            rows = [row, *(other for each, other in _defaults(board).items() if each != name)]
            counts = Counter(_compare(rows)[0, 1:].tolist())
            lines.append(
                f"| `{board.task}` | {name} | {_interval(row)} | {counts[-1]} | {counts[0]} | {counts[1]} | "
                f"{row.verdict} |"
            )
    found = [row for board in boards for name, row in _defaults(board).items() if name in names]
    nearer = sum(row.verdict in NEARER for row in found)
    lines.append(f"\nNearer to retraining than doing nothing in {nearer} of {len(found)} cases.\n")
    return "\n".join(lines)
