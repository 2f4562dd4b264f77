"""Files of reference results: what they contain, and reading them. Light, so that a leaderboard's web process can.

A file contains one task: its bands, and for each row the recipe, the score of every metric, the cost and the hashes.
Values have six digits, so that files stay small; a run with equal bits has the same six digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, ValidationError, model_validator

from forgetbench.errors import UsageError, validation_message
from forgetbench.evidence.run import Record
from forgetbench.registry import how_to_list
from forgetbench.runner.costs import SHIPPED
from forgetbench.scoring.vocabulary import PROTOCOL, Verdict, reference_rows
from forgetbench.store import JsonObject

LACKS = (
    "recorded by protocol 1: it has no verdicts, forgotten, harm, recalibration or accuracy by class, and its flag "
    "collapsed is now called harmed"
)
"""What a file of protocol 1 lacks."""

Figures = tuple[float | None, float | None, float | None, float | None]
"""Value, lower and upper end of its 95 % interval, and z."""


class TrialRecord(Record):
    """One trial of tuning."""

    parameters: JsonObject
    """The hyper-parameters that were searched."""
    status: Literal["ok", "harmed", "collapsed", "diverged", "failed"]
    """Whether it could be chosen."""
    value: float | None
    """What the selector minimized."""


class RecalibrationRecord(Record):
    """What recalibration of batch-norm brings back (`scoring.scorecards.Recovery`)."""

    before: Figures | None = None
    """Forgotten, as the models are; the last number is None."""
    after: Figures | None = None
    """Forgotten after recalibration, against recalibrated originals and oracles."""
    recovered: Figures | None = None
    """Before minus after."""
    p: float | None = None
    """Two-sided p that something had been forgotten."""
    recoverable: bool | None = None
    """Whether it comes back; None if that was not tested."""
    accuracies: dict[str, tuple[float, float]] = Field(default={})
    """Subset -> accuracy before and after."""
    reason: str = ""
    """Why it was not tested."""


class ReferenceRow(Record):
    """One row of a board."""

    label: str
    """The row's label: the method, and the hyper-parameters that differ from the network's defaults."""
    parameters: JsonObject = Field(default={})
    """All hyper-parameters; empty for the reference rows."""
    trials: int = 1
    """Trials spent on the hyper-parameters; 1 means the defaults."""
    selector: Literal["none", "oracle-free", "oracle"] = "none"
    """How the trial was chosen."""
    tried: tuple[TrialRecord, ...] = ()
    """The trials, in order; the first is the defaults."""
    status: str = "ok"
    """Whether the row has a score."""
    reason: str = ""
    """Why it is not ranked."""
    rank: tuple[int, int] | None = None
    """Best and worst rank of its rank interval, among the tuned rows."""
    distance: Figures | None = None
    """The distance, by which rows are ranked; its z is None."""
    decided_by: str = ""
    """The metric that determines the distance."""
    within_band: bool | None = Field(default=None, validation_alias=AliasChoices("within_band", "inside"))
    """Whether it is within the family band: not distinguishable from retraining."""
    delta_vs_no_unlearning: tuple[float, ...] | None = Field(
        default=None, validation_alias=AliasChoices("delta_vs_no_unlearning", "over_none")
    )
    """Distance minus No unlearning's, and its paired 95 % interval over seeds."""
    p_vs_no_unlearning: float | None = None
    """Two-sided p of that difference, over all joint sign flips of the seeds."""
    flags: tuple[str, ...] = ()
    """The flags of the board."""
    verdict: Verdict | None = None
    """What the row achieves, in words; None where the board does not rank, and in files of protocol 1."""
    forgotten: Figures | None = None
    """Share of the way from No unlearning to Retrain; its last number is None."""
    forgotten_by: str = ""
    """The metric that it is computed from."""
    harm: Figures | None = None
    """Accuracy lost beyond Retrain's, as a share; its last number is None."""
    gate: tuple[str, ...] = ()
    """One sentence for each threshold of the utility gate that the row missed."""
    recalibration: RecalibrationRecord | None = None
    """Before and after recalibration of batch-norm; None in files of protocol 1."""
    class_accuracy: dict[str, dict[int, float]] = Field(default={})
    """``test`` or ``test-forgotten`` -> class -> mean accuracy over seeds."""
    metrics: dict[str, Figures] = Field(default={})
    """Every metric that could be computed."""
    pseudo: dict[str, tuple[float, ...]] = Field(default={})
    """Pseudo-values of the distance and of the ranking metrics, one per seed."""
    cost: dict[str, float] = Field(default={})
    """Shares of retraining's FLOPs and of the parameters, and seconds on the machine that made it."""
    fingerprint: str = Field(default="", validation_alias=AliasChoices("fingerprint", "source"))
    """The fingerprint of the method when it was recorded; for information, since the values decide."""
    evidence: str = ""
    """SHA-256 over the hashes of all its arrays."""

    @model_validator(mode="before")
    @classmethod
    def _without_tie_group(cls, values: object) -> object:
        """Files of protocol version 1 also number a tie group."""
        return {key: value for key, value in values.items() if key != "group"} if isinstance(values, dict) else values


class ReferenceBoard(Record):
    """One task."""

    protocol: Literal[1, 2] = PROTOCOL
    """Version of the protocol. Files of version 1 lack what version 2 added."""
    task: str
    """Name of the task."""
    title: str
    """The task in words."""
    task_key: str
    """Hash of all that shapes the task's models."""
    track: Literal["match-oracle", "erase", "corrective"]
    """What a good method does."""
    seeds: int
    """Number of originals, and of oracles in each of the two sets."""
    draws: int
    """Number of forget sets."""
    ranking: tuple[str, ...]
    """The metrics that rank."""
    family_limit: float | None
    """The family band."""
    unranked_reason: str = Field(validation_alias=AliasChoices("unranked_reason", "informational"))
    """Why the board ranks no row; "" if it ranks."""
    bands: dict[str, tuple[float, float, float, float, float]]
    """Metric -> mean, 2.5 % and 97.5 % points, standard deviation and floor of its oracle band."""
    originals: str
    """SHA-256 over the originals' weights."""
    index: str
    """SHA-256 over the hashes of all lists of rows."""
    command: str
    """The command that wrote the file."""
    environment: dict[str, str]
    """The environment in which it ran."""
    classes: tuple[str, ...] = ()
    """Names of the classes or attributes; empty in files of protocol 1."""
    rows: tuple[ReferenceRow, ...]
    """The reference rows (Retrain, No unlearning, and on boards of correction a third), then the others by distance."""

    @property
    def references(self) -> int:
        """Number of reference rows."""
        return len(reference_rows(self.track))

    @property
    def lacks(self) -> str:
        """What a file of an earlier protocol lacks, in one sentence; "" for the present one."""
        return LACKS if self.protocol < PROTOCOL else ""


def reference_tasks(folder: Path = SHIPPED) -> list[str]:
    """The tasks that have reference results, sorted."""
    names = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.json"))
    return sorted(name for name in names if not name.startswith("published/"))


def read_board(task: str, folder: Path = SHIPPED) -> ReferenceBoard:
    """The reference board of a task.

    Raises:
        UsageError: There is none, or its file is not of this version.
    """
    path = folder / f"{task}.json"
    if not path.is_file():
        known = how_to_list("reference", reference_tasks(folder))
        raise UsageError(f"No reference results of {task}. {known}")
    try:
        return ReferenceBoard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(f"{path} is not a file of reference results: {validation_message(error)}") from error
