"""Logits and labels that somebody saved, checked against each other before anything is scored.

Every refusal names the file's role and the subset, says what is wrong, and how to mend it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics.arrays import FloatArray, floats, labels_of
from forgetbench.metrics.spec import Track
from forgetbench.scoring.comparisons import SUBSETS
from forgetbench.scoring.singles import FEATURES

NEEDED = ("forget", "retain", "test")
GROUPS = "groups:"

Answers = Mapping[str, FloatArray]


def truth_of(labels: Mapping[str, ArrayLike], track: Track) -> dict[str, NDArray[Any]]:
    """The labels (n,) or (n, A) of every subset, and groups (n,) where there are any.

    Raises:
        UsageError: A subset is unknown, missing or empty, labels are no whole numbers or one-hot, or groups do not fit.
    """
    found = {name: np.asarray(values) for name, values in labels.items()}
    known = {*SUBSETS, *(GROUPS + subset for subset in SUBSETS)}
    if set(found) - known:
        raise UsageError(f"labels: the subsets are {', '.join(SUBSETS)}, not {', '.join(sorted(set(found) - known))}.")
    _demand(found, "labels", track)
    for name, array in found.items():
        if array.dtype.kind not in "iub":
            whole = array.dtype.kind == "f" and bool((array == np.round(array)).all())
            mend = ", which .astype(int) makes of them" if whole else ""
            raise UsageError(f"labels: {name}: whole numbers expected{mend}, but the type is {array.dtype}.")
        if array.ndim != 1 and (array.ndim != 2 or name.startswith(GROUPS)):
            raise UsageError(
                f"labels: {name}: (n,) class numbers or (n, A) attributes, but the shape is {array.shape}."
            )
    for name in [name for name in found if name.startswith(GROUPS)]:
        subset = name.removeprefix(GROUPS)
        rows = len(found[subset]) if subset in found else 0
        if len(found[name]) != rows:
            raise UsageError(f"labels: {name} has {len(found[name])} rows, but {subset} has {rows}.")
    _no_mixture({name: array for name, array in found.items() if not name.startswith(GROUPS)})
    return found


def answers_of(values: Mapping[str, ArrayLike], role: str, truth: Mapping[str, NDArray[Any]], track: Track) -> Answers:
    """Logits (S, n, K) of every subset that has labels; (n, K) of one model is read as S = 1.

    Raises:
        UsageError: A subset is unknown or missing, or an array is not one of finite real numbers that fits the labels.
    """
    named = set(values) - set(SUBSETS) - {FEATURES + subset for subset in SUBSETS}
    if named:
        raise UsageError(f"{role}: the subsets are {', '.join(SUBSETS)}, not {', '.join(sorted(named))}.")
    found = {name: _logits(array, f"{role}: {name}") for name, array in values.items()}
    _demand(found, role, track)
    absent = [name for name in truth if not name.startswith(GROUPS) and name not in found]
    if absent:
        raise UsageError(
            f"{role}: no logits on {', '.join(absent)}, of which there are labels; leave those out, or add them."
        )
    models, outputs = len(found["forget"]), found["forget"].shape[2]
    _counted_from_0(truth, outputs)
    for name, array in found.items():
        if len(array) != models:
            raise UsageError(f"{role}: {name} has {len(array)} models, but forget has {models}.")
        if name.startswith(FEATURES):
            _features(found, name, role, truth)
            continue
        if array.shape[2] != outputs:
            raise UsageError(f"{role}: {name} has {array.shape[2]} outputs, but forget has {outputs}.")
        if name in truth:
            if array.shape[1] != len(truth[name]):
                raise UsageError(f"{role}: {name} has {array.shape[1]} rows, but there are {len(truth[name])} labels.")
            labels_of(truth[name], array, f"labels: {name}")
    return found


def _features(found: Answers, name: str, role: str, truth: Mapping[str, NDArray[Any]]) -> None:
    """Refuse features that are of other rows than the subset's, or of another width than the first."""
    subset = name.removeprefix(FEATURES)
    rows, width = found[name].shape[1:]
    if subset in truth and rows != len(truth[subset]):
        raise UsageError(f"{role}: {name} has {rows} rows, but there are {len(truth[subset])} labels of {subset}.")
    first = next(other for other in found if other.startswith(FEATURES))
    if width != found[first].shape[2]:
        raise UsageError(
            f"{role}: {name} has {width} features, but {first} has {found[first].shape[2]}: record the same layer."
        )


def _counted_from_0(truth: Mapping[str, NDArray[Any]], outputs: int) -> None:
    """Refuse class numbers that count from 1 in all subsets together, and columns of them."""
    labels = {name: array for name, array in truth.items() if not name.startswith(GROUPS) and len(array)}
    for name, array in labels.items():
        if array.ndim == 2 and array.shape[1] == 1 and outputs > 1:
            raise UsageError(f"labels: {name}: class numbers are (n,), but the shape is {array.shape}: labels.ravel().")
    if all(array.ndim == 1 for array in labels.values()):
        least, most = min(array.min() for array in labels.values()), max(array.max() for array in labels.values())
        if least == 1 and most == outputs:
            raise UsageError(
                f"labels: the classes are 1 to {outputs}, but they count from 0 as the outputs do: subtract 1."
            )


def same_outputs(sides: Mapping[str, Answers]) -> None:
    """Refuse roles whose logits are over different numbers of classes.

    Raises:
        UsageError: They are.
    """
    outputs = {role: side["forget"].shape[2] for role, side in sides.items()}
    if len(set(outputs.values())) > 1:
        counts = ", ".join(f"{role} {count}" for role, count in outputs.items())
        raise UsageError(f"All models need the same outputs, in the same order; there are: {counts}.")


def _demand(found: Mapping[str, NDArray[Any]], role: str, track: Track) -> None:
    needed = (*NEEDED, "test-forgotten") if track == "erase" else NEEDED
    what = f"{'labels of' if role == 'labels' else 'logits on'} {', '.join(needed)} are needed"
    absent = [name for name in needed if name not in found]
    if absent:
        raise UsageError(
            f"{role}: {', '.join(absent)} missing; {what}{' on the erase track' if track == 'erase' else ''}."
        )
    empty = [name for name in needed if not found[name].size]
    if empty:
        raise UsageError(f"{role}: {', '.join(empty)} is empty; {what}.")


def _logits(values: ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise UsageError(f"{name}: real numbers expected, but the type is {array.dtype}.")
    return floats(array[None] if array.ndim == 2 else array, name, ndim=3)


def _no_mixture(labels: Mapping[str, NDArray[Any]]) -> None:
    """Refuse class numbers beside attributes, and one-hot labels, which would be read as attributes."""
    widths = {name: array.shape[1] if array.ndim == 2 else 0 for name, array in labels.items()}
    if len(set(widths.values())) > 1:
        counts = ", ".join(f"{name} {labels[name].shape}" for name in widths)
        raise UsageError(
            f"labels: class numbers (n,) or A attributes (n, A), the same in every subset; there are: {counts}."
        )
    if max(widths.values()) > 1 and all(
        (array == 1).sum(axis=1).min() == array.sum(axis=1).max() == 1 for array in labels.values() if len(array)
    ):
        raise UsageError(
            "labels: every row holds exactly one 1, which is one-hot and would be read as binary attributes: give "
            "class numbers, labels.argmax(axis=1)."
        )
