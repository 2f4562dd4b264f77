"""Evidence: what unlearned models answered, with a manifest that says how it came about.

A *run* is a folder: ``manifest.json`` and one ``d<draw>-s<seed>.npz`` for each unlearned model, its logits on the
fixed lists of examples. Local scoring reads the same files that are submitted.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.store import write_atomically

Array = npt.NDArray[Any]
Logits = dict[str, Array]
"""Subset name -> logits, (n, K) for one model or (S, n, K) for a population."""

SUBSETS = ("forget", "retain", "withheld", "validation", "test", "test-forgotten", "unseen")
FEATURES = "features:"
"""Prefix of the arrays that hold penultimate features of a subset's rows (erase boards only)."""
CLIP = 60_000.0
MANIFEST = "manifest.json"
SCHEMA: Literal[1] = 1

Status = Literal["ok", "failed", "diverged", "not-applicable"]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Text = Annotated[str, StringConstraints(max_length=20_000)]


class Record(BaseModel):
    """Base of all records: frozen, and an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ArrayRecord(Record):
    """Shape, type and hash of one array in an evidence file."""

    shape: tuple[int, int]
    """Rows and outputs."""
    dtype: Literal["float16"]
    """Evidence is float16 (protocol section 1)."""
    sha256: Hash
    """SHA-256 of the array's bytes in C order."""


class ModelRecord(Record):
    """One unlearned model: where its answers are, and what making it cost."""

    draw: int = Field(ge=0)
    """Which forget set."""
    seed: int = Field(ge=0)
    """Which original."""
    file: Annotated[str, StringConstraints(pattern=r"^d\d{1,4}-s\d{1,4}\.npz$")]
    """The evidence file in the run's folder."""
    original: Hash
    """SHA-256 of the original model's weights."""
    arrays: dict[str, ArrayRecord]
    """Each array of the file."""
    seconds: float | None = Field(default=None, ge=0)
    """Wall time of ``unlearn`` alone, in seconds."""
    peak_memory: int | None = Field(default=None, ge=0)
    """Peak memory on a GPU, in bytes."""
    share_changed: float | None = Field(default=None, ge=0, le=1)
    """Share of the parameters whose value changed."""
    notes: dict[str, float | str] = {}
    """What the method reported about itself."""


class MethodRecord(Record):
    """Which method, with what hyper-parameters, from what source."""

    name: Name
    """Its name in the registry, or the outsider's class name."""
    label: Annotated[str, StringConstraints(max_length=200)] = ""
    """The row's name where it is not the method's: the hyper-parameters that were asked for stand behind it."""
    title: Text
    """Its title in words."""
    family: Name
    """Its family, as in its card."""
    needs: tuple[str, ...]
    """Which of forget, retain and validation it reads."""
    parameters: dict[str, Any]
    """Hyper-parameters, all of them."""
    changes_training: bool = False
    """Whether it trained originals of its own."""
    sentinel: bool = False
    """Whether it is a sentinel of the audit, not a contestant."""
    source_sha256: Hash
    """SHA-256 of the file that defines it."""
    source: Annotated[str, StringConstraints(max_length=200_000)] | None = None
    """The source text of a method that is not part of the package."""
    link: Text | None = None
    """Paper or code."""
    bibtex: Text | None = None
    """How to cite it."""


class CostRecord(Record):
    """Cost of unlearning, and of retraining in the same run."""

    flops: float | None = Field(default=None, ge=0)
    """FLOPs of one ``unlearn``, everything included."""
    retrain_flops: float | None = Field(default=None, ge=0)
    """FLOPs of training one oracle."""
    seconds: float | None = Field(default=None, ge=0)
    """Mean wall time of ``unlearn``, in seconds."""
    retrain_seconds: float | None = Field(default=None, ge=0)
    """Mean wall time of training one oracle in the same run, alone on the device; None otherwise."""
    tuning_trials: int = Field(default=1, ge=1)
    """Trials spent on the hyper-parameters; 1 means the defaults."""
    tuning_selector: Literal["none", "oracle-free", "oracle"] = "none"
    """How the trial was chosen."""


class Manifest(Record):
    """What a run says of itself. The server takes identities and costs from it, and never a score."""

    schema_version: Literal[1] = SCHEMA
    """Version of this format."""
    protocol: int
    """Version of the protocol."""
    task: Name
    """Name of the task."""
    task_key: Hash
    """Hash of all that shapes the task's models."""
    method: MethodRecord
    """The method."""
    status: Status = "ok"
    """Whether there is evidence for every (draw, seed)."""
    reason: Text = ""
    """Why not."""
    draws: int = Field(ge=1)
    """Number of forget sets."""
    seeds: int = Field(ge=1)
    """Number of originals."""
    index_hashes: dict[str, dict[str, Hash]]
    """Draw -> subset -> SHA-256 of its row numbers."""
    models: tuple[ModelRecord, ...]
    """One for each (draw, seed)."""
    cost: CostRecord = CostRecord()
    """What it cost."""
    environment: dict[str, str]
    """Versions, hardware, commit."""
    command: Text = ""
    """The command that makes the run again."""
    created: str
    """When, in UTC, ISO 8601."""

    @property
    def row(self) -> str:
        """The row's name: the method, and the hyper-parameters that were asked for."""
        return self.method.label or self.method.name


def encode(logits: Array, *, attributes: bool) -> Array:
    """Logits as evidence: float16 of (logits - row maximum), or of the logits themselves for attributes, clipped.

    Args:
        logits: (n, K) floats.
        attributes: Whether each output is a binary attribute.

    Returns:
        (n, K) float16; NaN and infinity become NaN, which marks a diverged model.
    """
    values = np.asarray(logits, np.float32)
    finite = np.isfinite(values).all(axis=1, keepdims=True)
    values = np.where(finite, values, 0)
    if not attributes:
        values = values - values.max(axis=1, keepdims=True, initial=-np.inf)
    return np.where(finite, np.clip(values, -CLIP, CLIP), np.nan).astype(np.float16)


def index_digest(rows: Array) -> str:
    """SHA-256 of a list of row numbers (little-endian int64)."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<i8").tobytes()).hexdigest()


def array_digest(array: Array) -> str:
    """SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def describe(arrays: Mapping[str, Array]) -> dict[str, ArrayRecord]:
    """The manifest's account of the arrays of one evidence file."""
    return {
        name: ArrayRecord(shape=array.shape, dtype="float16", sha256=array_digest(array))
        for name, array in arrays.items()
    }


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays to an ``.npz``; the same arrays give the same bytes."""
    with path.open("wb") as stream:
        ordered: dict[str, Any] = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
        np.savez(stream, allow_pickle=False, **ordered)


def read_arrays(path: Path, expected: Mapping[str, tuple[int, int]] | None = None) -> Logits:
    """Read an evidence file, and refuse whatever is not one before its arrays are unpacked.

    Args:
        path: The ``.npz`` file.
        expected: Array name -> shape. Missing, additional and larger arrays are refused by the zip's own directory, so
            that a file that would unpack to more than it may is never unpacked.

    Raises:
        ForgetBenchError: It is no such file; the message says what is wrong with it.
    """
    try:
        if expected is not None:
            _check_members(path, expected)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError) as error:
        raise ForgetBenchError(f"{path.name} is not a readable evidence file: {error}") from error
    for name, array in arrays.items():
        if expected is not None and array.shape != tuple(expected[name]):
            raise ForgetBenchError(f"{path.name}: {name} has shape {array.shape}, expected {tuple(expected[name])}")
        if array.dtype != np.float16:
            raise ForgetBenchError(f"{path.name}: {name} is {array.dtype}, expected float16")
    return arrays


def _check_members(path: Path, expected: Mapping[str, tuple[int, int]]) -> None:
    header = 4096
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        if sorted(names) != sorted(expected):
            missing, extra = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
            raise ValueError(f"arrays missing: {missing or 'none'}; not expected: {extra or 'none'}")
        for member, name in zip(members, names, strict=True):
            rows, columns = expected[name]
            if member.file_size > rows * columns * 2 + header:
                raise ValueError(
                    f"{name} would unpack to {member.file_size} bytes, more than {rows} x {columns} float16"
                )


@dataclass(frozen=True, eq=False)
class Run:
    """A run that was read: its manifest and its folder."""

    folder: Path
    manifest: Manifest

    def logits(self, draw: int, seed: int) -> Logits:
        """The arrays of one model, float16, each checked against its hash.

        Raises:
            ForgetBenchError: The file is missing, damaged or not what the manifest says.
        """
        for model in self.manifest.models:
            if (model.draw, model.seed) == (draw, seed):
                arrays = read_arrays(
                    self.folder / model.file, {name: array.shape for name, array in model.arrays.items()}
                )
                for name, array in arrays.items():
                    if array_digest(array) != model.arrays[name].sha256:
                        raise ForgetBenchError(
                            f"{model.file}: {name} is not the array that the manifest describes (SHA-256 differs); "
                            "the upload or the file is damaged: make the run again."
                        )
                return arrays
        raise ForgetBenchError(f"{self.folder} has no evidence for draw {draw}, seed {seed}")

    def population(self, draws: int, seeds: int) -> list[Logits]:
        """For each draw, subset -> float64 logits (S, n, K)."""
        return [stack([self.logits(draw, seed) for seed in range(seeds)]) for draw in range(draws)]


def stack(models: Iterable[Mapping[str, Array]]) -> Logits:
    """Models' arrays as one population, float64 (S, n, K) for each subset that all of them have."""
    models = list(models)
    names = set(models[0]).intersection(*models[1:])
    return {name: np.stack([model[name] for model in models]).astype(np.float64) for name in sorted(names)}


def read_manifest(data: bytes, origin: str = MANIFEST) -> Manifest:
    """A manifest from its JSON.

    Raises:
        UsageError: It does not follow the schema; the message lists every field.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise UsageError(f"{origin} is not a manifest of this version: {fields(error)}") from error


def fields(error: ValidationError) -> str:
    """Every field error of a validation in one line."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())


def read_run(folder: Path) -> Run:
    """Read a run's manifest; its arrays are read when they are asked for.

    Raises:
        UsageError: There is no run in that folder, or its manifest is not valid.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(
            f"{folder} holds no run: {MANIFEST} is missing. A run is the folder that `forgetbench run` names."
        )
    return Run(folder, read_manifest(path.read_bytes(), str(path)))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a run's manifest, last of its files, so that a folder with a manifest is complete."""
    write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
