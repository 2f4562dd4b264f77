"""What scoring writes down: oracle bands, scorecards and boards. Plain records, the same after a trip through JSON."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from forgetbench.errors import UsageError
from forgetbench.metrics.cost import Cost
from forgetbench.metrics.registry import Track
from forgetbench.registry import unknown
from forgetbench.scoring.vocabulary import PROTOCOL, Side, Verdict

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["ok", "failed", "diverged", "not-applicable"]


class Record(BaseModel):
    """Base of the records: frozen, unknown keys refused, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MetricBand(Record):
    """Distribution of a metric if both sides are oracles."""

    mean: float
    """Mean over halvings."""
    low: float
    """2.5 % point."""
    high: float
    """97.5 % point."""
    sd: float
    """Standard deviation over halvings."""
    floor: float
    """Margin of practical indifference: z divides by no less."""

    @property
    def width(self) -> float:
        """What z divides by."""
        return max(self.sd, self.floor)


class Reference(Record):
    """One metric on the reference rows of a board."""

    original: float | None
    """No unlearning's value."""
    original_z: float | None
    """No unlearning's z; None where the metric has no band."""
    feasible: bool | None
    """Efficacy metrics: whether No unlearning is far enough from the oracles to rank by. None for other metrics."""
    reason: str = ""
    """Why the metric cannot be computed or does not rank on this board, where there is more to say than its z."""


class ClassFloor(Record):
    """The accuracy below which a class or group counts as lost."""

    kind: Literal["class", "group"]
    """Class of the label, or group of the evidence."""
    key: int
    """Class number (for attributes, the label's bits read as one number) or group number."""
    rows: int
    """Test rows of one draw."""
    floor: float
    """Share of right answers."""


class Gate(Record):
    """Thresholds of the utility gate (protocol section 4)."""

    reference: float
    """The lower of the originals' and the oracles' mean test accuracy."""
    chance: float
    """Accuracy of guessing on test: the larger of 1/K and the most frequent class's share."""
    collapse_floor: float
    """Test accuracy below this, on average or in at least half of the seeds, is collapse."""
    floor: float
    """Mean test accuracy below this is harm."""
    seed_floor: float
    """A single model whose test accuracy is below this is unstable."""
    classes: tuple[ClassFloor, ...]
    """Classes and groups with at least 50 test rows."""


class Distance(Record):
    """The ranking number: the largest |z| over the board's ranking metrics."""

    value: float
    """The distance."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Upper end."""
    metric: str
    """The metric that decides it: one that ranks, or the shift that replaces it where it is saturated."""
    pseudo_values: tuple[float, ...] = Field(validation_alias=AliasChoices("pseudo_values", "pseudo"))
    """Pseudo-values, one per seed; empty with too few seeds."""
    within_band: bool = Field(validation_alias=AliasChoices("within_band", "inside"))
    """Whether it is below the family limit: not distinguishable from retraining."""


class Anchors(Record):
    """A metric with a side on No unlearning and on Retrain: with all seeds, then with each seed left out."""

    metric: str
    """The metric."""
    original: tuple[float, ...] = ()
    """Its value on No unlearning, 1 + S numbers; one number where no seed can be left out, none without originals."""
    retrain: tuple[float, ...]
    """Its value on Retrain, in the same way."""


class ReferenceValues(Record):
    """Values of a per-model metric on the reference rows: one tuple of S values for each draw."""

    references: tuple[tuple[float, ...], ...]
    """The reference oracles."""
    originals: tuple[tuple[float, ...], ...]
    """The originals."""


class RecoveryScale(Record):
    """What *recovered* is compared with on a board, for one change of all its models."""

    anchors: Anchors
    """The metric from which *forgotten* is computed, on changed originals and changed control oracles."""
    band: MetricBand
    """*Recovered* if one half of the pooled oracles is taken for the contestant, and the other one for Retrain."""


class Bands(Record):
    """Everything about a board that depends on its oracles and originals alone."""

    protocol: Literal[2] = PROTOCOL
    """Version of the protocol."""
    track: Track
    """What the task asks for."""
    seeds: int
    """Models on each side, S."""
    draws: int
    """Forget sets, G."""
    split_halves: int = Field(validation_alias=AliasChoices("split_halves", "halvings"))
    """Splits of the pooled oracles behind each band, mirrored ones included."""
    all_rows: bool = False
    """Whether metrics that never rank are computed from all rows, and not from a fixed number of them."""
    bands: dict[str, MetricBand]
    """Metric name to its band."""
    references: dict[str, Reference]
    """Metric name to what is known of it without any contestant."""
    ranking: tuple[str, ...]
    """The metrics that rank here: feasible efficacy metrics, then harm metrics."""
    excluded_metrics: tuple[str, ...] = Field(default=(), validation_alias=AliasChoices("excluded_metrics", "unfit"))
    """Metrics that failed the audit of the task and do not rank; ``references`` has the reasons."""
    family_limit: float | None
    """A contestant is inside when its distance is below this; None where nothing ranks."""
    gate: Gate
    """Thresholds of the utility gate."""
    per_model: dict[str, ReferenceValues] = Field(default={}, validation_alias=AliasChoices("per_model", "singles"))
    """Metric name to the value of each single model of the reference rows."""
    forgetting: Anchors | None = None
    """The metric from which *forgotten* is computed; None where it cannot be."""
    forgetting_reason: str = ""
    """Why *forgotten* cannot be computed on this board; "" if it can."""
    recalibration: RecoveryScale | None = None
    """What *recovered* by recalibration is compared with; None where it cannot be tested."""
    recalibration_reason: str = ""
    """Why recalibration cannot be tested on this board; "" if it can."""
    utility: tuple[Anchors, ...] = ()
    """The accuracy gaps from which *harm* is computed: test and retain."""
    no_unlearning: Distance | None = None
    """The distance of No unlearning, with which every row is compared; None where nothing ranks."""
    unranked_reason: str = Field(default="", validation_alias=AliasChoices("unranked_reason", "informational"))
    """Why the board shows scores but no ranks; "" if it ranks."""


class Value(Record):
    """One metric of one contestant."""

    value: float | None = None
    """The value; None where it could not be computed."""
    low: float | None = None
    """Lower end of the 95 % interval over seeds."""
    high: float | None = None
    """Upper end."""
    seeds: tuple[float, ...] = ()
    """One value per seed, for dots; their mean need not be the value."""
    pseudo_values: tuple[float, ...] = Field(default=(), validation_alias=AliasChoices("pseudo_values", "pseudo"))
    """Pseudo-values, whose mean is the value: differences between two records are taken from these."""
    band: MetricBand | None = None
    """The oracle band; None where the metric has none."""
    z: float | None = None
    """(value - band mean) / max(sd, floor)."""
    within_band: bool | None = Field(default=None, validation_alias=AliasChoices("within_band", "inside"))
    """Whether the value is in its own band (95 %, floor respected); None if the band does not calibrate the metric."""
    reason: str = ""
    """Why there is no value."""


class VarianceSplit(Record):
    """Standard deviations of one metric of a row, by several runs of its method on each original."""

    training: float
    """Between originals: other seeds of training."""
    unlearning: float
    """Between runs on one original: other seeds of the method."""
    repeats: int
    """Runs on each original."""


class Effect(Record):
    """How much was forgotten, or how much accuracy was lost."""

    value: float | None = None
    """The value as a share: of the way to retraining, or of right answers. None where it cannot be computed."""
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    """Upper end."""
    pseudo_values: tuple[float, ...] = ()
    """Pseudo-values, one per seed; empty with too few seeds."""
    metric: str = ""
    """The metric that it is computed from."""
    reason: str = ""
    """Why there is no value."""


class AccuracyChange(Record):
    """Mean accuracy on one subset, before and after a change of the models."""

    before: float
    """As they are."""
    after: float
    """After the change."""


class Recovery(Record):
    """What a change that teaches a model nothing brings back of what had been forgotten.

    The change is recalibration: running statistics of batch-norm are estimated again on retained images.
    """

    before: Effect = Effect()
    """Forgotten, as the models are."""
    after: Effect = Effect()
    """Forgotten after the change, against originals and oracles that were changed alike."""
    recovered: Effect = Effect()
    """Before minus after, paired by seed."""
    band: MetricBand | None = None
    """The same difference over halvings of the oracles."""
    p: float | None = None
    """Two-sided p that more was forgotten than without unlearning, over all joint sign flips of the seeds."""
    accuracies: dict[str, AccuracyChange] = {}
    """Subset -> accuracy before and after."""
    recoverable: bool | None = None
    """Whether something had been forgotten, and more of it comes back than by chance; None if that was not tested."""
    reason: str = "not scored"
    """Why it was not tested; "" if it was."""


class DistanceDifference(Record):
    """The distance of a row minus that of No unlearning, paired by seed."""

    value: float
    """The difference; below 0 the row is nearer to retraining."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    p: float
    """Two-sided p over all joint sign flips of the seeds."""


class GateResult(Record):
    """What the utility gate says of a contestant."""

    collapsed: bool
    """More than half of what is known beyond chance is lost: shown, but not ranked."""
    harmed: bool
    """Mean accuracy, or that of a class or group, is below its floor: ranked, and flagged."""
    unstable: bool
    """At least one model is below the floor of single models."""
    unstable_models: int
    """Models (over draws and seeds) below the floor of single models."""
    models: int
    """All models."""
    median: float
    """Median test accuracy of the models."""
    reasons: tuple[str, ...] = ()
    """One sentence for each threshold missed."""


class Scorecard(Record):
    """Every metric of one contestant on one task."""

    protocol: Literal[2] = PROTOCOL
    """Version of the protocol."""
    name: str
    """The row's name."""
    status: Status = "ok"
    """Whether there was something to score."""
    reason: str = ""
    """Why not."""
    track: Track
    """What the task asks for."""
    seeds: int
    """Models on each side, S."""
    draws: int
    """Forget sets, G."""
    metrics: dict[str, Value] = {}
    """Metric name to value, in the order of names."""
    ranking: tuple[str, ...] = ()
    """The metrics that rank on this board."""
    distance: Distance | None = None
    """None where a ranking metric is missing."""
    gate: GateResult | None = None
    """The utility gate."""
    flags: tuple[str, ...] = ()
    """Over- or under-forgotten, suspicious, collapsed or harmed, unstable, recoverable; or a status that is not ok."""
    sides: dict[str, Side] = {}
    """Metric with a side -> the side on which it shows this row, for metrics that are outside their own band."""
    forgotten: Effect = Effect()
    """Share of the way from No unlearning (0) to Retrain (1)."""
    harm: Effect = Effect()
    """Accuracy lost on test or on retain, whichever is larger, beyond Retrain's; as a share, so 0.01 is one point."""
    class_accuracy: dict[str, dict[int, float]] = {}
    """``test`` or ``test-forgotten`` -> class (for attributes, their number) -> mean accuracy over draws and seeds."""
    recalibration: Recovery = Recovery()
    """What recalibration of batch-norm brings back."""
    delta_vs_no_unlearning: DistanceDifference | None = None
    """The distance minus No unlearning's; None where there is no distance or there are too few seeds."""
    verdict: Verdict | None = None
    """The verdict; None on boards without ranks, and for rows that were not scored."""
    variance: dict[str, VarianceSplit] = {}
    """``distance`` or metric -> its deviations by training and by unlearning; empty where the method ran once on each
    original: intervals hold the seeds of training only, then."""
    cost: Cost = Cost()
    """What it cost, as it was given."""
    own_originals: float | None = None
    """Mean test accuracy of the originals that the method trained for itself; None where it takes the board's."""
    unranked_reason: str = Field(default="", validation_alias=AliasChoices("unranked_reason", "informational"))
    """Why the board shows no ranks; "" if it does."""

    @property
    def exclusion_reason(self) -> str:
        """Why this row is not ranked; "" if it is."""
        if self.status != "ok":
            return f"{self.status}: {self.reason}" if self.reason else self.status
        if self.gate is not None and self.gate.collapsed:
            more = f"; and {len(self.gate.reasons) - 2} more" if len(self.gate.reasons) > 2 else ""
            return "collapsed: " + "; ".join(self.gate.reasons[:2]) + more
        if self.unranked_reason:
            return self.unranked_reason
        if self.distance is None:
            missing = [name for name in self.ranking if self.metrics[name].value is None]
            return f"incomplete: no {', '.join(missing)}"
        return "" if self.distance.pseudo_values else "too few seeds for pseudo-values"

    def __getitem__(self, metric: str) -> Value:
        """One metric by name.

        Raises:
            UsageError: Unknown metric; the message lists similar names.
        """
        if metric not in self.metrics:
            raise UsageError(unknown("metric", metric, list(self.metrics)))
        return self.metrics[metric]

    def to_frame(self) -> pd.DataFrame:
        """The distance, *forgotten*, *harm* and every metric as a pandas DataFrame: ranking metrics before others.

        Returns:
            Index ``metric``; columns ``value``, ``low`` and ``high`` (95 % interval) and ``z``, NaN where a number does
            not exist.
        """
        import pandas as pd

        distance = self.distance
        lines: dict[str, tuple[float | None, ...]] = {"distance": (None,) * 4}
        if distance is not None:
            lines["distance"] = (distance.value, distance.low, distance.high, None)
        for name, effect in (("forgotten", self.forgotten), ("harm", self.harm)):
            lines[name] = (effect.value, effect.low, effect.high, None)
        for name in dict.fromkeys((*self.ranking, *self.metrics)):
            value = self.metrics.get(name, Value())
            lines[name] = (value.value, value.low, value.high, value.z)
        columns = ["value", "low", "high", "z"]
        frame = pd.DataFrame.from_dict(lines, orient="index", columns=columns, dtype=float)
        return frame.rename_axis("metric")

    def _repr_html_(self) -> str:
        """The metrics as a table, for notebooks."""
        head = f"<h4>{html.escape(self.name)}</h4>"
        notes = "; ".join(filter(None, [self.verdict, self.exclusion_reason, *self.flags]))
        return (
            head
            + self.to_frame().dropna(how="all").to_html(na_rep="–", float_format="{:.4f}".format)
            + (f"<p>{html.escape(notes)}</p>" if notes else "")
        )


class BoardRow(Record):
    """One row of a board, in the order in which rows are shown."""

    index: int
    """Position of the scorecard in the list that was ranked."""
    name: str
    """The row's name."""
    rank: int | None
    """Place by distance among the ranked rows; None where it takes none."""
    low: int | None
    """Best rank of its rank interval."""
    high: int | None
    """Worst rank of its rank interval."""
    detectable: float | None
    """How much farther the next row would have to be to be separated four times in five; None where unknown, or where
    no distance on the board is so large."""
    reason: str
    """Why it is not ranked."""


class Board(Record):
    """The ranking of a task's contestants."""

    protocol: Literal[2] = PROTOCOL
    """Version of the protocol."""
    rows: tuple[BoardRow, ...]
    """Ranked rows by distance, then the rest."""
    unranked_reason: str = Field(validation_alias=AliasChoices("unranked_reason", "informational"))
    """Why no row is ranked; "" if rows are."""
