"""Every picture by name: what `forgetbench report --figure` and the HTML report draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from forgetbench.errors import UsageError
from forgetbench.evidence.run import Run
from forgetbench.method_label import MethodLabel
from forgetbench.reporting.figures import critical_difference as across
from forgetbench.reporting.figures import distributions, scatter, steps, strips
from forgetbench.reporting.figures._style import LIGHT, Theme
from forgetbench.reporting.figures.points import Interval, Point, forgetting_metric, in_points, interval, kind_of
from forgetbench.reporting.streams import StreamCurves, stream_curves
from forgetbench.reporting.tables import Row, rows_in_order
from forgetbench.scoring.scorecards import Value
from forgetbench.scoring.scorer import REFERENCES, RankedRuns, Scorer, rank_runs

LINES = 40
"""Up to so many rows a picture with a line for each shows all of them."""
MORE = ":…"


class Picture(NamedTuple):
    """A drawing with what is to be said below it."""

    name: str
    """A file's name for it, without an ending."""
    specification: dict[str, Any]
    """Vega-Lite."""
    caption: str
    """One or two sentences: what is seen, and how to read it."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A scored board with what its pictures are made of."""

    judge: Scorer
    runs: Sequence[Run]
    theme: Theme = LIGHT

    @cached_property
    def standing(self) -> RankedRuns:
        """Scorecards and ranking."""
        return rank_runs(self.judge, self.runs)

    @cached_property
    def whole(self) -> list[Row]:
        """The board's rows in order, under their whole names."""
        return rows_in_order(self.standing)

    @cached_property
    def rows(self) -> list[Row]:
        """The same under names that fit into a picture."""
        names = short_names([row.card.name for row in self.whole])
        return [Row(card.model_copy(update={"name": names[card.name]}), place) for card, place in self.whole]

    @property
    def listed(self) -> list[Row]:
        """The rows of a picture with a line for each: where they are many, those that take no place are left out."""
        placed = [row for row in self.rows if row.place is None or row.place.rank is not None]
        return self.rows if len(self.rows) <= LINES or len(placed) <= len(REFERENCES) else placed

    @property
    def remark(self) -> str:
        """What a reader of such a picture must know besides."""
        left_out = len(self.rows) - len(self.listed)
        short = any(row.card.name.endswith(MORE) for row in self.listed)
        return (f" {left_out} rows that take no place are not shown." if left_out else "") + (
            f" {MORE} stands for hyper-parameters that are not the defaults." if short else ""
        )

    @cached_property
    def points(self) -> list[Point]:
        """The same as points."""
        return [point_of(row) for row in self.rows]

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.judge.pack.card.task

    def pareto(self) -> tuple[dict[str, Any] | None, str]:
        """Distance against cost."""
        drawn = scatter.pareto(self.points, self.standing.bands.family_limit, self.theme)
        return drawn, (
            "distance to retraining against the cost of unlearning, with 95 % intervals over seeds. The line is the "
            "front: no ranked method is both closer and cheaper. The green area is where retrained models lie."
        )

    def utility(self) -> tuple[dict[str, Any] | None, str]:
        """Forgetting against utility."""
        bands = self.standing.bands.bands
        forget, kept = bands.get(forgetting_metric(self.standing.bands.track)), bands.get("gap.test")
        drawn = scatter.utility(self.points, (in_points(forget), in_points(kept)), self.theme)
        return drawn, (
            "accuracy on what was to be forgotten and on the test set, both minus the retrained models', with 95 % "
            "intervals. Where the green bands cross, a method is like retraining; to the right of it, it forgot too "
            "little; below it, it did harm."
        )

    def ranks(self) -> tuple[dict[str, Any] | None, str]:
        """Distances and places."""
        drawn = strips.ranks(self.listed, self.standing.bands.family_limit, self.theme)
        return drawn, (
            "distance to retraining with its 95 % interval, and the places that each method may take: methods that "
            "share a bar are not told apart. The green area is where retrained models lie." + self.remark
        )

    def seeds(self) -> tuple[dict[str, Any] | None, str]:
        """Every metric seed by seed."""
        drawn = strips.seeds(self.listed, self.standing.bands.ranking, self.theme)
        return drawn, (
            "the board's ranking metrics and test accuracy, a dot for each seed and a line at the value of all seeds. "
            "Green: the band in which retrained models lie." + self.remark
        )

    def confidence(self) -> tuple[dict[str, Any] | None, str]:
        """Distributions of phi."""
        by_name = {run.manifest.row: run for run in self.runs if run.manifest.status == "ok"}
        first = [by_name[row.card.name] for row in self.whole if row.card.name in by_name][: distributions.SHOWN]
        names = short_names(list(by_name))
        found = distributions.confidences(self.judge, first) if first else {}
        drawn = distributions.confidence({names.get(name, name): phi for name, phi in found.items()}, self.theme)
        more = len(by_name) - len(first)
        return drawn, (
            "distribution of the logit-scaled confidence φ on the forget set over all seeds, each curve with its peak "
            "at the same height. A method that unlearned moves from the originals to the oracles."
            + (f" The first {len(first)} rows of the board; {more} more are not shown." if more else "")
        )


def point_of(row: Row) -> Point:
    """The point of a row of a board in memory."""
    card = row.card
    distance = None
    if card.distance is not None:
        distance = interval(card.distance.value, card.distance.low, card.distance.high)
    return Point(
        label=card.name,
        kind=kind_of(card.name, ranked=row.place is not None and row.place.rank is not None),
        cost=card.cost.flops,
        distance=distance,
        forget=_interval_of(card.metrics.get(forgetting_metric(card.track))),
        utility=_interval_of(card.metrics.get("gap.test")),
    )


def _interval_of(value: Value | None) -> Interval | None:
    """A scorecard's value; None where there is none."""
    return None if value is None else interval(value.value, value.low, value.high)


def _steps(board: Drawn) -> tuple[dict[str, Any] | None, str]:
    """Accuracy after each request of a stream."""
    pack, found = board.judge.pack, dict[str, StreamCurves]()
    if pack.card.requests:
        found = {curves.name: curves for curves in stream_curves(pack, board.runs)}
    order = [*REFERENCES, *(row.card.name for row in board.whole if row.card.name not in REFERENCES)]
    drawn = steps.steps([found[name] for name in order if name in found], board.theme)
    more = max(0, len(found) - steps.SHOWN)
    return drawn, (
        "accuracy on what each request takes away, and on the test images that nobody has asked away, before the first "
        "request and after each; bars from the least to the most of the seeds. An oracle is trained for the end alone."
        + (f" {more} more rows are not shown." if more else "")
    )


BOARD: dict[str, Callable[[Drawn], tuple[dict[str, Any] | None, str]]] = {
    "pareto": Drawn.pareto,
    "utility": Drawn.utility,
    "ranks": Drawn.ranks,
    "seeds": Drawn.seeds,
    "confidence": Drawn.confidence,
    "steps": _steps,
}
"""Pictures of one board."""
ACROSS = "critical-difference"
"""The picture of all boards together."""
NAMES = (*BOARD, ACROSS)


def pictures_of(board: Drawn, names: Sequence[str]) -> list[Picture]:
    """The pictures of a board; those that it has no numbers for are left out."""
    found = []
    for name in names:
        if name in BOARD:
            specification, caption = BOARD[name](board)
            if specification is not None:
                counts = f"{board.task}, {board.judge.pack.card.seeds} seeds: "
                found.append(Picture(f"{board.task}-{name}".replace("/", "-"), specification, counts + caption))
    return found


def picture_across(boards: Mapping[str, Sequence[Row]], theme: Theme = LIGHT) -> Picture | None:
    """The critical-difference diagram of several boards; None where they share too few methods."""
    ranks = across.mean_ranks(boards)
    if ranks is None:
        return None
    pairs = ", ".join(f"{better} before {worse}" for better, worse in ranks.apart) or "none"
    left_out = f" Not run on every task: {', '.join(ranks.left_out)}." if ranks.left_out else ""
    return Picture(
        ACROSS,
        across.critical_difference(ranks, theme),
        f"Mean ranks of {len(ranks.names)} methods by distance over {ranks.tasks} tasks (1 is best; what collapsed "
        f"shares the last). Methods under one bar are not told apart (Nemenyi, 5 %); that all are alike has p = "
        f"{ranks.p:.2g} (Iman and Davenport). Pairs told apart by Wilcoxon's test on the "
        f"ranks, corrected by Holm: {pairs}. Tasks on one image set are not independent.{left_out}",
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Row -> a name that fits: hyper-parameters become an ellipsis where the method has one such row only."""
    labels = {name: MethodLabel.parse(name) for name in names}
    heads = [label.name for label in labels.values() if label.values]
    return {
        name: f"{label.name}{MORE}" if label.values and heads.count(label.name) == 1 else name
        for name, label in labels.items()
    }


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Figure names as asked for; ``all`` is every one.

    Raises:
        UsageError: There is no such figure.
    """
    unknown = sorted(set(names) - {*NAMES, "all"})
    if unknown:
        raise UsageError(f"There is no figure {unknown[0]!r}. Choose from: {', '.join(NAMES)}, all.")
    return NAMES if "all" in names else tuple(dict.fromkeys(names))
