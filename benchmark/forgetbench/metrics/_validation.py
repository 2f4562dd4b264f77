"""Validation of arguments: every metric first converts its input to finite float64 of the right shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.errors import UsageError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

ROUNDING = 1e-6
"""Tolerance for shares below 0 or above 1, such as means computed in float32."""

RAGGED = "expected one array of numbers, with rows of equal length and no text"


def floats(values: ArrayLike, name: str = "scores", *, ndim: int | None = None, first: str = "row") -> FloatArray:
    """Validate an array of finite numbers, and convert it to float64.

    Args:
        values: Anything that numpy reads as numbers; float16 evidence is widened here.
        name: Name of the array for error messages.
        ndim: The number of dimensions that it must have; any by default.
        first: What the first of two axes counts: rows, or (phi, probabilities) the models that predict those rows.

    Raises:
        UsageError: A value is NaN, infinite (the message names its row) or not a number, or the shape is wrong.
    """
    array = _to_float64(values, name)
    if ndim is not None and array.ndim != ndim:
        raise UsageError(f"{name}: expected {ndim} dimensions, but the shape is {array.shape}.")
    return _require_finite(array, name, first, logits=ndim == 3 or first != "row")  # only logits have three axes


def shares(values: ArrayLike, name: str = "shares", *, ndim: int | None = None) -> FloatArray:
    """Validate an array of finite numbers in [0, 1], for formulas that hold for shares of 1 only.

    Raises:
        UsageError: A value is not finite, or below 0 or above 1 by more than rounding.
    """
    array = floats(values, name, ndim=ndim)
    outside = (array < -ROUNDING) | (array > 1.0 + ROUNDING)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise UsageError(
            f"{name}: {array[index]:.9g}{_position(index, 'row')} is not between 0 and 1. Use shares, such as 0.595 "
            "instead of 59.5."
        )
    return array


def phi_of(values: ArrayLike, name: str = "phi") -> FloatArray:
    """Validate phi of several models on each example, (S, n), and convert it to float64.

    Raises:
        UsageError: A value is not finite (the message names model and row), or there are not two dimensions.
    """
    return floats(values, name, ndim=2, first="model")


def number(value: float, name: str) -> float:
    """Validate one finite number.

    Raises:
        UsageError: It is NaN or infinite, or not a single number.
    """
    return float(floats(value, name, ndim=0))


def share(value: float, name: str) -> float:
    """Validate one number in [0, 1].

    Raises:
        UsageError: It is outside, NaN, infinite, or not a single number.
    """
    return float(shares(value, name, ndim=0))


def same_shape(left: FloatArray, right: FloatArray, what: str, *, after: int = 0) -> None:
    """Require equal, non-empty shapes, so that numpy does not broadcast one side to the other.

    Args:
        left: One side.
        right: The other.
        what: What both sides must have in common, for the error message.
        after: Number of leading axes that may differ in length: 1 if each side has its own number of models or rows.

    Raises:
        UsageError: The shapes differ, or a side is empty.
    """
    if left.ndim != right.ndim or left.shape[after:] != right.shape[after:] or not left.size or not right.size:
        raise UsageError(f"Both sides need {what}, and at least one: {left.shape} against {right.shape}.")


def layers_of(left: Sequence[ArrayLike], right: Sequence[ArrayLike]) -> list[tuple[FloatArray, FloatArray]]:
    """Validate the weights of two models, layer by layer.

    Raises:
        UsageError: The numbers of layers or their shapes differ, or there are no layers.
    """
    if len(left) != len(right) or not len(left):
        raise UsageError(
            f"Both sides need the same number of layers, and at least one: {len(left)} against {len(right)}."
        )
    pairs = [(floats(one, "weights"), floats(two, "weights")) for one, two in zip(left, right, strict=True)]
    for one, two in pairs:
        same_shape(one, two, "layers of the same shape")
    return pairs


def logits_of(values: ArrayLike, name: str = "logits") -> FloatArray:
    """Validate logits of one model (n, K) or of several (S, n, K), and convert them to float64.

    Raises:
        UsageError: A value is not finite, or there are neither two nor three dimensions.
    """
    array = _to_float64(values, name)
    if array.ndim not in {2, 3}:
        raise UsageError(
            f"{name}: expected (examples, classes) or (models, examples, classes), but the shape is {array.shape}."
        )
    return _require_finite(array, name, "row", logits=True)


def labels_of(values: ArrayLike, logits: FloatArray, name: str = "labels") -> IntArray:
    """Validate labels against logits: class numbers (n,), or zeros and ones (n, A) for A binary attributes.

    Raises:
        UsageError: The number of rows differs, a class number has no logit, or an attribute is neither 0 nor 1.
    """
    try:
        labels = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {RAGGED} ({error}).") from error
    if labels.dtype.kind not in "iub":
        raise UsageError(f"{name}: expected integers, but the type is {labels.dtype}.")
    labels = labels.astype(np.int64)
    rows, outputs = logits.shape[-2:]
    attributes = labels.ndim == 2
    fits = labels.shape == (rows, outputs) if attributes else labels.shape == (rows,)
    if not fits:
        raise UsageError(f"{name}: the shape is {labels.shape}, but the logits have {rows} rows and {outputs} columns.")
    if not attributes and outputs < 2:
        raise UsageError(f"{name}: class labels need at least two logits a row. For attributes, use labels (n, A).")
    largest = 1 if attributes else outputs - 1
    outside = (labels < 0) | (labels > largest)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise UsageError(f"{name}: {labels[index]} in row {index[0]}; expected 0 to {largest}.")
    return labels


def spaced(count: int, max_rows: int | None) -> IntArray:
    """Indices of at most ``max_rows`` of ``count`` rows, evenly spaced; of all rows if it is None."""
    size = count if max_rows is None else min(count, max_rows)
    indices: IntArray = np.arange(size, dtype=np.int64) * count // max(size, 1)
    return indices


def joint_labels(labels: IntArray) -> IntArray:
    """One number per distinct label: class numbers as they are; for (n, A) attributes their bits read as one number."""
    if labels.ndim == 1:
        return labels
    weights = np.left_shift(np.int64(1), np.arange(labels.shape[1], dtype=np.int64))
    joint: IntArray = (labels * weights).sum(axis=1)
    return joint


def _to_float64(values: ArrayLike, name: str) -> FloatArray:
    try:
        array = np.asarray(values)
        numbers: FloatArray | None = None if array.dtype.kind in "USc" else array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {RAGGED} ({error}).") from error
    if numbers is None:
        raise UsageError(f"{name}: {RAGGED} (the type is {array.dtype}).")
    return numbers


def _require_finite(array: FloatArray, name: str, first: str, *, logits: bool) -> FloatArray:
    finite = np.isfinite(array)
    if finite.all():
        return array
    index = tuple(int(i) for i in np.argwhere(~finite)[0])
    value = array[index]
    if logits and first == "row" and value == -np.inf:
        advice = "To mask classes, use a finite number such as -1e4 instead of minus infinity."
    elif logits:
        advice = "A model that returns NaN or infinity has diverged; leave it out, or report the run as failed."
    elif np.isnan(value):
        advice = "NaN and None are not numbers; if a model returned it, the model has diverged. Leave it out."
    else:
        advice = "Infinity is not supported: use a finite number instead; for a score, one beyond all others."
    raise UsageError(f"{name}: {value}{_position(index, first)}. {advice}")


def _position(index: tuple[int, ...], first: str) -> str:
    if not index:
        return ""
    if len(index) >= 3:
        return f" in row {index[-2]} of model {index[-3]}"
    return f" in row {index[0]}" if first == "row" or len(index) == 1 else f" in row {index[1]} of {first} {index[0]}"
