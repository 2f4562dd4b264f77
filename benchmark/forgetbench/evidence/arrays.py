"""Predictions as arrays: how logits are encoded, hashed, written and read. This file shapes stored predictions."""

from __future__ import annotations

import hashlib
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from forgetbench.errors import ForgetBenchError
from forgetbench.user_files import describe_file

Array = npt.NDArray[Any]
Item = TypeVar("Item")
Logits = dict[str, Array]
"""Subset name -> logits, (n, K) for one model or (S, n, K) for a population."""

FEATURES = "features:"
"""Prefix of the arrays that hold penultimate features of a subset's rows (erase boards only)."""
RECALIBRATED = "recalibrate:"
"""Prefix of the arrays that hold a subset's logits after batch-norm statistics were estimated again."""
RETESTED = ("forget", "test", "test-forgotten")
"""Subsets that a model answers again after it was changed, in evidence as ``<name of the change>:<subset>``."""
CLIP = 60_000.0
AGAIN = "Copy it from its source again, or make the run again."
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    MemoryError,
    OverflowError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    SyntaxError,
)
"""What zipfile and numpy raise on damaged files; the last two come from an array's header, a Python literal."""


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
        with np.errstate(over="ignore"):  # of a model that nearly diverged; the result is clipped
            values = values - values.max(axis=1, keepdims=True, initial=-np.inf)
    return np.where(finite, np.clip(values, -CLIP, CLIP), np.nan).astype(np.float16)


def index_digest(rows: Array) -> str:
    """SHA-256 of a list of row numbers (little-endian int64)."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<i8").tobytes()).hexdigest()


def array_digest(array: Array) -> str:
    """SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays to an ``.npz``; the same arrays give the same bytes."""
    with path.open("wb") as stream:
        ordered: dict[str, Any] = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
        np.savez(stream, allow_pickle=False, **ordered)


def load_arrays(path: Path) -> dict[str, Array]:
    """Load the arrays of an ``.npz`` file; pickled objects are refused.

    Raises:
        UNREADABLE: It is not such a file. Callers explain it.
    """
    with path.open("rb") as stream, warnings.catch_warnings():  # numpy leaves a damaged file open that it opened
        warnings.simplefilter("ignore")  # and warns of headers that Python 2 wrote
        with np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy returns the bytes of a member without an array header
            raise TypeError(f"{name} is not an array")
    return arrays


def read_arrays(path: Path, expected: Mapping[str, tuple[int, int]] | None = None) -> Logits:
    """Read an evidence file; anything else is refused before its arrays are unpacked.

    Args:
        path: The ``.npz`` file.
        expected: Array name -> shape. Missing, additional and larger arrays are refused by the zip's own directory, so
            that a file that would unpack to more than allowed is never unpacked.

    Raises:
        ForgetBenchError: It is not an evidence file; the message says why.
    """
    try:
        if expected is not None:
            _check_members(path, expected)
        arrays = load_arrays(path)
    except UNREADABLE as error:
        what = f"it is {kind}" if (kind := _other_kind(path)) else first_line(error)
        raise ForgetBenchError(f"{path.name} is not a readable evidence file: {what}. {AGAIN}") from error
    for name, array in arrays.items():
        if expected is not None and array.shape != tuple(expected[name]):
            shape = tuple(expected[name])
            raise ForgetBenchError(f"{path.name}: {name} has shape {array.shape}, expected {shape}. {AGAIN}")
        if array.dtype != np.float16:
            raise ForgetBenchError(f"{path.name}: {name} is {array.dtype}, expected float16. {AGAIN}")
    return arrays


def first_line(error: BaseException) -> str:
    """The first line of an error's message, shortened; its type if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")


def _other_kind(path: Path) -> str:
    """What a file is that is no zip archive; "" if that is not known."""
    try:
        return "" if zipfile.is_zipfile(path) else describe_file(path)
    except OSError:
        return ""


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


def retested(arrays: Mapping[str, Item], prefix: str = RECALIBRATED) -> dict[str, Item]:
    """What is recorded of models that were changed before they answered, by subset; empty if nothing is.

    Args:
        arrays: Array name -> logits of one model or of a population, or their record.
        prefix: Which change.
    """
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def stack(models: Iterable[Mapping[str, Array]]) -> Logits:
    """Models' arrays as one population, (S, n, K) for each subset that all of them have."""
    models = list(models)
    names = set(models[0]).intersection(*models[1:])
    return {name: np.stack([model[name] for model in models]) for name in sorted(names)}
