"""Columns: what metrics read of a model's answer to an example, reduced from its logits once, in blocks of rows.

All metrics, and all rows of a board, share the columns of the same answers. Logits stay as they were recorded, in
float16; only one block at a time is widened to float64, in which every formula is computed. So an image set with a
thousand classes needs little more memory than its evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from threading import RLock
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics._lazy_scipy import expit
from forgetbench.metrics._validation import FloatArray, IntArray, floats, labels_of
from forgetbench.metrics.logit_statistics import entropies, margins

Item = TypeVar("Item")

Column = Literal["phi", "margin", "confidence", "loss", "entropy", "modified-entropy", "place", "predicted", "correct"]
"""Of each model and example, (S, n): phi; for attributes also the margin, confidence, loss and entropies of each,
(S, n, A); how many classes precede the label; the predicted class, or which attributes are predicted (S, n, A); and
whether the prediction is correct, for attributes the share of them."""

BLOCK = 2**18
"""Logits of one block: 2 MiB in float64, so that a block stays in the processor's cache."""


class Answers(Mapping[str, NDArray[Any]]):
    """Recorded answers of models on one draw: subset -> logits (S, n, K), with `column`. What it derives, it keeps.

    Args:
        arrays: Array name -> logits of the models, or their features.
        labels: Subset -> labels (n,) or (n, A).
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], labels: Mapping[str, NDArray[Any]]) -> None:
        self.arrays, self.labels = arrays, labels
        self._known: dict[Hashable, Any] = {}
        self._lock = RLock()  # rows that are scored at the same time share the references

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], labels: Mapping[str, NDArray[Any]]) -> Answers:
        """The arrays with columns: themselves, if they already have those by these labels."""
        return arrays if isinstance(arrays, cls) and arrays.labels is labels else cls(arrays, labels)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def cached(self, key: Hashable, compute: Callable[[], Item]) -> Item:
        """Something that is derived from the answers, computed at the first call with its key."""
        with self._lock:
            if key not in self._known:
                self._known[key] = compute()
            found: Item = self._known[key]
        return found

    def column(self, name: Column, subset: str) -> NDArray[Any]:
        """A column of all models on one subset.

        Raises:
            UsageError: The subset is missing, a logit is not finite, or the labels do not fit.
        """
        return self.cached((name, subset), lambda: self._compute(name, subset))

    def blocks(self, subset: str, models: int | None = None) -> Iterator[tuple[slice, FloatArray]]:
        """Rows, and the logits of all models on them in float64 (S, b, K), checked.

        Args:
            subset: The subset.
            models: Number of models that a block is to be of, with those of other sides; S by default.

        Raises:
            UsageError: The subset is missing, or a value is not finite.
        """
        if subset not in self.arrays:
            raise UsageError(f"The logits of {subset!r} are missing on one side.")
        array = np.asarray(self.arrays[subset])
        if array.ndim != 3 or array.dtype.kind != "f":
            array = floats(array, f"{subset} logits", ndim=3)
        own, rows, outputs = array.shape
        size = max(1, BLOCK // max((models or own) * outputs, 1))
        for start in range(0, rows, size):
            chosen = slice(start, start + size)
            block = np.array(array[:, chosen], dtype=np.float64, order="C")
            if not np.isfinite(block).all():
                floats(array, f"{subset} logits", ndim=3)  # names the row
            yield chosen, block

    def _compute(self, name: Column, subset: str) -> NDArray[Any]:
        if name in _DERIVED:
            source, derive = _DERIVED[name]
            return derive(self.column(source, subset), self._truth(subset))
        if name in {"entropy", "modified-entropy"}:
            both = self.cached(("entropies", subset), lambda: self._reduced(entropies, subset))
            return both[name == "modified-entropy"]
        reduce = _REDUCED[name]
        return self._reduced(lambda scores, truth: (reduce(scores, truth),), subset)[0]

    def _reduced(
        self, reduce: Callable[[FloatArray, IntArray], tuple[NDArray[Any], ...]], subset: str
    ) -> list[NDArray[Any]]:
        """Arrays (S, n, ...) from those of each block (S, b, ...)."""
        truth = self._truth(subset)
        parts = [reduce(block, truth[rows]) for rows, block in self.blocks(subset)]
        if not parts:
            shape = np.shape(self.arrays[subset])
            return [np.zeros(shape[:2])] * 2 if truth.ndim == 1 else [np.zeros(shape)] * 2
        return [np.concatenate(column, axis=1) for column in zip(*parts, strict=True)]

    def _truth(self, subset: str) -> IntArray:
        if subset not in self.arrays:
            raise UsageError(f"The logits of {subset!r} are missing on one side.")
        return self.cached(("truth", subset), lambda: labels_of(self.labels[subset], np.asarray(self.arrays[subset])))


def predictions(scores: FloatArray, truth: IntArray) -> NDArray[Any]:
    """Predicted classes (..., n), the first of equal logits; or which of the attributes are present (..., n, A)."""
    predicted: NDArray[Any] = scores > 0 if truth.ndim == 2 else scores.argmax(axis=-1)
    return predicted


def places(scores: FloatArray, truth: IntArray) -> IntArray:
    """How many classes precede the label (..., n); of equal logits the first precedes."""
    own = np.take_along_axis(scores, np.broadcast_to(truth[:, None], (*scores.shape[:-1], 1)), axis=-1)
    earlier = np.arange(scores.shape[-1]) < truth[:, None]
    preceding: IntArray = ((scores > own) | ((scores == own) & earlier)).sum(axis=-1)
    return preceding


def _correct(predicted: NDArray[Any], truth: IntArray) -> FloatArray:
    """Correctness (S, n): 0 or 1, for attributes the share of them that is right."""
    if truth.ndim == 2:
        share: FloatArray = (predicted == (truth == 1)).mean(axis=-1)
        return share
    right: FloatArray = (predicted == truth).astype(np.float64)
    return right


_REDUCED: dict[Column, Callable[[FloatArray, IntArray], NDArray[Any]]] = {
    "margin": margins,
    "place": places,
    "predicted": predictions,
}
"""Columns that are reduced from logits and labels of a block; so are both entropies, at once."""

_DERIVED: dict[Column, tuple[Column, Callable[[NDArray[Any], IntArray], NDArray[Any]]]] = {
    "phi": ("margin", lambda margin, truth: margin.sum(axis=-1) if truth.ndim == 2 else margin),
    "confidence": ("margin", lambda margin, _: expit(margin)),
    "loss": ("margin", lambda margin, _: np.logaddexp(0.0, -margin)),
    "correct": ("predicted", _correct),
}
"""Columns that follow from another one."""
