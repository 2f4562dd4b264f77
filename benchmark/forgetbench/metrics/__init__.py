"""Metrics: pure functions of arrays. They need numpy, scipy and scikit-learn, but never torch.

They work on logits from any source: ``from forgetbench.metrics import lira, phi``. Each function declares the metrics
that it computes with `metric`; `metrics` is the registry of their specs. scipy and scikit-learn are imported at the
first call that needs them. Published code that deviates from its definition is in
``forgetbench.metrics.published_code``.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from forgetbench.metrics.accuracy_gap import accuracy, average_gap, gap, tow
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
from forgetbench.metrics.correction import attack_success
from forgetbench.metrics.cost import Cost, amortized, cost_ratio, share_changed
from forgetbench.metrics.divergence import agreement_pairs, centered_js, distance_pairs, jensen_shannon, js_pairs
from forgetbench.metrics.erasure import (
    forgetting_rate,
    generalization,
    h_mean,
    reemergence,
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
from forgetbench.metrics.probes import Probe, Rows, linear_probe, residual_share
from forgetbench.metrics.registry import MetricSpec, declarations, metric, metrics, ranking_metrics
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
    "attack_success",
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
    "metric",
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
    "reemergence",
    "residual_share",
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


def _import_declarations() -> None:
    """Import every module of this package, and offer the functions that declare metrics.

    So a metric in a new module needs no change here. The imports above are for type checkers and editors. A function
    takes precedence over a module of the same name.
    """
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)
    for declaration in declarations:
        name = declaration.function.__name__
        if not any(spec.legacy for spec in declaration.specs) and isinstance(globals().get(name), ModuleType | None):
            globals()[name] = declaration.function
            __all__.append(name)


_import_declarations()
