"""Specs of functions that stand on no board: further attacks of the literature, and published code as it is coded.

They are there for somebody who has the arrays, such as saved logits or shadow models, and wants a paper's own number.
"""

from __future__ import annotations

from typing import Any

from forgetbench.metrics._catalog_literature import published
from forgetbench.metrics.registry import MetricSpec, metrics

_SVC = {
    "correctness": ("whether the prediction is right", "1[argmax z = y]"),
    "entropy": ("the entropy of the prediction", "-sum_j p_j log p_j"),
    "m-entropy": ("the modified entropy", "-(1-p_y) log p_y - sum_{j != y} p_j log(1-p_j)"),
    "probabilities": ("all probabilities", "(p_1, ..., p_K)"),
}


def _function(name: str, title: str, **fields: Any) -> MetricSpec:
    return published(name, title, on_boards=False, calibrated=False, **fields)


def _legacy(name: str, title: str, **fields: Any) -> MetricSpec:
    fields = {"misuse": "Reporting it under the name of the definition.", "misses": "As the definition."} | fields
    return _function(f"legacy.{name}", title, legacy=True, **fields)


def _support_vectors() -> list[MetricSpec]:
    kinds = [
        _function(
            f"mia.svc-{kind}",
            f"SVC {kind}",
            requires=("forget", "retain", "test"),
            meaning=f"Share of D_f that a support vector machine on {words} calls non-member; toward the oracle's.",
            misses="As mia.svc-confidence: the order of rows decides which are fitted.",
            misuse="Maximizing it: calling everything non-member scores 1.0.",
            formula=f"As mia.svc-confidence, on {feature}: svc_attack(..., kind={kind!r}).",
            example="Retain and test rows far apart, D_f like test: 1; D_f like retain: 0.",
            source="Jia et al. 2023; Song and Mittal 2021.",
            function="attacks.svc_attack",
        )
        for kind, (words, feature) in _SVC.items()
    ]
    return [
        *kinds,
        _function(
            "mia.svc-training-privacy",
            "SVC training privacy",
            requires=("retain", "test"),
            meaning="Whether retain rows can be told from test rows at all: 0.5 where not; any of the five kinds.",
            misses="The forget set. The order of rows decides which are fitted.",
            misuse="Reading it as forgetting: a model that generalizes badly scores high, unlearned or not.",
            formula=(
                "h = |test| / 2; fit on the first h retain and the first h test rows after a seeded shuffle, on at "
                "most 1,000 of either, evenly spaced (published: all); mean of the accuracies on all other retain rows "
                "and on all other test rows"
            ),
            example="Retain at 0.99, test at 0.2: 1.",
            source="Jia et al. 2023, SVC_MIA.",
            function="attacks.svc_training_privacy",
        ),
    ]


def _thresholds() -> list[MetricSpec]:
    return [
        _function(
            "mia.loss-mufac",
            "loss attack, MUFAC",
            requires=("forget", "unseen"),
            meaning="The loss attack of MUFAC and MUCAC: forget set, shuffled and cut, against people never seen.",
            misses="Identity: its null is 0.54 and not 0.5, since unseen people differ from forgotten ones.",
            misuse="Reading the README's MIA column, |accuracy - 0.5|, as an accuracy.",
            formula=(
                "mia.loss on the forget set, shuffled by numpy's legacy seed 42 and cut to |unseen|, against all "
                "unseen people; with A attributes the loss is the mean of their A binary cross-entropies, as in "
                "MUCAC's code"
            ),
            example="0.7136 on MUFAC's original model.",
            source="Choi and Na 2023, cal_mia.",
            function="attacks.mufac_attack",
        ),
        _function(
            "mia.loss-threshold",
            "loss threshold",
            requires=("forget", "retain", "test"),
            meaning="Member where the loss is at most known members' mean loss; balanced accuracy, 0.5 is chance.",
            misses="Any other threshold: its AUC is the loss attack of mia.population.",
            misuse="Plain accuracy with unequal sides.",
            formula="member iff loss <= mean loss of known members; mean of the two rates of right calls",
            example="Known 0 and 2; members 0.5, 1, 3; others 0.9, 1.1: rates 2/3 and 1/2, mean 7/12.",
            source="Yeom et al. 2018.",
            function="attacks.loss_threshold",
        ),
        _function(
            "mia.class-thresholds",
            "class thresholds",
            requires=("forget", "retain", "test"),
            meaning="One threshold a class, chosen on known rows, told on others; balanced accuracy, 0.5 is chance.",
            misses="Members of a class without known rows: they take the threshold of all classes.",
            misuse="Choosing the thresholds on the rows that are told.",
            formula="for each class the score that maximizes (TPR + TNR) / 2 on known rows; at least that is member",
            example="Class 0 known 0.9, 0.8 against 0.7: threshold 0.8.",
            source="Song and Mittal 2021, section 3.",
            function="attacks.class_thresholds",
        ),
    ]


def _with_shadows() -> list[MetricSpec]:
    return [
        _function(
            "lira.online",
            "LiRA, online",
            requires=("shadow models",),
            unit="nats",
            range=(None, None),
            meaning="Log ratio of phi under models with the example and without it; above 0 is member. Read by ROC.of.",
            misses="Anything but phi; needs shadow models on both sides of every example.",
            misuse="The target among its own shadows; with few shadows a spread of each example's own.",
            formula="log N(phi; median_in, sd_in) - log N(phi; median_out, sd_out); sd pooled below 32 models a side",
            example="N(1,1) and N(-1,1): phi = 1 gives 2, phi = 0 gives 0.",
            source="Carlini et al. 2022, algorithm 1.",
            function="shadow.lira_online",
        ),
        _function(
            "lira.offline",
            "LiRA, offline",
            requires=("shadow models",),
            unit="nats",
            range=(None, 0.0),
            meaning="Log chance that a model without the example is no surer than the target; larger is member.",
            misses="More than 38 sd above the shadows all scores round to 0.",
            misuse="The published code's two-sided density (legacy.lira-offline) finds less.",
            formula="log Pr[Z <= phi], Z ~ N(median_out, sd_out)",
            example="phi at the median: log(1/2) = -0.6931.",
            source="Carlini et al. 2022, section 5.",
            function="shadow.lira_offline",
        ),
        _function(
            "rmia.online",
            "RMIA, online",
            requires=("shadow models",),
            meaning="Share of population rows that the example's ratio dominates; half of the references saw it.",
            misses="Ties: with m rows it has m + 1 values (shadow.rmia_tie_break).",
            misuse="Averaging the larger half of the references instead of all (legacy.rmia-population).",
            formula="Pr_z[(p(x|m) / p(x)) / (p(z|m) / p(z)) >= gamma], p the references' mean: rmia(..., offline=None)",
            example="p(x|m) / p(x) = 2 against z of 1, 1.2, 1.4, 1.6 and gamma 1.5: 0.5.",
            source="Zarifzadeh et al. 2024.",
            function="shadow.rmia",
        ),
        _function(
            "sape",
            "SAPE",
            direction="down",
            unit="%",
            range=(0.0, 100.0),
            requires=("scores",),
            meaning="Symmetric absolute percentage error of any number against the oracle's; 0 is equal.",
            misses="The side, and the spread of oracles.",
            misuse="On numbers near 0, where any difference is 100.",
            formula="100 |u - r| / (|u| + |r|); 0 where both are 0",
            example="1 against 3: 50.",
            source="Cadet et al. 2024 (Deep Unlearn).",
            function="literature.sape",
        ),
    ]


def _as_coded() -> list[MetricSpec]:
    return [
        _legacy(
            "modified-entropy",
            "modified entropy as coded",
            unit="nats",
            range=(0.0, None),
            requires=("probabilities",),
            meaning="Modified entropy as in Unlearn-Sparse, SalUn and RUM; depends on which classes are in the batch.",
            formula="-sum_c (1 - p_c) log p_c over the classes in the batch",
            example="(0.7, 0.2, 0.1), all classes in the batch: 3.4669, where the definition gives 0.1622.",
            source="Unlearn-Sparse, SVC_MIA.py.",
            function="legacy.modified_entropy",
        ),
        _legacy(
            "zrf",
            "ZRF as coded",
            direction="up",
            unit="",
            range=(None, 1.0),
            requires=("forget", "teacher"),
            meaning="ZRF as in Bad Teaching and SSD: KL with its arguments exchanged, divided by the classes too.",
            misses="Certain models: where a probability rounds to 0 it is minus infinity.",
            formula="1 - mean over rows and classes of [m log(m/p) + m log(m/q)] / 2, m = (p + q) / 2",
            example="Equal outputs: 1.",
            source="Bad Teaching, metrics.py.",
            function="legacy.zrf",
        ),
        _legacy(
            "lira-offline",
            "LiRA offline as coded",
            unit="nats",
            range=(None, None),
            requires=("shadow models",),
            meaning="Minus the two-sided log density under models without the example: surer and less sure look alike.",
            formula="-log N(phi; median_out, sd_out)",
            example="phi at 4 sd below and at 4 sd above the median: equal.",
            source="mi_lira_2021, plot.py.",
            function="legacy.lira_offline",
        ),
        _legacy(
            "fixed-variance",
            "LiRA fixed variance as coded",
            unit="",
            range=(0.0, None),
            requires=("shadow models",),
            meaning="Spread of LiRA with a fixed variance: the IN side's raw spread over all examples, for both sides.",
            formula="sd_in = sd_out = sd of all phi_in about their common mean",
            example="IN values 1, 3 of one example and 11, 13 of another: 5.099, where each example's own is 1.",
            source="mi_lira_2021, plot.py.",
            function="legacy.fixed_variance",
        ),
        _legacy(
            "klom",
            "KLOM as coded",
            unit="nats",
            range=(0.0, 11.6),
            requires=("forget",),
            meaning="KLOM as in data-unlearning-bench: the largest value is in no bin, and the sides are exchanged.",
            formula="KL(r || u) of 20-bin histograms by numpy.digitize",
            example="r all at 0, u all at the clip: 0, where the definition gives 11.5.",
            source="data-unlearning-bench, eval.py.",
            function="legacy.klom",
        ),
        _legacy(
            "rmia-population",
            "RMIA's p(z) as coded",
            requires=("shadow models",),
            meaning="Mean probability of population rows over the larger half of the reference models, not over all.",
            formula="mean of the larger R of 2R values",
            example="0.1, 0.2, 0.3, 0.4: 0.35, where the mean is 0.25.",
            source="privacy_meter, rmia.py.",
            function="legacy.rmia_population",
        ),
        _legacy(
            "loss-score",
            "loss score as coded",
            unit="",
            range=(-1.0, 0.0),
            requires=("probabilities",),
            meaning="The loss attack's score with its sign turned: larger is called member, and is none.",
            formula="-p_y",
            example="Its AUC is 1 minus the true one: 0.316 for 0.684.",
            source="privacy_meter, attacks.py.",
            function="legacy.loss_score",
        ),
        _legacy(
            "tpr-nearest",
            "TPR at the nearest FPR",
            requires=("scores",),
            meaning="TPR where the FPR is nearest to the one asked for, the first of equals; may exceed it or find 0.",
            formula="TPR at argmin |FPR - alpha|",
            example="Members 0.9, 0.8, 0.1, others 0.5, 0.4, alpha 0: 0, where the largest at FPR 0 is 2/3.",
            source="RULI.",
            function="legacy.tpr_nearest",
        ),
    ]


def register() -> None:
    """Add this file's specs to the registry."""
    for spec in (*_support_vectors(), *_thresholds(), *_with_shadows(), *_as_coded()):
        metrics.register(spec.name, spec)


register()
