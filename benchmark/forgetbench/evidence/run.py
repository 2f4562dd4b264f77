"""Evidence: the predictions of unlearned models, with a manifest that says how they were made.

A *run* is a folder: ``manifest.json`` and one ``d<draw>-s<seed>.npz`` for each unlearned model, its logits on the fixed
lists of examples. ``originals/`` has the predictions of the originals that a method trained for itself, and ``steps/``
those after each request of a stream but the last. Local scoring reads the same files that are submitted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from forgetbench.errors import ForgetBenchError, UsageError, described_pattern, validation_message
from forgetbench.evidence.arrays import Array, Logits, array_digest, read_arrays, stack
from forgetbench.store import write_atomically

MANIFEST = "manifest.json"
SCHEMA: Literal[3] = 3
"""Version of manifests. Version 2 added the answers after recalibration, which evidence of version 1 lacks; version 3
the corrective track: subset ``test-triggered``, and oracles trained without the found part of harmful rows."""
EARLIER_SCHEMA: Literal[2] = 2
"""The version that is still written of other tracks, so that bundles which are built again keep their digest."""
Schema = Literal[1, 2, 3]
"""Versions that are read."""
CHANGED_STATE = "changed global state"
"""The note of a model whose method changed global state of the process; it was restored afterwards."""

Status = Literal["ok", "failed", "diverged", "not-applicable"]
Hash = Annotated[
    str, StringConstraints(pattern=described_pattern(r"^[0-9a-f]{64}$", "a SHA-256: 64 hexadecimal digits, lower case"))
]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
MethodName = Annotated[
    str,
    StringConstraints(
        pattern=described_pattern(
            r"^\w([\w+-]|\.\d)*$",
            "letters, digits, - _ +, and a dot only before a digit; the first one is a letter",
        ),
        max_length=80,
    ),
]
"""Letters, digits, - _ +, and a dot before a digit: it is part of addresses, which may end like a file name."""
Text = Annotated[str, StringConstraints(max_length=20_000)]
MAX_KEYS = 200
"""Most hyper-parameters of a method at all depths, and most facts of an environment."""
MAX_PARAMETERS = 20_000
"""Longest JSON text of all hyper-parameters."""
Index = Annotated[int, Field(ge=0, le=9999)]
"""Number of a draw, a seed or a request; names of files have at most four digits."""
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Flops = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]


def _check_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Limit the number of hyper-parameters, nested ones included, and the length of their text."""
    if (count := _count_keys(parameters)) > MAX_KEYS:
        raise ValueError(f"has {count} keys, at most {MAX_KEYS} are allowed")
    if len(text := json.dumps(parameters, default=str)) > MAX_PARAMETERS:
        raise ValueError(f"has {len(text)} characters, at most {MAX_PARAMETERS} are allowed")
    return parameters


def _count_keys(value: object) -> int:
    """Number of keys in a JSON value, at all depths."""
    if isinstance(value, dict):
        return len(value) + sum(map(_count_keys, value.values()))
    return sum(map(_count_keys, value)) if isinstance(value, list) else 0


Parameters = Annotated[dict[str, Any], AfterValidator(_check_parameters)]
Environment = Annotated[dict[Name, Annotated[str, StringConstraints(max_length=2000)]], Field(max_length=MAX_KEYS)]


class Record(BaseModel):
    """Base of all records: frozen; an unknown key is refused, and errors do not repeat submitted values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ArrayRecord(Record):
    """Shape, type and hash of one array in an evidence file."""

    shape: tuple[int, int]
    """Rows and outputs."""
    dtype: Literal["float16"]
    """Evidence is float16 (protocol section 1)."""
    sha256: Hash
    """SHA-256 of the array's bytes in C order."""


class AnswersRecord(Record):
    """One file of predictions."""

    draw: Index
    """The forget set."""
    seed: Index
    """The original."""
    arrays: dict[str, ArrayRecord]
    """Each array of the file."""


class OriginalRecord(AnswersRecord):
    """The predictions of an original that the method trained for itself, on the rows of a draw."""

    file: Annotated[
        str,
        StringConstraints(
            pattern=described_pattern(r"^originals/d\d{1,4}-s\d{1,4}\.npz$", "originals/d<draw>-s<seed>.npz")
        ),
    ]
    """The file with its predictions in the run's folder."""
    weights: Hash
    """SHA-256 of its weights."""


class WorkRecord(AnswersRecord):
    """The predictions of a model, and what it cost to make."""

    seconds: Seconds | None = None
    """Wall time of ``unlearn`` alone, in seconds; for a stream, of this request."""
    peak_memory: int | None = Field(default=None, ge=0, le=2**60)
    """Peak memory on a GPU, in bytes."""
    share_changed: float | None = Field(default=None, ge=0, le=1)
    """Share of the parameters whose value differs from the original's."""
    notes: dict[str, float | str] = {}
    """Values that the method reported."""


class StepRecord(WorkRecord):
    """A model of a stream after one of its requests; after the last it is a `ModelRecord`."""

    step: Index
    """Position of the request, from 0."""
    file: Annotated[
        str,
        StringConstraints(
            pattern=described_pattern(
                r"^steps/k\d{1,4}-d\d{1,4}-s\d{1,4}\.npz$", "steps/k<request>-d<draw>-s<seed>.npz"
            )
        ),
    ]
    """The file with its predictions in the run's folder, without penultimate features."""


class ModelRecord(WorkRecord):
    """One unlearned model: its predictions, and what it cost to make."""

    file: Annotated[
        str, StringConstraints(pattern=described_pattern(r"^d\d{1,4}-s\d{1,4}\.npz$", "d<draw>-s<seed>.npz"))
    ]
    """The evidence file in the run's folder."""
    original: Hash
    """SHA-256 of the original model's weights."""
    weights: Hash | None = None
    """SHA-256 of its own weights, for an imported checkpoint."""
    measured: dict[Name, Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]] = {}
    """Relearning times in manifests of earlier versions. Nothing reads them: attacks have taken their place."""


class MethodRecord(Record):
    """The method: name, hyper-parameters and source."""

    name: MethodName
    """Its name in the registry, or the name of a foreign class."""
    label: Annotated[str, StringConstraints(max_length=200)] = ""
    """The row's name: the method's, followed by the hyper-parameters that were given; "" is the method's name."""
    title: Text
    """Its title in words."""
    family: Name
    """Its family, as in its card."""
    needs: tuple[str, ...]
    """The data that it reads: forget, retain, validation."""
    parameters: Parameters
    """All hyper-parameters."""
    changes_training: bool = False
    """Whether it trained its own originals."""
    observed: bool = False
    """Whether its models were unlearned by other code and imported."""
    sentinel: bool = False
    """Whether it is a sentinel of the audit, which is not ranked."""
    fingerprint: Annotated[
        str,
        StringConstraints(
            pattern=described_pattern(r"^[0-9a-f]+(\+[0-9a-f]+)?$", "hexadecimal digits, and optionally + and more"),
            max_length=80,
        ),
    ] = Field(validation_alias=AliasChoices("fingerprint", "source_sha256"))
    """What identifies its behavior: its version in this package, or the hash of a foreign file's syntax tree."""
    source: Annotated[str, StringConstraints(max_length=200_000)] | None = None
    """The source text of a method that is not part of the package."""
    link: Text | None = None
    """Paper or code."""
    bibtex: Text | None = None
    """How to cite it."""


class CostRecord(Record):
    """Cost of unlearning, and of retraining in the same run."""

    flops: Flops | None = None
    """FLOPs of one ``unlearn``, everything included; for a stream, the mean over its requests."""
    retrain_flops: Flops | None = None
    """FLOPs of training one oracle; for a stream, the mean over the oracles after each request."""
    seconds: Seconds | None = None
    """Mean wall time of ``unlearn``, in seconds; for a stream, of one request."""
    retrain_seconds: Seconds | None = None
    """Mean wall time of training one oracle in the same run, alone on the device; None otherwise."""
    training_flops: Flops | None = None
    """FLOPs of training one of the method's own originals."""
    training_seconds: Seconds | None = None
    """Mean wall time of training one of the method's own originals, in seconds."""
    tuning_trials: int = Field(default=1, ge=1, le=10**9)
    """Trials spent on the hyper-parameters; 1 means the defaults."""
    tuning_selector: Literal["none", "oracle-free", "oracle"] = "none"
    """How the trial was chosen."""


class Manifest(Record):
    """The manifest of a run. The server takes identities and costs from it, and never a score."""

    schema_version: Schema = EARLIER_SCHEMA
    """Version of this format."""
    protocol: int = Field(ge=1, le=9999)
    """Version of the protocol when it was written; scores follow the scoring code's version."""
    task: Name
    """Name of the task."""
    task_key: Hash
    """Hash of all that shapes the task's models."""
    method: MethodRecord
    """The method."""
    status: Status = "ok"
    """``ok`` if there is evidence for every (draw, seed)."""
    reason: Text = ""
    """Why there is no evidence."""
    draws: int = Field(ge=1, le=9999)
    """Number of forget sets."""
    seeds: int = Field(ge=1, le=9999)
    """Number of originals."""
    index_hashes: dict[str, dict[str, Hash]]
    """Draw -> subset -> SHA-256 of its row numbers."""
    models: tuple[ModelRecord, ...]
    """One for each (draw, seed)."""
    originals: tuple[OriginalRecord, ...] = ()
    """One for each (draw, seed) if the method changes original training; otherwise empty."""
    steps: tuple[StepRecord, ...] = ()
    """For a stream: one for each (draw, seed) and each request but the last."""
    cost: CostRecord = CostRecord()
    """The cost."""
    environment: Environment
    """Versions, hardware and commit."""
    command: Text = ""
    """The command that repeats the run."""
    created: str
    """Time of writing, in UTC, ISO 8601."""

    @property
    def evidence(self) -> tuple[ModelRecord | OriginalRecord, ...]:
        """The files of a submission: unlearned models, which are scored, and the method's own originals."""
        return self.models + self.originals

    @property
    def row(self) -> str:
        """The row's name: the method, and the hyper-parameters that were given."""
        return self.method.label or self.method.name


def schema_of(track: str) -> Schema:
    """The version in which evidence and bundles of a track are written."""
    return SCHEMA if track == "corrective" else EARLIER_SCHEMA


def describe(arrays: Mapping[str, Array]) -> dict[str, ArrayRecord]:
    """The records of the arrays of one evidence file."""
    return {
        name: ArrayRecord(shape=array.shape, dtype="float16", sha256=array_digest(array))
        for name, array in arrays.items()
    }


@dataclass(frozen=True, eq=False)
class Run:
    """A run on disk: its manifest and its folder."""

    folder: Path
    manifest: Manifest

    def logits(self, draw: int, seed: int) -> Logits:
        """The arrays of one model, float16, each checked against its hash.

        Raises:
            ForgetBenchError: The file is missing, damaged or not what the manifest says.
        """
        for model in self.manifest.models:
            if (model.draw, model.seed) == (draw, seed):
                return self.answers(model)
        raise ForgetBenchError(f"{self.folder} has no evidence for draw {draw}, seed {seed}.")

    def answers(self, record: ModelRecord | OriginalRecord | StepRecord) -> Logits:
        """The arrays of one record, float16, each checked against its hash.

        Raises:
            ForgetBenchError: The file is missing, damaged or not what the manifest says.
        """
        arrays = read_arrays(self.folder / record.file, {name: array.shape for name, array in record.arrays.items()})
        for name, array in arrays.items():
            if array_digest(array) != record.arrays[name].sha256:
                raise ForgetBenchError(
                    f"{record.file}: {name} is not the array that the manifest describes (SHA-256 differs): "
                    "the upload or the file is damaged. Make the run again."
                )
        return arrays

    def population(self, draws: int, seeds: int) -> list[Logits]:
        """For each draw, subset -> float16 logits (S, n, K)."""
        return [stack([self.logits(draw, seed) for seed in range(seeds)]) for draw in range(draws)]

    def originals(self, draws: int, seeds: int) -> list[Logits] | None:
        """The same for the originals that the method trained for itself; None if it started from the board's."""
        records = {(record.draw, record.seed): record for record in self.manifest.originals}
        if not records:
            return None
        return [stack([self.answers(records[draw, seed]) for seed in range(seeds)]) for draw in range(draws)]


def read_manifest(data: bytes, origin: str = MANIFEST) -> Manifest:
    """A manifest from its JSON.

    Raises:
        UsageError: It does not follow the schema; the message lists every wrong field.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise UsageError(
            f"{origin} is not a manifest of this version: {validation_message(error)}. Make the run again."
        ) from error


def read_run(folder: Path) -> Run:
    """Read a run's manifest; arrays are read when they are used.

    Raises:
        UsageError: There is no run in that folder, or its manifest is not valid.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(
            f"{folder} is not a run: {MANIFEST} is missing. `forgetbench run` prints the folders of its runs."
        )
    return Run(folder, read_manifest(path.read_bytes(), str(path)))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a run's manifest, last of its files, so that a folder with a manifest is complete."""
    write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
