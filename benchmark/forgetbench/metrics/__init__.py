"""Scores: pure functions of arrays. They need numpy, scipy and scikit-learn, and never torch.

Anyone's saved logits will do: ``from forgetbench.metrics import lira, phi``. What needs scikit-learn is loaded when it
is first asked for. Published code that deviates from its definition is in
``forgetbench.metrics.published_code``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from forgetbench.metrics import _catalog_core as _core
from forgetbench.metrics import _catalog_cost as _cost
from forgetbench.metrics import _catalog_erasure as _erasure
from forgetbench.metrics import _catalog_functions as _functions
from forgetbench.metrics import _catalog_literature as _literature
from forgetbench.metrics import _catalog_privacy as _privacy
from forgetbench.metrics.accuracy_gap import accuracy, average_gap, gap, tow
from forgetbench.metrics.cost import Cost, amortized, cost_ratio, share_changed
from forgetbench.metrics.divergence import agreement_pairs, centered_js, distance_pairs, jensen_shannon, js_pairs
from forgetbench.metrics.erasure import (
    anamnesis_index,
    forgetting_rate,
    generalization,
    h_mean,
    reemergence,
    relearn_time,
)
from forgetbench.metrics.lira_mia import Lira, lira, lira_auc, shift
from forgetbench.metrics.literature import (
    activation_distance,
    adaptive_unlearning_score,
    completeness,
    indiscernibility,
    layer_distance,
    layer_distances,
    nomus,
    retention_deviation,
    sape,
    tow_mia,
    zrf,
)
from forgetbench.metrics.logit_statistics import confidence, entropy, loss, modified_entropy, phi, softmax
from forgetbench.metrics.margin_distances import klom, margin_distance, wasserstein
from forgetbench.metrics.neurips_quality import epsilons, forgetting_quality, neurips_score
from forgetbench.metrics.population_mia import loss_auc, mia_population
from forgetbench.metrics.registry import MetricSpec, metrics, ranking_metrics
from forgetbench.metrics.rmia_population import population_rmia
from forgetbench.metrics.roc import ROC, auc, balanced_accuracy, clopper_pearson, rates, tpr_at_fpr
from forgetbench.metrics.shadow_models import (
    Fit,
    fit_normal,
    lira_offline,
    lira_online,
    rmia,
    rmia_tie_break,
    ulira,
    ulira_roc,
)

if TYPE_CHECKING:
    from forgetbench.metrics.classic_mia import (
        ThresholdAttack,
        class_thresholds,
        entropy_attack,
        loss_attack,
        loss_threshold,
        mufac_attack,
        svc_attack,
        svc_non_members,
        svc_training_privacy,
    )
    from forgetbench.metrics.probes import Probe, Rows, linear_probe, recoverability

_LATE = dict.fromkeys(("Probe", "Rows", "linear_probe", "recoverability"), "probes") | dict.fromkeys(
    (
        "ThresholdAttack",
        "class_thresholds",
        "entropy_attack",
        "loss_attack",
        "loss_threshold",
        "mufac_attack",
        "svc_attack",
        "svc_non_members",
        "svc_training_privacy",
    ),
    "classic_mia",
)

__all__ = [
    "ROC",
    "Cost",
    "Fit",
    "Lira",
    "MetricSpec",
    "Probe",
    "Rows",
    "ThresholdAttack",
    "accuracy",
    "activation_distance",
    "adaptive_unlearning_score",
    "agreement_pairs",
    "amortized",
    "anamnesis_index",
    "auc",
    "average_gap",
    "balanced_accuracy",
    "centered_js",
    "class_thresholds",
    "clopper_pearson",
    "completeness",
    "confidence",
    "cost_ratio",
    "distance_pairs",
    "entropy",
    "entropy_attack",
    "epsilons",
    "fit_normal",
    "forgetting_quality",
    "forgetting_rate",
    "gap",
    "generalization",
    "h_mean",
    "indiscernibility",
    "jensen_shannon",
    "js_pairs",
    "klom",
    "layer_distance",
    "layer_distances",
    "linear_probe",
    "lira",
    "lira_auc",
    "lira_offline",
    "lira_online",
    "loss",
    "loss_attack",
    "loss_auc",
    "loss_threshold",
    "margin_distance",
    "metrics",
    "mia_population",
    "modified_entropy",
    "mufac_attack",
    "neurips_score",
    "nomus",
    "phi",
    "population_rmia",
    "ranking_metrics",
    "rates",
    "recoverability",
    "reemergence",
    "relearn_time",
    "retention_deviation",
    "rmia",
    "rmia_tie_break",
    "sape",
    "share_changed",
    "shift",
    "softmax",
    "svc_attack",
    "svc_non_members",
    "svc_training_privacy",
    "tow",
    "tow_mia",
    "tpr_at_fpr",
    "ulira",
    "ulira_roc",
    "wasserstein",
    "zrf",
]

del _core, _cost, _erasure, _functions, _literature, _privacy


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
