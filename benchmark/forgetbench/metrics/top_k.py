"""Top-2 accuracy, which MUFAC's tables report next to accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, labels_of, logits_of, whole
from forgetbench.metrics.board_rules import Draw, PerModelRule
from forgetbench.metrics.columns import places
from forgetbench.metrics.registry import MetricSpec, metric


def _measure(draw: Draw) -> FloatArray:
    if draw.has_attributes("test"):
        raise UsageError("Top-k accuracy is not defined for attributes.")
    return np.asarray((draw.column("place", "test") < 2).mean(axis=-1))


@metric(
    MetricSpec(
        name="top-2",
        title="top-2 accuracy",
        group="literature",
        direction="up",
        requires=("test",),
        meaning="Share of test images whose class is among the two with the largest logits.",
        misses="Forgetting; and accuracy, where the first of two similar classes matters.",
        misuse="Comparing tasks with different numbers of classes: with two classes it is always 1.",
        formula="(1/n) sum_i 1[fewer than 2 classes precede y_i by z(x_i)]; of equal logits the first class precedes",
        example="Logits 3, 2, 1 and classes 0, 1, 2: 2/3.",
        source="Choi and Na 2023.",
    ),
    board=PerModelRule(_measure),
)
def top_accuracy(logits: ArrayLike, labels: ArrayLike, k: int = 2) -> FloatArray:
    """Share of rows whose class is among the k with the largest logits; of one model () or of each of several (S,).

    Args:
        logits: (n, K) or (S, n, K).
        labels: (n,) class numbers.
        k: Number of classes.

    Raises:
        UsageError: Labels are attributes, there are no rows, or k is not between 1 and K.
    """
    scores = logits_of(logits)
    truth = labels_of(labels, scores)
    if truth.ndim == 2:
        raise UsageError("Top-k accuracy is not defined for attributes.")
    if scores.shape[-2] == 0:
        raise UsageError("Top-k accuracy is not defined without rows.")
    if whole(k, "k", 1) > scores.shape[-1]:
        raise UsageError(f"k must be at most {scores.shape[-1]}, the number of classes, not {k}.")
    return np.asarray((places(scores, truth) < k).mean(axis=-1))
