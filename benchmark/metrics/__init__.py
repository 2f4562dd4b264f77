"""Scores: pure functions of arrays. They need numpy, scipy and scikit-learn, and never torch.

Anyone's saved logits will do: ``from forgetbench.metrics import lira, phi``.
"""

from __future__ import annotations

from forgetbench.metrics import catalogue_core as _core
from forgetbench.metrics import catalogue_erasure as _erasure
from forgetbench.metrics import catalogue_literature as _literature
from forgetbench.metrics import catalogue_privacy as _privacy
from forgetbench.metrics.confidence import confidence, entropy, loss, modified_entropy, phi, softmax
from forgetbench.metrics.cost import Cost
from forgetbench.metrics.divergence import centred_js, jensen_shannon
from forgetbench.metrics.likelihood import Lira, lira, lira_auc, shift
from forgetbench.metrics.membership import mia_population
from forgetbench.metrics.roc import ROC, auc, balanced_accuracy, clopper_pearson, rates, tpr_at_fpr
from forgetbench.metrics.spec import MetricSpec, metrics, ranking_metrics
from forgetbench.metrics.utility import accuracy, average_gap, gap, tow

__all__ = [
    "ROC",
    "Cost",
    "Lira",
    "MetricSpec",
    "accuracy",
    "auc",
    "average_gap",
    "balanced_accuracy",
    "centred_js",
    "clopper_pearson",
    "confidence",
    "entropy",
    "gap",
    "jensen_shannon",
    "lira",
    "lira_auc",
    "loss",
    "metrics",
    "mia_population",
    "modified_entropy",
    "phi",
    "ranking_metrics",
    "rates",
    "shift",
    "softmax",
    "tow",
    "tpr_at_fpr",
]

del _core, _erasure, _literature, _privacy
