"""Functions of scipy, imported at the first call.

Importing scipy.special and scipy.stats takes longer than everything else in this package together, and most uses, such
as listing metrics, never call them.
"""

from __future__ import annotations

import numpy as np

from forgetbench.metrics._validation import FloatArray


def expit(values: FloatArray) -> FloatArray:
    """The logistic function 1 / (1 + exp(-x))."""
    from scipy import special

    return np.asarray(special.expit(values))


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis, as scipy computes it."""
    from scipy import special

    return np.asarray(special.softmax(logits, axis=-1))


def normal_log_density(values: FloatArray, center: FloatArray, sd: FloatArray) -> FloatArray:
    """Log density of normal distributions."""
    from scipy.stats import norm

    return np.asarray(norm.logpdf(values, center, sd))


def normal_log_cdf(values: FloatArray, center: FloatArray, sd: FloatArray) -> FloatArray:
    """Log distribution function of normal distributions."""
    from scipy.stats import norm

    return np.asarray(norm.logcdf(values, center, sd))


def beta_quantile(share: float, a: float, b: float) -> float:
    """Quantile of a beta distribution."""
    from scipy.stats import beta

    return float(beta.ppf(share, a, b))
