"""What every metric does to its input first: float64, the right shape, and no NaN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.errors import UsageError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

ROUNDING = 1e-6
"""How far beyond 0 and 1 a share may lie, such as a mean that was taken in float32."""

RAGGED = "one array of numbers is needed, with rows of one length and no text"


def floats(values: ArrayLike, name: str = "scores", *, ndim: int | None = None, first: str = "row") -> FloatArray:
    """An array of finite float64.

    Args:
        values: Anything that numpy reads as numbers; float16 evidence is widened here.
        name: What to call the array in an error.
        ndim: The number of dimensions that it must have, where that matters.
        first: What the first of two axes counts: rows, or (phi, probabilities) the models that answer those rows.

    Raises:
        UsageError: A value is NaN or infinite (the message names its row) or no number, or the shape is another.
    """
    array = _read(values, name)
    if ndim is not None and array.ndim != ndim:
        raise UsageError(f"{name}: {ndim} dimensions expected, but the shape is {array.shape}.")
    return _finite(array, name, first, answers=ndim == 3 or first != "row")  # only logits have three axes


def shares(values: ArrayLike, name: str = "shares", *, ndim: int | None = None) -> FloatArray:
    """An array of finite numbers in [0, 1], for formulas that hold for shares of 1 only.

    Raises:
        UsageError: A value is not finite, or below 0 or above 1 by more than rounding.
    """
    array = floats(values, name, ndim=ndim)
    wrong = (array < -ROUNDING) | (array > 1.0 + ROUNDING)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise UsageError(
            f"{name}: {array[where]:.9g}{_place(where, 'row')} is no share of 1: give shares, 0.595 and not 59.5."
        )
    return array


def phi_of(values: ArrayLike, name: str = "phi") -> FloatArray:
    """What several models say about each example, (S, n), checked, as float64; an error names model and row.

    Raises:
        UsageError: A value is not finite, or there are not two dimensions.
    """
    return floats(values, name, ndim=2, first="model")


def number(value: float, name: str) -> float:
    """One finite number.

    Raises:
        UsageError: It is NaN or infinite, or no single number.
    """
    return float(floats(value, name, ndim=0))


def share(value: float, name: str) -> float:
    """One number in [0, 1].

    Raises:
        UsageError: It lies outside, is NaN or infinite, or is no single number.
    """
    return float(shares(value, name, ndim=0))


def same_shape(left: FloatArray, right: FloatArray, what: str, *, after: int = 0) -> None:
    """Refuse two sides that numpy would stretch to fit each other, and sides without a row.

    Args:
        left: One side.
        right: The other.
        what: What both must have alike, for the error.
        after: Axes at the front that may differ in length: 1 where each side has its own number of models or rows.

    Raises:
        UsageError: The shapes differ, or there is nothing on a side.
    """
    if left.ndim != right.ndim or left.shape[after:] != right.shape[after:] or not left.size or not right.size:
        raise UsageError(f"Both sides need {what}, and at least one: {left.shape} against {right.shape}.")


def layers_of(left: Sequence[ArrayLike], right: Sequence[ArrayLike]) -> list[tuple[FloatArray, FloatArray]]:
    """The weights of two models, layer by layer, checked.

    Raises:
        UsageError: The numbers of layers or their shapes differ, or there are none.
    """
    if len(left) != len(right) or not len(left):
        raise UsageError(f"As many layers on both sides, please: {len(left)} and {len(right)}.")
    pairs = [(floats(one, "weights"), floats(two, "weights")) for one, two in zip(left, right, strict=True)]
    for one, two in pairs:
        same_shape(one, two, "layers of the same shape")
    return pairs


def logits_of(values: ArrayLike, name: str = "logits") -> FloatArray:
    """Logits of one model (n, K) or of several (S, n, K), checked, as float64.

    Raises:
        UsageError: A value is not finite, or there are neither two nor three dimensions.
    """
    array = _read(values, name)
    if array.ndim not in {2, 3}:
        raise UsageError(f"{name}: logits are (examples, classes) or (models, examples, classes), not {array.shape}.")
    return _finite(array, name, "row", answers=True)


def labels_of(values: ArrayLike, logits: FloatArray, name: str = "labels") -> IntArray:
    """Labels that fit the logits: class numbers (n,), or zeros and ones (n, A) for A binary attributes.

    Raises:
        UsageError: The number of rows differs, a class number has no logit, or an attribute is neither 0 nor 1.
    """
    try:
        labels = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {RAGGED} ({error}).") from error
    if labels.dtype.kind not in "iub":
        raise UsageError(f"{name}: whole numbers expected, but the type is {labels.dtype}.")
    labels = labels.astype(np.int64)
    rows, outputs = logits.shape[-2:]
    attributes = labels.ndim == 2
    fits = labels.shape == (rows, outputs) if attributes else labels.shape == (rows,)
    if not fits:
        raise UsageError(f"{name}: the shape is {labels.shape}, but the logits have {rows} rows and {outputs} columns.")
    if not attributes and outputs < 2:
        raise UsageError(f"{name}: class labels need at least two logits a row; for attributes give labels (n, A).")
    top = 1 if attributes else outputs - 1
    wrong = (labels < 0) | (labels > top)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise UsageError(f"{name}: {labels[where]} in row {where[0]}, where 0 to {top} is expected.")
    return labels


def spaced(count: int, most: int | None) -> IntArray:
    """Places of at most ``most`` of so many rows, evenly spaced; of all where it is None."""
    kept = count if most is None else min(count, most)
    places: IntArray = np.arange(kept, dtype=np.int64) * count // max(kept, 1)
    return places


def joint_labels(labels: IntArray) -> IntArray:
    """One number per distinct label: class numbers as they are; for (n, A) attributes their bits read as one number."""
    if labels.ndim == 1:
        return labels
    weights = np.left_shift(np.int64(1), np.arange(labels.shape[1], dtype=np.int64))
    joint: IntArray = (labels * weights).sum(axis=1)
    return joint


def _read(values: ArrayLike, name: str) -> FloatArray:
    try:
        array = np.asarray(values)
        numbers: FloatArray | None = None if array.dtype.kind in "USc" else array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {RAGGED} ({error}).") from error
    if numbers is None:
        raise UsageError(f"{name}: {RAGGED} (the type is {array.dtype}).")
    return numbers


def _finite(array: FloatArray, name: str, first: str, *, answers: bool) -> FloatArray:
    finite = np.isfinite(array)
    if finite.all():
        return array
    where = tuple(int(i) for i in np.argwhere(~finite)[0])
    value = array[where]
    if answers and first == "row" and value == -np.inf:
        how = "Where classes are masked, put a finite number such as -1e4 in place of minus infinity."
    elif answers:
        how = "A model that answers NaN or infinity has diverged; leave it out, or report the run as failed."
    elif np.isnan(value):
        how = "That is no number, nor is None; where a model gave it, the model has diverged. Leave it out."
    else:
        how = "Infinity cannot be computed with: put a finite number in its place, for a score one beyond all others."
    raise UsageError(f"{name}: {value}{_place(where, first)}. {how}")


def _place(where: tuple[int, ...], first: str) -> str:
    if not where:
        return ""
    if len(where) >= 3:
        return f" in row {where[-2]} of model {where[-3]}"
    return f" in row {where[0]}" if first == "row" or len(where) == 1 else f" in row {where[1]} of {first} {where[0]}"
