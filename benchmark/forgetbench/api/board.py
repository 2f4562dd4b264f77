"""Boards in memory: the scored and ranked runs of one task."""

from __future__ import annotations

import fnmatch
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.reference import read_pack
from forgetbench.evidence.run import Run, read_run
from forgetbench.registry import unknown
from forgetbench.runner.results import Results
from forgetbench.scoring.scorecards import BoardRow, Distance, Effect, MetricBand, Scorecard, Value
from forgetbench.scoring.scorer import NO_UNLEARNING, PARTIAL, RETRAIN, RankedRuns, Scorer, rank_runs
from forgetbench.scoring.vocabulary import Verdict

if TYPE_CHECKING:
    import altair
    import pandas as pd

    from forgetbench.metrics.cost import Cost
    from forgetbench.options import Scalar
    from forgetbench.reporting.figures.catalog import ScoredBoard
    from forgetbench.reporting.table_writer import Table

REFERENCE_METHODS = {RETRAIN: "retrain", NO_UNLEARNING: "none", PARTIAL: "retrain"}
"""Label of a reference row -> name of its method."""


class Rank(NamedTuple):
    """The rank interval of a row: the ranks between the rows that are found better and those that are found worse."""

    low: int
    """Best place."""
    high: int
    """Worst place."""

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


@dataclass(frozen=True, eq=False)
class RunResult:
    """One row of a board: a method with its scores, or one of the two reference rows.

    ``result["lira.forget"]`` is one metric with its interval, oracle band and z.
    """

    task: str
    """Name of the task."""
    scorecard: Scorecard
    """All scores."""
    row: BoardRow | None
    """Place on the board; None for reference rows and other rows that are never ranked (sentinels)."""
    run: Run | None
    """Recorded evidence; None for reference rows."""

    @property
    def label(self) -> str:
        """Name of the row: the method's, with the hyper-parameters that were given."""
        return self.scorecard.name

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.run.manifest.method.name if self.run else REFERENCE_METHODS[self.label]

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        """All hyper-parameters; empty for reference rows."""
        return self.run.manifest.method.parameters if self.run else {}

    @property
    def rank(self) -> Rank | None:
        """Its rank interval; None where it is not ranked."""
        row = self.row
        return Rank(row.low, row.high) if row is not None and row.low is not None and row.high is not None else None

    @property
    def unranked_reason(self) -> str:
        """Why the row is not ranked; empty where it is."""
        if self.rank is not None:
            return ""
        return (self.row.reason if self.row else self.scorecard.exclusion_reason) or "shown for reference"

    @property
    def distance(self) -> Distance | None:
        """Distance to retraining with its 95 % interval; None where a ranking metric is missing."""
        return self.scorecard.distance

    @property
    def verdict(self) -> Verdict | None:
        """What the row achieves in words, such as ``better than doing nothing``; None where the board does not rank."""
        return self.scorecard.verdict

    @property
    def forgotten(self) -> Effect:
        """Share of the way from No unlearning (0) to Retrain (1), with its 95 % interval."""
        return self.scorecard.forgotten

    @property
    def harm(self) -> Effect:
        """Accuracy lost beyond retraining's, as a share, with its 95 % interval."""
        return self.scorecard.harm

    @property
    def flags(self) -> tuple[str, ...]:
        """Warnings, such as ``over-forgotten`` or ``harmed``."""
        return self.scorecard.flags

    @property
    def metrics(self) -> Mapping[str, Value]:
        """Every metric by name."""
        return self.scorecard.metrics

    @property
    def cost(self) -> Cost:
        """Cost of unlearning relative to retraining."""
        return self.scorecard.cost

    @property
    def folder(self) -> Path | None:
        """Folder of the recorded evidence; None for reference rows."""
        return self.run.folder if self.run else None

    def __getitem__(self, metric: str) -> Value:
        return self.scorecard[metric]

    def __repr__(self) -> str:
        place = f"rank={self.rank}" if self.rank else f"not ranked: {self.unranked_reason}"
        distance = f", distance={self.distance.value:.2f}" if self.distance else ""
        verdict = f", {self.verdict}" if self.verdict else ""
        return f"RunResult({self.label!r} on {self.task}, {place}{distance}{verdict})"


class BoardResult:
    """The board of one task: rows in order of rank, each with all scores.

    Iterating gives `RunResult` objects: ranked rows, the two reference rows, then rows that are not ranked.
    ``board["ssd"]`` is the row of that label. ``board + other`` ranks the rows of both together.

    Args:
        task: Name of the task.
        runs: Recorded runs of the task.
        scorer: Scores them against the task's reference models; None where oracles were skipped, so that the board
            has runs and no scores.
        repeats: Further runs of the same methods on the same originals, with other seeds of the methods.
        attacks: Folders of the attacks that were run on the board, as `forgetbench attack` writes them.
    """

    def __init__(
        self,
        task: str,
        runs: Sequence[Run],
        scorer: Scorer | None,
        repeats: Sequence[Run] = (),
        attacks: Sequence[Path] = (),
    ) -> None:
        self.task = task
        self._attacks = tuple(attacks)
        self._repeats = tuple(repeats)
        self._runs = tuple(runs)
        self._scorer = scorer

    @property
    def runs(self) -> list[Path]:
        """Folders of the recorded evidence, in the order in which the methods were given."""
        return [run.folder for run in self._runs]

    @property
    def completed_runs(self) -> list[Path]:
        """Folders of the runs that completed, which can be submitted."""
        return [run.folder for run in self._runs if run.manifest.status == "ok"]

    @property
    def failures(self) -> dict[str, str]:
        """Label -> reason, of the rows whose method failed."""
        manifests = [run.manifest for run in self._runs]
        return {manifest.row: manifest.reason for manifest in manifests if manifest.status == "failed"}

    @property
    def reference_folder(self) -> Path:
        """Folder of the reference bundle: originals, oracles and labels that runs are scored against.

        Raises:
            UsageError: Oracles were skipped.
        """
        return self._reference.bundle.folder

    @property
    def is_scored(self) -> bool:
        """Whether there are oracles to score the runs against."""
        return self._scorer is not None

    @cached_property
    def results(self) -> tuple[RunResult, ...]:
        """All rows in order of rank.

        Raises:
            UsageError: Oracles were skipped, so that nothing is scored.
        """
        from forgetbench.reporting.tables import rows_in_order

        runs = {run.manifest.row: run for run in self._runs}
        return tuple(
            RunResult(self.task, card, place, runs.get(card.name)) for card, place in rows_in_order(self._ranked)
        )

    @property
    def scorecards(self) -> list[Scorecard]:
        """The scorecards of all rows, in order of rank."""
        return [result.scorecard for result in self.results]

    @property
    def labels(self) -> list[str]:
        """The labels of all rows, in order of rank."""
        return [result.label for result in self.results]

    @property
    def ranks(self) -> dict[str, Rank]:
        """Label of each ranked row -> its places."""
        return {result.label: result.rank for result in self.results if result.rank is not None}

    @property
    def bands(self) -> dict[str, MetricBand]:
        """Metric -> the band in which retrained models themselves fall."""
        return self._ranked.bands.bands

    @property
    def ranking_metrics(self) -> tuple[str, ...]:
        """The metrics that decide the ranks on this board."""
        return self._ranked.bands.ranking

    @cached_property
    def tables(self) -> list[Table]:
        """The board as a table and, for a stream of requests, a second table of its steps."""
        from forgetbench.reporting.streams import tables_of

        return tables_of(self._ranked, self._reference.bundle, self._runs)

    @cached_property
    def attack_tables(self) -> list[Table]:
        """The worst known attack on each row, in one table; none where nothing was attacked."""
        from forgetbench.api.attacks import AttackResult
        from forgetbench.reporting.attacks import worst_table
        from forgetbench.reporting.table_writer import Table

        if not self._attacks:
            return []
        found = AttackResult(self._reference, self._attacks, {run.manifest.row: run.folder for run in self._runs}, {})
        try:
            return [worst_table(self.task, found.scores, found.bands)]
        except ForgetBenchError as error:  # old or damaged evidence of an attack is no fault of the board
            return [Table(f"{self.task}: worst known attack", ("Method",), (), (str(error),), ())]

    def published_tables(self) -> list[Table]:
        """Published results of the task's setting, each next to this board's first row of the same method."""
        from forgetbench.reporting.literature import compare_with_papers

        order = {folder: number for number, folder in enumerate(self.runs)}
        first: dict[str, RunResult] = {}
        for result in sorted(self, key=lambda result: order[result.folder] if result.folder else -1):
            first.setdefault(result.method, result)
        methods = {result.label: method for method, result in first.items()}
        steps = [record for table in self.tables[1:] for record in table.records if record["method"] in methods]
        requests = [{**record, "method": methods[str(record["method"])]} for record in steps]
        return compare_with_papers(self.task, {name: result.scorecard for name, result in first.items()}, requests)

    @cached_property
    def figures(self) -> ScoredBoard:
        """What the board's figures are drawn from."""
        from forgetbench.reporting.figures.catalog import ScoredBoard

        return ScoredBoard(self._reference, self._runs)

    def to_frame(self) -> pd.DataFrame:
        """All scores as a pandas DataFrame.

        Returns:
            One line per row and metric (index: ``method``, ``metric``; the first metric is ``distance``), with the
            columns ``value``, ``low`` and ``high`` (95 % interval) and ``z`` (deviations from the oracle band); NaN
            where a number does not exist. ``board.to_frame()["value"].unstack()`` has a column per metric.

        Raises:
            UsageError: Oracles were skipped, so that nothing is scored.
        """
        import pandas as pd

        return pd.concat({card.name: card.to_frame() for card in self.scorecards}, names=["method", "metric"])

    def to_latex(self) -> str:
        """The board as a LaTeX table (needs the package booktabs)."""
        from forgetbench.reporting.table_writer import to_latex

        return to_latex(self.tables)

    def to_markdown(self) -> str:
        """The board as a Markdown table."""
        from forgetbench.reporting.table_writer import to_markdown

        return to_markdown(self.tables)

    def plot(self, kind: str = "ranks") -> altair.TopLevelMixin:
        """A chart of the board (needs the extra ``plot``).

        Args:
            kind: ``ranks``, ``pareto`` (distance against cost), ``utility`` (forgetting against utility), ``seeds``
                (every ranking metric, seed by seed), ``confidence`` (distributions on the forget set) or ``steps``
                (streams of requests).

        Returns:
            An Altair chart: notebooks show it, ``chart.save("board.svg")`` writes it.

        Raises:
            UsageError: The kind is unknown, or the board lacks what it shows.
        """
        import altair

        from forgetbench.reporting.figures.catalog import BOARD, pictures_of

        if kind not in BOARD:
            raise UsageError(unknown("figure", kind, list(BOARD)))
        pictures = pictures_of(self.figures, [kind])
        if not pictures:
            raise UsageError(f"The board of {self.task} has no values for the figure {kind!r}.")
        chart: altair.TopLevelMixin = altair.Chart.from_dict(pictures[0].specification)
        return chart

    def __getitem__(self, label: str) -> RunResult:
        for result in self.results:
            if result.label == label:
                return result
        raise UsageError(unknown("row", label, self.labels))

    def __iter__(self) -> Iterator[RunResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results) if self.is_scored else len(self._runs)

    def __add__(self, other: BoardResult) -> BoardResult:
        """The rows of two boards of one task, ranked together.

        Raises:
            UsageError: The boards are of different tasks or reference models, or both have a row of the same label
                with other evidence.
        """
        if self._reference.bundle.digest != other._reference.bundle.digest:
            raise UsageError(
                f"Only boards with the same reference models can be added, not {self!r} and {other!r}: run both on the "
                "same task with the same seeds and draws."
            )
        runs = {run.manifest.row: run for run in self._runs}
        for run in other._runs:
            known = runs.setdefault(run.manifest.row, run)
            if known.manifest.models != run.manifest.models:
                raise UsageError(f"Both boards have a row {run.manifest.row!r}, with different evidence.")
        repeats = (*self._repeats, *other._repeats)
        attacks = dict.fromkeys((*self._attacks, *other._attacks))
        return BoardResult(self.task, list(runs.values()), self._scorer, repeats, tuple(attacks))

    def __repr__(self) -> str:
        if self._scorer is None:
            return f"BoardResult({self.task}, {len(self._runs)} runs, not scored)"
        card = self._scorer.bundle.card
        return f"BoardResult({self.task}, {len(self._runs)} runs, {card.seeds} seeds, {card.draws} draws)"

    def __str__(self) -> str:
        return self.to_markdown() if self.is_scored else repr(self)

    def _repr_html_(self) -> str:
        if not self.is_scored:
            return f"<p>{html.escape(repr(self))}</p>"
        from forgetbench.reporting.html_report import table_html

        return "\n".join(f"<h4>{html.escape(table.title)}</h4>{table_html(table)}" for table in self.tables)

    @cached_property
    def _ranked(self) -> RankedRuns:
        return rank_runs(self._reference, self._runs, self._repeats)

    @property
    def _reference(self) -> Scorer:
        if self._scorer is None:
            raise UsageError(
                f"{self.task} was run without oracles (skip_oracles), so nothing is scored. The recorded runs are in "
                "`board.runs`; run without skip_oracles to score them."
            )
        return self._scorer


def load_results(
    tasks: str | Sequence[str] = "*", *, methods: str | Sequence[str] = "*", home: str | Path | None = None
) -> list[BoardResult]:
    """The boards of everything that was run on this machine.

    Args:
        tasks: Names or wildcard patterns of tasks.
        methods: Names or wildcard patterns of rows to rank among each other.
        home: ForgetBench's folder; ``FORGETBENCH_HOME`` or the user's data folder by default.

    Returns:
        One board per task, definition and number of seeds and draws; empty where nothing matches.

    Example:
        >>> load_results("digits/*", methods=["ssd*", "scrub*"])
        []
    """
    from forgetbench.api.attacks import recorded_attacks

    results = Results(Path(home)) if home is not None else Results()
    patterns = [methods] if isinstance(methods, str) else list(methods)
    boards = []
    for pack, folders in results.finished([tasks] if isinstance(tasks, str) else tasks).items():
        runs = [read_run(folder) for folder in folders]
        chosen = [run for run in runs if any(fnmatch.fnmatch(run.manifest.row, pattern) for pattern in patterns)]
        if chosen:
            repeats = [again for run in chosen for again in map(read_run, results.repeats(run.manifest))]
            scorer = results.scorer(read_pack(pack))
            attacked = recorded_attacks(results, scorer.bundle)
            boards.append(BoardResult(chosen[0].manifest.task, chosen, scorer, repeats, attacked))
    return boards
