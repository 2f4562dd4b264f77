"""Every chart by name: what `forgetbench report --figure` and the HTML report draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from forgetbench.errors import UsageError
from forgetbench.evidence.run import Run
from forgetbench.reporting.figures import critical_difference as across
from forgetbench.reporting.figures import distributions, scatter, steps, strips, verdicts
from forgetbench.reporting.figures.points import (
    MORE,
    Interval,
    Point,
    forgetting_metric,
    interval,
    kind_of,
    short_names,
)
from forgetbench.reporting.figures.style import LIGHT, Spec, Theme
from forgetbench.reporting.streams import StreamCurves, stream_curves
from forgetbench.reporting.tables import Row, rows_in_order
from forgetbench.scoring.scorecards import MetricBand, Scorecard, Value
from forgetbench.scoring.scorer import ALL_REFERENCES, RankedRuns, Scorer, rank_runs, reference_rows

LINES = 40
"""Up to so many rows a chart with a line for each shows all of them."""
Drawing = tuple[Spec | None, str]
"""A chart, None where the board has no numbers for it, and its caption."""


class Picture(NamedTuple):
    """A chart with its caption."""

    name: str
    """A file's name for it, without an ending."""
    specification: Spec
    """Vega-Lite."""
    caption: str
    """One or two sentences: what it shows, and how to read it."""


@dataclass(frozen=True, eq=False)
class ScoredBoard:
    """A scored board with what its charts are made of."""

    scorer: Scorer
    runs: Sequence[Run]
    theme: Theme = LIGHT

    @cached_property
    def ranked(self) -> RankedRuns:
        """Scorecards and ranking."""
        return rank_runs(self.scorer, self.runs)

    @cached_property
    def rows(self) -> list[Row]:
        """The board's rows in order, under their full names."""
        return rows_in_order(self.ranked)

    @cached_property
    def short_rows(self) -> list[Row]:
        """The same under names that fit into a chart."""
        names = short_names([row.card.name for row in self.rows])
        return [Row(card.model_copy(update={"name": names[card.name]}), place) for card, place in self.rows]

    @property
    def lines(self) -> list[Row]:
        """The rows of a chart with a line for each: where there are many, those without a rank are left out."""
        ranked = [row for row in self.short_rows if row.place is None or row.place.rank is not None]
        return self.short_rows if len(self.short_rows) <= LINES or len(ranked) <= self.ranked.references else ranked

    @property
    def lines_note(self) -> str:
        """What a reader of such a chart must know besides."""
        left_out = len(self.short_rows) - len(self.lines)
        short = any(row.card.name.endswith(MORE) for row in self.lines)
        return (f" {left_out} rows without a rank are not shown." if left_out else "") + (
            f" {MORE} marks hyper-parameters that differ from the defaults." if short else ""
        )

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.scorer.bundle.card.task

    def pareto(self) -> Drawing:
        """Distance against cost."""
        points = []
        for row in self.short_rows:
            cost, distance = row.card.cost.flops, row.card.distance
            if cost is None or distance is None:
                continue
            x, y = interval(cost, None, None, 100), interval(distance.value, distance.low, distance.high, least=0.0)
            if x is not None and y is not None:
                points.append(_point(row, x, y))
        drawn = scatter.pareto(points, self.ranked.bands.family_limit, self.theme)
        return drawn, (
            "distance to retraining against the cost of unlearning, with 95 % intervals over seeds. The line is the "
            "front: no ranked method is both closer and cheaper. Retrained models fall into the green area."
        )

    def utility(self) -> Drawing:
        """Forgetting against utility."""
        bands, forget = self.ranked.bands.bands, forgetting_metric(self.ranked.bands.track)
        points = []
        for row in self.short_rows:
            x, y = _points_of(row.card, forget), _points_of(row.card, "gap.test")
            if x is not None and y is not None:
                points.append(_point(row, x, y))
        drawn = scatter.utility(points, (_band(bands.get(forget)), _band(bands.get("gap.test"))), self.theme)
        return drawn, (
            "accuracy on what was to be forgotten and on the test set, both minus the retrained models', with 95 % "
            "intervals. Where the green bands cross, a method is like retraining; to the right of it, it forgot too "
            "little; below it, it did harm."
        )

    def ranks(self) -> Drawing:
        """Distances and rank intervals."""
        drawn = strips.ranks(self.lines, self.ranked.bands.family_limit, self.theme)
        return drawn, (
            "distance to retraining with its 95 % interval, and the rank interval of each method, which excludes the "
            "ranks of those found better or worse. Retrained models fall into the green area." + self.lines_note
        )

    def seeds(self) -> Drawing:
        """Every metric seed by seed."""
        drawn = strips.seeds(self.lines, self.ranked.bands.ranking, self.theme)
        return drawn, (
            "the board's ranking metrics and test accuracy, a dot for each seed and a line at the value of all seeds. "
            "Green: the band into which retrained models fall." + self.lines_note
        )

    def confidence(self) -> Drawing:
        """Distributions of phi."""
        by_name = {run.manifest.row: run for run in self.runs if run.manifest.status == "ok"}
        first = [by_name[row.card.name] for row in self.rows if row.card.name in by_name][: distributions.SHOWN]
        names = short_names(list(by_name))
        samples = distributions.confidences(self.scorer, first) if first else {}
        drawn = distributions.confidence({names.get(name, name): phi for name, phi in samples.items()}, self.theme)
        more = len(by_name) - len(first)
        return drawn, (
            "distribution of the logit-scaled confidence φ on the forget set over all seeds, each curve with its peak "
            "at the same height. A method that unlearned moves from the originals to the oracles."
            + (f" The first {len(first)} rows of the board; {more} more are not shown." if more else "")
        )

    def steps(self) -> Drawing:
        """Accuracy after each request of a stream."""
        pack, curves = self.scorer.bundle, dict[str, StreamCurves]()
        if pack.card.requests:
            curves = {row.name: row for row in stream_curves(pack, self.runs)}
        references = reference_rows(self.ranked.bands.track)
        order = [*references, *(row.card.name for row in self.rows if row.card.name not in references)]
        drawn = steps.steps([curves[name] for name in order if name in curves], self.theme)
        more = max(0, len(curves) - steps.SHOWN)
        return drawn, (
            "accuracy on the rows of each request, and on the test images that no request has named yet, before the "
            "first request and after each; bars from the least to the most of the seeds. An oracle is trained for the "
            "state after the last request only." + (f" {more} more rows are not shown." if more else "")
        )


def _point(row: Row, x: Interval, y: Interval) -> Point:
    ranked = row.place is not None and row.place.rank is not None
    return Point(row.card.name, kind_of(row.card.name, ranked=ranked), x, y)


def _points_of(card: Scorecard, name: str) -> Interval | None:
    """A gap in percentage points; None where the scorecard has no value."""
    value = card.metrics.get(name, Value())
    return interval(value.value, value.low, value.high, 100)


def _band(band: MetricBand | None) -> tuple[float, float]:
    """Ends of the band of a gap, in percentage points."""
    return (0.0, 0.0) if band is None else (100 * band.low, 100 * band.high)


BOARD: dict[str, Callable[[ScoredBoard], Drawing]] = {
    "pareto": ScoredBoard.pareto,
    "utility": ScoredBoard.utility,
    "ranks": ScoredBoard.ranks,
    "seeds": ScoredBoard.seeds,
    "confidence": ScoredBoard.confidence,
    "steps": ScoredBoard.steps,
}
"""Charts of one board."""


@dataclass(frozen=True)
class SeveralBoards:
    """Scored boards with what the charts of all of them are made of."""

    boards: Mapping[str, Sequence[Row]]
    """Task -> its rows."""
    theme: Theme = LIGHT

    def critical_difference(self) -> Drawing:
        """Mean ranks across tasks."""
        ranks = across.mean_ranks(self.boards)
        if ranks is None:
            return None, ""
        pairs = ", ".join(f"{better} before {worse}" for better, worse in ranks.separated) or "none"
        left_out = f" Not run on every task: {', '.join(ranks.left_out)}." if ranks.left_out else ""
        return across.critical_difference(ranks, self.theme), (
            f"Mean ranks of {len(ranks.names)} methods by distance over {ranks.tasks} tasks (1 is best; collapsed rows "
            f"share the last rank). Methods under one bar are statistically tied (Nemenyi, 5 %); that all are alike "
            f"has p = {ranks.p:.2g} (Iman and Davenport). Pairs distinguished by Wilcoxon's test on the ranks, "
            f"corrected by Holm: {pairs}. Tasks on one image set are not independent.{left_out}"
        )

    def verdicts(self) -> Drawing:
        """Verdicts of all rows on all tasks."""
        labels = {row.card.name for rows in self.boards.values() for row in rows} - set(ALL_REFERENCES)
        names = short_names(sorted(labels))
        boards = {
            task: {names[row.card.name]: _result(row.card) for row in rows if row.card.name in names}
            for task, rows in self.boards.items()
        }
        return verdicts.verdicts(boards, self.theme), f"Verdicts on {len(boards)} tasks. {verdicts.CAPTION}"


def _result(card: Scorecard) -> verdicts.Result:
    distance = card.distance.value if card.distance is not None else None
    return verdicts.Result(card.verdict, card.forgotten.value, card.forgotten.low, card.flags, distance)


ACROSS: dict[str, Callable[[SeveralBoards], Drawing]] = {
    "critical-difference": SeveralBoards.critical_difference,
    "verdicts": SeveralBoards.verdicts,
}
"""Charts of all boards together."""
NAMES = (*BOARD, *ACROSS)


def pictures_of(board: ScoredBoard, names: Sequence[str]) -> list[Picture]:
    """The charts of a board; those that it has no numbers for are left out."""
    pictures = []
    for name in names:
        if name in BOARD:
            specification, caption = BOARD[name](board)
            if specification is not None:
                counts = f"{board.task}, {board.scorer.bundle.card.seeds} seeds: "
                pictures.append(Picture(f"{board.task}-{name}".replace("/", "-"), specification, counts + caption))
    return pictures


def pictures_across(boards: Mapping[str, Sequence[Row]], names: Sequence[str], theme: Theme = LIGHT) -> list[Picture]:
    """The charts of several boards together, where there are several; those that they have no numbers for are left out.

    Args:
        boards: Task -> its rows.
        names: Names of figures.
        theme: Colors.
    """
    drawn = [(name, ACROSS[name](SeveralBoards(boards, theme))) for name in names if name in ACROSS]
    return [Picture(name, chart, caption) for name, (chart, caption) in drawn if chart is not None and len(boards) > 1]


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The figure names of a command line without repetitions; ``all`` selects every figure.

    Raises:
        UsageError: There is no such figure.
    """
    unknown = sorted(set(names) - {*NAMES, "all"})
    if unknown:
        raise UsageError(f"Unknown figure {unknown[0]!r}. Available: {', '.join(NAMES)}, all.")
    return NAMES if "all" in names else tuple(dict.fromkeys(names))
