"""Linear probe: is the forgotten class still legible in the features?"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray, floats

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse L2 penalties tried."""
SEEDS = 3
ROWS_PER_CLASS = 100
"""Training rows of each class that one seed's probe is fitted on; fewer where there are fewer."""
UNDEFINED_BELOW = 0.02


class Rows(NamedTuple):
    """Features of one model on some rows, and their classes."""

    features: FloatArray
    """(n, F)."""
    labels: IntArray
    """(n,)."""


class Probe(NamedTuple):
    """What the probe reads on one model."""

    accuracy: float
    """Accuracy on test rows of the forgotten classes, the mean over 3 seeds."""
    shuffled: float
    """The same with shuffled training labels: what the probe reads where there is nothing to read."""


def linear_probe(train: Rows, validation: Rows, forgotten: Rows) -> Probe:
    """Accuracy of an L2 logistic regression on frozen penultimate features, on the forgotten class.

    Features are standardized on the training rows; C is chosen by accuracy on validation rows, with the first seed;
    each seed draws at most 100 rows of each class.

    Args:
        train: Training rows of all classes, the forgotten ones too.
        validation: Validation rows.
        forgotten: Test rows of the forgotten classes.
    """
    sides = [
        Rows(floats(part.features, "features", ndim=2), np.asarray(part.labels, dtype=np.int64))
        for part in (train, validation, forgotten)
    ]
    if any(part.labels.shape != (len(part.features),) or not len(part.features) for part in sides):
        raise UsageError("The probe needs rows with one class each for training, validation and the forgotten classes.")
    if len(np.unique(sides[0].labels)) < 2:
        raise UsageError("The probe's training rows are all of one class: there is nothing to tell apart.")
    if not set(np.unique(sides[2].labels)) <= set(np.unique(sides[0].labels)):
        raise UsageError("The probe's training rows lack a forgotten class.")
    center, spread = sides[0].features.mean(axis=0), sides[0].features.std(axis=0)
    scaled = [Rows((part.features - center) / np.where(spread > 0, spread, 1.0), part.labels) for part in sides]
    samples = [_sample(scaled[0], seed) for seed in range(SEEDS)]
    chosen = max(STRENGTHS, key=lambda strength: (_fitted(samples[0], strength).score(*scaled[1]), -strength))
    found = [_fitted(sample, chosen).score(*scaled[2]) for sample in samples]
    nothing = [_fitted(_shuffled(sample, seed), chosen).score(*scaled[2]) for seed, sample in enumerate(samples)]
    return Probe(float(np.mean(found)), float(np.mean(nothing)))


def recoverability(unlearned: ArrayLike, oracle: ArrayLike, original: ArrayLike) -> float | None:
    """(P_u - P_r) / (P_o - P_r) of mean probe accuracies: 0 as an oracle, 1 as before; None where |P_o - P_r| < 0.02.

    Args:
        unlearned: (S,) probe accuracies of the unlearned models.
        oracle: (S,) of the oracles.
        original: (S,) of the originals.
    """
    sides = [floats(side, "probe accuracies") for side in (unlearned, oracle, original)]
    if not all(side.size for side in sides):
        raise UsageError("The probe's ratio needs at least one model of each kind.")
    means = [float(side.mean()) for side in sides]
    room = means[2] - means[1]
    return None if abs(room) < UNDEFINED_BELOW else (means[0] - means[1]) / room


def _sample(rows: Rows, seed: int) -> Rows:
    draw = np.random.default_rng(seed).random(len(rows.labels))
    chosen = []
    for label in np.unique(rows.labels):
        members = np.flatnonzero(rows.labels == label)
        chosen.append(members[np.argsort(draw[members], kind="stable")[:ROWS_PER_CLASS]])
    kept = np.sort(np.concatenate(chosen))
    return Rows(rows.features[kept], rows.labels[kept])


def _shuffled(rows: Rows, seed: int) -> Rows:
    order = np.argsort(np.random.default_rng(seed).random(len(rows.labels)), kind="stable")
    return Rows(rows.features, rows.labels[order])


def _fitted(rows: Rows, strength: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that is nearly fitted reads as well
        return LogisticRegression(C=strength, max_iter=100).fit(rows.features, rows.labels)
