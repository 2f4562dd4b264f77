"""Validation of arguments: every metric first converts its input to finite float64 of the right shape."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.errors import UsageError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

ROUNDING = 1e-6
"""Tolerance for shares below 0 or above 1, such as means computed in float32."""

ONE_HOT_ROWS = 20
"""Rows times one less than columns from which labels with exactly one 1 in each row are taken as one-hot classes."""

ONE_HOT_CLASSES = 5
"""Columns from which such labels are refused; with fewer there is a warning."""

_INT64_BITS = 63

RAGGED = "expected one array of numbers, with rows of equal length and no text"


def plain_array(values: ArrayLike, name: str, first: str = "row") -> NDArray[Any]:
    """Convert values to an array, of any type that numpy gives it.

    Args:
        values: Anything that numpy reads as an array.
        name: Name of the array for error messages.
        first: What the first of two axes counts; see `floats`.

    Raises:
        UsageError: They are None or contain None, are ragged, mix numbers with text, or some are masked.
    """
    if values is None:
        raise UsageError(f"{name}: None was given, but numbers are needed.")
    if _has_masked(values):
        raise UsageError(f"{name}: some values are masked. Remove the masked ones, or fill them with numbers.")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = "" if isinstance(values, list | tuple) else " For a tensor, give tensor.detach().cpu().numpy()."
        raise UsageError(f"{name}: {RAGGED} ({reason}).{advice}") from error
    if array.dtype == object:
        for index in np.ndindex(array.shape):
            if array[index] is None:
                raise UsageError(f"{name}: None{_position(index, first)}. It is not a number; leave it out.")
            if isinstance(array[index], str | bytes):
                raise UsageError(f"{name}: {RAGGED} ({array[index]!r}{_position(index, first)}).")
    return array


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
    array = _to_float64(values, name, first)
    if ndim is not None and array.ndim != ndim:
        raise UsageError(f"{name}: expected {ndim} dimensions, but the shape is {array.shape}.")
    return _require_finite(array, name, first, logits=ndim == 3 or first != "row")  # only logits have three axes


def shares(values: ArrayLike, name: str = "shares", *, ndim: int | None = None, first: str = "row") -> FloatArray:
    """Validate an array of finite numbers in [0, 1], for formulas that hold for shares of 1 only.

    Raises:
        UsageError: A value is not finite, or below 0 or above 1 by more than rounding.
    """
    array = floats(values, name, ndim=ndim, first=first)
    outside = (array < -ROUNDING) | (array > 1.0 + ROUNDING)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise UsageError(
            f"{name}: {array[index]:.9g}{_position(index, first)} is not between 0 and 1. Use shares, such as 0.595 "
            "instead of 59.5."
        )
    return array


def at_least(values: ArrayLike, name: str, minimum: float = 0.0, *, ndim: int | None = None) -> FloatArray:
    """Validate an array of finite numbers of at least a minimum.

    Raises:
        UsageError: A value is not finite, or smaller than the minimum.
    """
    array = floats(values, name, ndim=ndim)
    below = array < minimum
    if below.any():
        index = tuple(int(i) for i in np.argwhere(below)[0])
        raise UsageError(f"{name}: {array[index]:.9g}{_position(index, 'row')} is below {minimum:g}.")
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


def open_share(value: float, name: str) -> float:
    """Validate one number above 0 and below 1, such as a confidence or the level of a test.

    Raises:
        UsageError: It is outside, NaN, infinite, or not a single number.
    """
    validated = number(value, name)
    if not 0.0 < validated < 1.0:
        raise UsageError(f"{name}: {validated:.9g} is not above 0 and below 1. Use shares, such as 0.95 instead of 95.")
    return validated


def whole(value: int, name: str, minimum: int = 0) -> int:
    """Validate one whole number of at least a minimum, such as a number of rows or a seed.

    Raises:
        UsageError: It is not a whole number, or smaller.
    """
    validated = number(value, name)
    if validated != round(validated) or validated < minimum:
        raise UsageError(f"{name}: {validated:.9g} is not a whole number of at least {minimum}.")
    return int(validated)


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
        UsageError: The number of rows differs, a class number has no logit, an attribute is neither 0 nor 1, or five or
            more classes are one-hot. Fewer give a warning, because attributes of a few people may look the same.
    """
    labels = plain_array(values, name)
    if labels.size and labels.dtype.kind not in "iub":
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
    if attributes:
        _check_one_hot(labels, name)
    return labels


def same_kind(*labels: IntArray) -> None:
    """Require class numbers on all sides, or the same number of attributes on all.

    Raises:
        UsageError: Some are class numbers and others attributes, or the numbers of attributes differ.
    """
    if len({array.shape[1:] for array in labels}) > 1:
        shapes = " and ".join(str(array.shape) for array in labels)
        raise UsageError(
            f"labels: class numbers (n,) or A attributes (n, A), the same on every side; the shapes are {shapes}."
        )


def classes_of(values: ArrayLike, rows: int, name: str = "classes") -> NDArray[Any]:
    """Validate one class for each row: whole numbers of an integer type, or names.

    Raises:
        UsageError: The type is another one, such as float, or there is not one class for each row.
    """
    classes = plain_array(values, name)
    if classes.shape != (rows,):
        raise UsageError(f"{name}: one class for each of {rows} rows is needed, but the shape is {classes.shape}.")
    if rows and classes.dtype.kind not in "iubU":
        raise UsageError(f"{name}: expected integers, but the type is {classes.dtype}.")
    return classes


def mask_of(values: ArrayLike, shape: tuple[int, ...], name: str) -> BoolArray:
    """Validate a mask: booleans, or zeros and ones, of a given shape.

    Raises:
        UsageError: The shape is another one (the message says if it is transposed), or a value is neither 0 nor 1.
    """
    mask = plain_array(values, name)
    if mask.shape != shape:
        advice = " It is transposed." if mask.shape == shape[::-1] else ""
        raise UsageError(f"{name}: expected the shape of phi, {shape}, but it is {mask.shape}.{advice}")
    if mask.dtype != np.bool_ and (mask.dtype.kind not in "iu" or not np.isin(mask, (0, 1)).all()):
        raise UsageError(f"{name}: expected true and false for each model and example.")
    flags: BoolArray = mask.astype(np.bool_)
    return flags


def spaced(count: int, max_rows: int | None) -> IntArray:
    """Indices of at most ``max_rows`` of ``count`` rows, evenly spaced; of all rows if it is None.

    Raises:
        UsageError: ``max_rows`` is not a whole number of at least 1.
    """
    size = count if max_rows is None else min(count, whole(max_rows, "max_rows", 1))
    indices: IntArray = np.arange(size, dtype=np.int64) * count // max(size, 1)
    return indices


def joint_labels(labels: IntArray) -> NDArray[Any]:
    """One number per distinct label: class numbers as they are; for (n, A) attributes their bits read as one number.

    The numbers are Python's, of any size, where they do not fit 64 bits.
    """
    if labels.ndim == 1:
        return labels
    joint: NDArray[Any] = _bits(labels[:, :_INT64_BITS])
    for start in range(_INT64_BITS, labels.shape[1], _INT64_BITS):
        joint = joint + _bits(labels[:, start : start + _INT64_BITS]).astype(object) * (1 << start)
    return joint


def _bits(attributes: IntArray) -> IntArray:
    weights = np.left_shift(np.int64(1), np.arange(attributes.shape[1], dtype=np.int64))
    number: IntArray = (attributes * weights).sum(axis=1)
    return number


def _check_one_hot(labels: IntArray, name: str) -> None:
    """Refuse one-hot classes, or warn of them where they may be attributes.

    Every row has exactly one 1 and every column has one, in so many rows that attributes are not so by chance. Rows of
    one person have the same attributes: two people may differ in one of two, but hardly five each have one of five.
    """
    rows, columns = labels.shape
    enough = rows * (columns - 1) >= ONE_HOT_ROWS
    if not (enough and (labels.sum(axis=1) == 1).all() and labels.any(axis=0).all()):
        return
    message = (
        f"{name}: every row has exactly one 1, as one-hot classes have, but {columns} attributes are expected. Use "
        "class numbers, labels.argmax(axis=1)."
    )
    if columns >= ONE_HOT_CLASSES:
        raise UsageError(message)
    warnings.warn(message, stacklevel=4)


def _has_masked(values: object) -> bool:
    if isinstance(values, list | tuple):
        return any(map(_has_masked, values))
    return bool(np.ma.is_masked(values))


def _to_float64(values: ArrayLike, name: str, first: str = "row") -> FloatArray:
    array = plain_array(values, name, first)
    if array.dtype.kind not in "biufO":
        raise UsageError(f"{name}: {RAGGED} (the type is {array.dtype}).")
    try:
        numbers: FloatArray = array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {RAGGED} ({error}).") from error
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
        advice = "NaN is not a number; if a model returned it, the model has diverged. Leave it out."
    else:
        advice = "Infinity is not supported: use a finite number instead; for a score, one beyond all others."
    raise UsageError(f"{name}: {value}{_position(index, first)}. {advice}")


def _position(index: tuple[int, ...], first: str) -> str:
    if not index:
        return ""
    if len(index) >= 3:
        return f" in row {index[-2]} of model {index[-3]}"
    return f" in row {index[0]}" if first == "row" or len(index) == 1 else f" in row {index[1]} of {first} {index[0]}"
