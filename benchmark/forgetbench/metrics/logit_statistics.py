"""Statistics of logits for single examples: phi, probabilities, losses and entropies.

All functions take logits (..., n, K) with class labels (n,), or logits (..., n, A) with labels (n, A) of A binary
attributes (the shape of the labels decides), and return float64. They are computed in log space, so that nothing
overflows or rounds to 0 or 1 early: logits of ±60,000 are fine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.metrics._lazy_scipy import expit
from forgetbench.metrics._validation import FloatArray, IntArray, labels_of, logits_of


def logsumexp(values: FloatArray) -> FloatArray:
    """log(sum(exp(values))) over the last axis; ``-inf`` entries count as zero."""
    top = values.max(axis=-1, keepdims=True)
    total: FloatArray = np.log(np.exp(values - top).sum(axis=-1)) + top[..., 0]
    return total


def phi(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Logit-scaled confidence of the label, log p_y - log(1 - p_y) (protocol section 1; Carlini et al. 2022).

    Args:
        logits: (..., n, K), or (..., n, A) for attributes.
        labels: (n,), or (n, A) of zeros and ones.

    Returns:
        (..., n) nats: z_y - logsumexp over the other classes; for attributes the sum of the signed logits.
    """
    margin = margins(*_checked(logits, labels))
    return margin.sum(axis=-1) if np.ndim(labels) == 2 else margin


def margins(scores: FloatArray, truth: IntArray) -> FloatArray:
    """Phi (..., n), or (..., n, A) of each attribute, of logits and labels that were checked."""
    if truth.ndim == 2:
        return signed_logits(scores, truth)
    rows = np.arange(len(truth))
    others = scores.copy()
    others[..., rows, truth] = -np.inf
    margin: FloatArray = scores[..., rows, truth] - logsumexp(others)
    return margin


def signed_logits(logits: FloatArray, labels: IntArray) -> FloatArray:
    """Attribute logits (..., n, A), negated for label 0: phi of each attribute."""
    signed: FloatArray = logits * (2 * labels - 1)
    return signed


def log_softmax(logits: ArrayLike) -> FloatArray:
    """Log-probabilities (..., n, K) of the classes."""
    scores = logits_of(logits)
    return scores - logsumexp(scores)[..., None]


def softmax(logits: ArrayLike) -> FloatArray:
    """Probabilities (..., n, K) of the classes."""
    return np.exp(log_softmax(logits))


def loss(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Cross-entropy (..., n) in nats; for attributes the summed binary cross-entropy."""
    losses: FloatArray = np.logaddexp(0.0, -margins(*_checked(logits, labels)))
    return losses.sum(axis=-1) if np.ndim(labels) == 2 else losses


def confidence(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Probability of the label, (..., n); for attributes (..., n, A), each attribute's own."""
    return expit(margins(*_checked(logits, labels)))


def entropy(logits: ArrayLike, *, attributes: bool = False) -> FloatArray:
    """Shannon entropy of the prediction in nats: (..., n), or (..., n, A) of each binary attribute."""
    scores = logits_of(logits)
    if attributes:
        return _binary_entropy(scores)
    log_p = scores - logsumexp(scores)[..., None]
    return _entropy(np.exp(log_p), log_p)


def modified_entropy(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Modified entropy of Song and Mittal (2021, equation 8): -(1-p_y) log p_y - sum_{j != y} p_j log(1-p_j).

    The widely copied code indexes whole columns and takes log p for log(1-p); see ``published_code.modified_entropy``.

    Returns:
        (..., n) nats; for attributes (..., n, A), each attribute's own.
    """
    return entropies(*_checked(logits, labels))[1]


def entropies(scores: FloatArray, truth: IntArray) -> tuple[FloatArray, FloatArray]:
    """`entropy` and `modified_entropy`, of logits and labels that were checked."""
    margin = margins(scores, truth)
    if truth.ndim == 2:
        return _binary_entropy(scores), 2.0 * expit(-margin) * np.logaddexp(0.0, -margin)
    total = logsumexp(scores)
    log_p = scores - total[..., None]
    p = np.exp(log_p)
    terms = p * _log_complement(scores, total, p)
    terms[..., np.arange(len(truth)), truth] = 0.0
    return _entropy(p, log_p), expit(-margin) * np.logaddexp(0.0, -margin) - terms.sum(axis=-1)


def _log_complement(scores: FloatArray, total: FloatArray, p: FloatArray) -> FloatArray:
    """log(1 - p) of every class, exact even if p rounds to 1 (only the largest can); ``total`` is their logsumexp."""
    top = scores.argmax(axis=-1)[..., None]
    others = scores.copy()
    np.put_along_axis(others, top, -np.inf, axis=-1)
    complement: FloatArray = np.log1p(-np.minimum(p, 0.75))
    np.put_along_axis(complement, top, (logsumexp(others) - total)[..., None], axis=-1)
    return complement


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, IntArray]:
    scores = logits_of(logits)
    return scores, labels_of(labels, scores)


def _entropy(p: FloatArray, log_p: FloatArray) -> FloatArray:
    total: FloatArray = -(p * log_p).sum(axis=-1)
    return np.maximum(total, 0.0)


def _binary_entropy(scores: FloatArray) -> FloatArray:
    value: FloatArray = expit(scores) * np.logaddexp(0.0, -scores) + expit(-scores) * np.logaddexp(0.0, scores)
    return value
