"""How every metric is called, and which properties it has; see metric_case.py."""

from __future__ import annotations

import numpy as np

from forgetbench.errors import UsageError
from forgetbench.metrics import (
    ROC,
    accuracy_gap,
    classic_mia,
    confidence,
    correction,
    cost,
    divergence,
    entropy,
    erasure,
    linear_probe,
    lira_mia,
    literature,
    loss,
    margin_distances,
    modified_entropy,
    neurips_quality,
    phi,
    population_mia,
    population_rmia,
    published_code,
    residual_share,
    roc,
    shadow_models,
    top_k,
)
from forgetbench.metrics.probes import Rows
from support.metric_case import INF, Case, add, certain, complement, even, label_up, named, odd, put, quarter, raise_by

LOG2 = float(np.log(2))


def fits(target, inside, outside):
    return target, shadow_models.fit_normal(inside), shadow_models.fit_normal(outside)


def defined(value):
    if value is None:
        raise UsageError("not defined")
    return value


def generalized(a, b, c, d, chance):
    return defined(erasure.generalization((a, b), (c, d), chance))


def results(found: ROC):
    return np.array([found.auc, found.balanced_accuracy])


def roles(values):
    """Model by example: a third each unlearned the example, still knows it, never saw it."""
    turn = np.add.outer(np.arange(values.shape[0]), np.arange(values.shape[1])) % 3
    return turn == 0, turn < 2


def unlearned(by):
    return lambda values: [values + by * roles(values)[0]]


def svc(kind):
    def call(retain, test, forget, *labels):
        return classic_mia.svc_attack(*zip((retain, test, forget), labels, strict=True), kind=kind)

    return Case(
        call,
        "ik jk lk #i #j #l",
        range=(0, 1),
        rows="l",
        shift=(0, 1, 2),
        swap=complement if kind == "probabilities" else None,
        swapped=(1, 0, 2, 4, 3, 5),
        more=None if kind == "probabilities" else label_up(60, -60, -60, keep=False),
        constant=lambda value: 0 <= value <= 1,
        separated=(label_up(60, -60, -60, keep=False), 1.0),
        holds_with_ties=False,
        tolerance=0.15,
        examples=4,
        reason="the published split goes by the order of retain and test rows",
    )


SHARES = named("forget", "retain", "test")
CASES = {
    "roc.auc": Case(
        roc.auc, "i j", range=(0, 1), rows="ij", shift=(0, 1), swap=complement, constant=0.5,
        separated=(add(99, -99), 1.0)
    ),
    "roc.tpr_at_fpr": Case(
        lambda a, b: roc.tpr_at_fpr(a, b, 0.5),
        "i j", range=(0, 1), rows="ij", shift=(0, 1), more=add(1, None), constant=0.0, min_rows=2,
        separated=(add(99, -99), 1.0),
    ),
    "roc.balanced_accuracy": Case(
        roc.balanced_accuracy, "i j", range=(0, 1), rows="ij", swap=complement, constant=0.5,
        separated=(add(99, -99), 1.0),
        reason="the threshold stands still when scores move",
    ),
    "roc.ROC": Case(
        lambda a, b: results(ROC.of(a, b)), "i j",
        range=(0, 1), rows="ij", swap=complement, constant=0.5, separated=(add(99, -99), 1.0),
        reason="the threshold stands still when scores move",
    ),
    "logit_statistics.phi": Case(
        phi, "ik #i", out="i", shift=(0,), more=label_up(1), constant=-LOG2, min_rows=0,
        separated=(label_up(1, by=1e4), lambda v: v > 9e3),
    ),
    "logit_statistics.loss": Case(
        loss, "ik #i", range=(0, INF), out="i", shift=(0,), more=label_up(1), sign=-1, constant=np.log(3),
        separated=(label_up(1, by=1e4), 0.0), min_rows=0,
    ),
    "logit_statistics.confidence": Case(
        confidence, "ik #i", range=(0, 1), out="i", shift=(0,), more=label_up(1), constant=1 / 3,
        separated=(label_up(1, by=1e4), 1.0), min_rows=0,
    ),
    "logit_statistics.modified_entropy": Case(
        modified_entropy, "ik #i", range=(0, INF), out="i", shift=(0,), more=label_up(1), sign=-1,
        constant=2 / 3 * np.log(3) + 2 / 3 * np.log(1.5), separated=(label_up(1, by=1e4), 0.0), min_rows=0,
    ),
    "logit_statistics.entropy": Case(
        entropy, "ik", range=(0, np.log(3)), out="i", shift=(0,), more=lambda z: [2 * z], sign=-1, constant=np.log(3),
        separated=(certain(0), 0.0), min_rows=0,
    ),
    "accuracy_gap.accuracy": Case(
        accuracy_gap.accuracy, "ik #i", range=(0, 1), shift=(0,), more=label_up(1), constant=1.0,
        separated=(label_up(99), 1.0)
    ),
    "top_k.top_accuracy": Case(
        top_k.top_accuracy, "ik #i", range=(0, 1), shift=(0,), more=label_up(1), constant=1.0,
        separated=(label_up(99), 1.0)
    ),
    "correction.attack_success": Case(
        correction.attack_success, "ik #i", range=(0, 1), shift=(0,), more=label_up(1),
        constant=lambda value: 0 <= value <= 1, separated=(label_up(99), 1.0), holds_with_ties=False,
    ),
    "accuracy_gap.gap": Case(
        accuracy_gap.gap, "i j", share=True, bounded=True, range=(-1, 1), rows="ij", shift=(0, 1), swap=odd,
        constant=0.0, separated=(put(1, 0), 1.0),
    ),
    "accuracy_gap.tow": Case(
        lambda *a: accuracy_gap.tow(*SHARES(a)), "i i i i i i", share=True, bounded=True, range=(0, 1),
        shift=tuple(range(6)), swap=even, swapped=(3, 4, 5, 0, 1, 2), constant=1.0,
        separated=(put(1, 1, 1, 0, 0, 0), 0.0),
    ),
    "accuracy_gap.average_gap": Case(
        lambda *a: accuracy_gap.average_gap(*SHARES(a)), "i i i i i i", share=True, range=(0, 1), shift=tuple(range(6)),
        swap=even, swapped=(3, 4, 5, 0, 1, 2), constant=0.0, separated=(put(1, 1, 1, 0, 0, 0), 1.0),
    ),
    "literature.tow_mia": Case(
        lambda a, b, c, d, e, f: literature.tow_mia({"retain": a, "test": b}, {"retain": c, "test": d}, (e, f)),
        "i i i i i i", share=True, bounded=True, range=(0, 1), shift=tuple(range(6)), swap=even,
        swapped=(2, 3, 0, 1, 5, 4), constant=1.0, separated=(put(1, 1, 0, 0, 1, 0), 0.0),
    ),
    "divergence.jensen_shannon": Case(
        divergence.jensen_shannon, "ik ik", range=(0, LOG2), out="i", shift=(0,), swap=even, constant=0.0,
        separated=(certain(0, 1), LOG2),
    ),
    "divergence.jensen_shannon[attributes]": Case(
        lambda a, b: divergence.jensen_shannon(a, b, attributes=True), "ik ik", range=(0, LOG2), out="i", swap=even,
        constant=0.0, separated=(add(1e4, -1e4), LOG2), reason="a constant changes an attribute",
    ),
    "divergence.centered_js": Case(
        divergence.centered_js, "sik tik", range=(-LOG2, LOG2), shift=(0, 1), swap=even, constant=0.0,
        separated=(certain(0, 1), LOG2),
    ),
    "lira_mia.lira": Case(
        lambda a, b: results(lira_mia.lira(a, b)), "si si", range=(0, 1), shift=(0, 1), swap=even, constant=0.5,
        separated=(add(99, -99), 1.0), holds_with_ties=False,
    ),
    "lira_mia.lira[worst decile]": Case(
        lambda a, b: defined(lira_mia.lira(a, b).worst_decile), "si si", range=(0, 1), shift=(0, 1), swap=even,
        constant=0.5, separated=(add(99, -99), 1.0), min_rows=10, holds_with_ties=False,
    ),
    "lira_mia.shift": Case(
        lira_mia.shift, "si ti", shift=(0, 1), more=add(1, None), constant=0.0,
        separated=(add(99, -99), lambda v: v > 40),
    ),
    "population_mia.mia_population": Case(
        lambda a, b, c, d, y, z: population_mia.mia_population((a, b), (c, d), y, z), "sik sjk tik tjk #i #j",
        range=(-1, 1), rows="ij", shift=(0, 1, 2, 3), swap=odd, swapped=(2, 3, 0, 1, 4, 5), constant=0.0,
        separated=(label_up(60, -60, -60, 60), 1.0), holds_with_ties=False, examples=5, sizes=(("j", 30),),
    ),
    "population_mia.loss_auc": Case(
        lambda a, b, y, z: population_mia.loss_auc((a, y), (b, z)), "sik sjk #i #j", range=(0, 1), rows="ij",
        shift=(0, 1), more=label_up(1, 0), constant=0.5, separated=(label_up(60, -60), 1.0), holds_with_ties=False,
        examples=5,
        sizes=(("j", 30),),
    ),
    "margin_distances.klom": Case(
        margin_distances.klom, "si ti", range=(0, np.log(1e5 + 20)), out="i", shift=(0, 1), more=add(999, None),
        constant=0.0,
        separated=(add(999, -999), np.log(1e5)), holds_with_ties=False, tolerance=1e-3,
    ),
    "margin_distances.wasserstein": Case(
        margin_distances.wasserstein, "si ti", range=(0, 200), out="i", shift=(0, 1), swap=even, constant=0.0,
        separated=(add(999, -999), 200.0),
    ),
    "margin_distances.margin_distance": Case(
        margin_distances.margin_distance, "si ti", range=(0, 200), shift=(0, 1), swap=even, constant=0.0,
        separated=(add(999, -999), 200.0),
    ),
    "neurips_quality.epsilons": Case(
        neurips_quality.epsilons, "si si", range=(0, 50), out="i", more=add(99, None), constant=0.0,
        separated=(add(99, -99), 50.0),
        examples=5, reason="how many thresholds the published grid has turns on the rounding of the range",
    ),
    "neurips_quality.forgetting_quality": Case(
        lambda e: neurips_quality.forgetting_quality(e, 64), "i", share=True, range=(0, 1), more=add(1), sign=-1,
        constant=0.5,
        separated=(add(50), 0.0),
    ),
    "neurips_quality.neurips_score": Case(
        lambda f, a, b, c, d, e: neurips_quality.neurips_score(f, (a, b), (c, d), e), "? ? ? ? ? ?", share=True,
        range=(0, INF), more=add(1, None, None, None, None, None), constant=1.0, separated=(put(0, 1, 1, 1, 1, 1), 0.0),
    ),
    "shadow_models.lira_online": Case(
        lambda *a: shadow_models.lira_online(*fits(*a)), "i si ti", out="i", shift=(0, 1, 2), swap=odd,
        swapped=(0, 2, 1),
        constant=0.0, separated=(add(99, 99, -99), lambda v: v > 30), tolerance=1e-5,
    ),
    "shadow_models.lira_offline": Case(
        lambda a, b: shadow_models.lira_offline(a, shadow_models.fit_normal(b)), "i si", range=(-INF, 0), out="i",
        shift=(0, 1),
        more=add(1, None), constant=np.log(0.5), separated=(add(99, -99), 0.0), tolerance=1e-5,
    ),
    "shadow_models.ulira": Case(
        lambda *a: shadow_models.ulira(*fits(*a)), "i si ti", range=(0, 1), out="i", shift=(0, 1, 2), swap=complement,
        swapped=(0, 2, 1), constant=0.5, separated=(add(99, 99, -99), 1.0), tolerance=1e-5,
    ),
    "shadow_models.ulira_roc": Case(
        lambda a: results(shadow_models.ulira_roc(a, *roles(a))), "si", range=(0, 1), rows="", shift=(0,),
        more=unlearned(99),
        constant=0.5, separated=(unlearned(999), 1.0), holds_with_ties=False, sizes=(("s", 12),),
        reason="who forgot what goes by place here; test_ulira_roc_does_not_mind_the_order has it",
    ),
    "shadow_models.rmia": Case(
        lambda a, b, c, d: shadow_models.rmia((a, b), (c, d)), "i j i j", share=True, bounded=True, range=(0, 1),
        out="i",
        rows="ij", more=raise_by(0.1, None, None, None), constant=0.0,
        separated=(put(0.99, 0.01, 0.5, 0.5), 1.0), holds_with_ties=False,
        reason="a constant added to probabilities changes their ratios",
    ),
    "shadow_models.rmia[online]": Case(
        lambda a, b, c, d: shadow_models.rmia((a, b), (c, d), offline=None), "i j i j", share=True, range=(0, 1),
        out="i",
        rows="ij", more=add(0.1, None, None, None), constant=0.0, separated=(put(0.99, 0.01, 0.5, 0.5), 1.0),
        holds_with_ties=False,
    ),
    "shadow_models.rmia_tie_break": Case(
        lambda a, b, c, d: shadow_models.rmia_tie_break((a, b), (c, d)), "i j i j", share=True, bounded=True,
        range=(0, 2),
        out="i", rows="ij", more=raise_by(0.1, None, None, None), constant=lambda v: v < 1,
        separated=(put(0.99, 0.01, 0.5, 0.5), lambda v: v >= 1), holds_with_ties=False,
    ),
    "rmia_population.population_rmia": Case(
        lambda a, b, c, d: population_rmia((a, b), (c, d)), "si sj si sj", share=True, bounded=True, range=(0, 1),
        rows="ij", more=raise_by(0.1, None, None, None), constant=0.5,
        separated=(put(0.99, 0.5, 0.01, 0.5), 1.0), holds_with_ties=False,
    ),
    "classic_mia.svc_non_members": Case(
        classic_mia.svc_non_members, "i j l", share=True, range=(0, 1), rows="l", more=put(0.99, 0.01, 0.01),
        constant=lambda v: v in {0, 1}, separated=(put(0.99, 0.01, 0.01), 1.0), holds_with_ties=False,
        reason="the published split goes by the order of retain and test rows",
    ),
    "classic_mia.svc_training_privacy": Case(
        classic_mia.svc_training_privacy, "i j", share=True, range=(0, 1), rows="", more=put(0.99, 0.01), constant=0.5,
        separated=(put(0.99, 0.01), 1.0), min_rows=2, reason="the published split goes by the order of rows",
    ),
    **{f"classic_mia.svc_attack[{kind}]": svc(kind) for kind in classic_mia.get_args(classic_mia.SvcKind)},
    "classic_mia.loss_attack": Case(
        classic_mia.loss_attack, "i j", share=True, range=(0, 1), rows="", more=put(-99, 99),
        constant=lambda v: abs(v - 0.5) < 0.2,
        separated=(put(-99, 99), 1.0), min_rows=10, examples=4, reason="the published split goes by the order of rows",
    ),
    "classic_mia.mufac_attack": Case(
        lambda a, b, y, z: classic_mia.mufac_attack((a, y), (b, z)), "ik jk #i #j", range=(0, 1), rows="", shift=(0, 1),
        more=label_up(60, -60, keep=False), constant=lambda v: abs(v - 0.5) < 0.2,
        separated=(label_up(60, -60, keep=False), 1.0), min_rows=10, tolerance=0.1, examples=4,
        reason="the published split goes by the order of rows",
    ),
    "classic_mia.entropy_attack": Case(
        classic_mia.entropy_attack, "i j l", share=True, range=(0, 1), rows="ijl", more=put(-9, 9, -9),
        constant=lambda v: v in {0, 1}, separated=(put(-9, 9, -9), 1.0), holds_with_ties=False, examples=5,
        reason="the slope is shrunk, the intercept is not: a constant moves both only up to the solver's tolerance",
    ),
    "classic_mia.loss_threshold": Case(
        lambda a, b, c: classic_mia.loss_threshold(a, b, c).balanced_accuracy, "l i j", range=(0, 1), rows="ijl",
        shift=(0, 1, 2), more=add(None, -1, None), constant=0.5, separated=(add(-99, -199, 99), 1.0),
        holds_with_ties=False,
    ),
    "classic_mia.class_thresholds": Case(
        lambda a, b, c, d, w, x, y, z: classic_mia.class_thresholds((a, b), (c, d), (w, x), (y, z)).balanced_accuracy,
        "i j l m #i #j #l #m", range=(0, 1), rows="ijlm", shift=(0, 1, 2, 3), constant=0.5, holds_with_ties=False,
        more=put(1, 0, 1, 0, 0, 0, 0, 0),
        separated=(put(1, 0, 1, 0, 0, 0, 0, 0), 1.0),
    ),
    "literature.nomus": Case(
        literature.nomus, "? ?", share=True, bounded=True, range=(0, 1), more=raise_by(0.1, None),
        constant=0.75, separated=(put(1, 1), 0.5),
    ),
    "literature.adaptive_unlearning_score": Case(
        literature.adaptive_unlearning_score, "? ? ?", share=True, bounded=True, range=(0, 2),
        more=raise_by(0.1, None, None), sign=-1,
        constant=1.0, separated=(put(1, 0, 1), 0.0),
    ),
    "literature.indiscernibility": Case(
        literature.indiscernibility, "?", share=True, bounded=True, range=(0, 1), more=put(0.5), constant=1.0,
        separated=(put(1), 0.0),
    ),
    "literature.retention_deviation": Case(
        lambda a, b, c, d: literature.retention_deviation(*named("retain", "test")((a, b, c, d))), "? ? ? ?",
        share=True, range=(0, INF), more=add(99, None, None, None), constant=0.0, separated=(put(0, 0, 1, 1), 2.0),
    ),
    "literature.sape": Case(
        literature.sape, "? ?", share=True, range=(0, 100), swap=even, constant=0.0, separated=(put(1, 0), 100.0)
    ),
    "literature.completeness": Case(
        literature.completeness, "ik ik", range=(0, 1), shift=(0,), swap=even, constant=1.0,
        separated=(certain(0, 1), 0.0)
    ),
    "literature.completeness[attributes]": Case(
        lambda a, b: literature.completeness(a, b, attributes=True), "ik ik", range=(0, 1), swap=even, constant=1.0,
        separated=(add(99, -99), 0.0), reason="a constant changes an attribute",
    ),
    "literature.activation_distance": Case(
        literature.activation_distance, "ik ik", range=(0, np.sqrt(2)), shift=(0,), swap=even, constant=0.0,
        separated=(certain(0, 1), np.sqrt(2)),
    ),
    "literature.zrf": Case(
        literature.zrf, "ik ik", range=(1 - LOG2, 1), shift=(0,), swap=even, constant=1.0,
        separated=(certain(0, 1), 1 - LOG2),
    ),
    "literature.layer_distance": Case(
        lambda a, b: literature.layer_distance([a], [b]), "i i", range=(0, INF), shift=(0, 1), swap=even, constant=0.0,
        separated=(put(9, -9), lambda v: v >= 18),
    ),
    "divergence.distance_pairs": Case(
        divergence.distance_pairs, "sik", range=(0, np.sqrt(2)), shift=(0,), more=lambda z: [np.zeros_like(z)], sign=-1,
        constant=0.0, separated=(lambda z: [np.eye(4, 3)[:, None] * 1e4 + 0 * z], lambda v: v[0, 1] > 1.4),
    ),
    "divergence.agreement_pairs": Case(
        divergence.agreement_pairs, "sik", range=(0, 1), shift=(0,), more=lambda z: [np.zeros_like(z)], constant=1.0,
        separated=(lambda z: [np.eye(4, 3)[:, None] * 1e4 + 0 * z], lambda v: v[0, 1] == 0),
    ),
    "erasure.h_mean": Case(
        erasure.h_mean, "i i i", share=True, range=(0, 1), more=add(0.05, None, None), constant=0.0,
        separated=(put(1, 1, 0), 1.0),
    ),
    "erasure.forgetting_rate": Case(
        lambda *a: defined(erasure.forgetting_rate(*quarter(*"+--")(*a))), "i j ?", share=True, bounded=True, rows="ij",
        more=add(None, 0.1, None), sign=-1, separated=(put(0, 0.5, 0.5), 1.0), shift=(0, 1, 2), constant=1.0,
    ),
    "erasure.generalization": Case(
        lambda *a: generalized(*quarter(*"+-+--")(*a)), "i j i j ?", share=True, bounded=True,
        rows="ij", more=add(None, None, None, 0.1, None), sign=-1, shift=(0, 1, 2, 3, 4), constant=1.0,
        separated=(put(0, 0.5, 0, 1.8, 0.5), 0.0),
    ),
    "erasure.reemergence": Case(
        erasure.reemergence, "i", share=True, bounded=True, range=(0, 1), rows="", shift=(0,), constant=0.0,
        more=lambda a: [np.r_[a, a.max()]], separated=(lambda a: [np.r_[0 * a, 1]], 1.0), reason="steps have an order",
    ),
    "probes.residual_share": Case(
        lambda *a: defined(residual_share(*quarter(*"--+")(*a))), "i j l", share=True, bounded=True, rows="ijl",
        shift=(0, 1, 2), more=add(0.1, None, None), constant=0.0, separated=(put(1.8, 0, 0), 1.0),
    ),
    "probes.linear_probe": Case(
        lambda a, b, c: linear_probe(*(Rows(x, np.arange(len(x)) % 2) for x in (a, b, c))).accuracy, "ik jk lk",
        range=(0, 1), rows="", shift=(0, 1, 2), constant=lambda v: 0 <= v <= 1,
        more=lambda *args: [x + 50 * (np.arange(len(x)) % 2)[:, None] for x in args],
        separated=(lambda *args: [x + 50 * (np.arange(len(x)) % 2)[:, None] for x in args], 1.0), min_rows=2,
        holds_with_ties=False,
        tolerance=0.5, examples=2, reason="labels go by place here, and the sample of a class by the order of its rows",
    ),
    "cost.cost_ratio": Case(
        cost.cost_ratio, "? ?", share=True, range=(0, INF), swap=lambda v: 1 / v, more=add(1, None), constant=1.0,
        separated=(put(0, 1), 0.0),
    ),
    "cost.amortized": Case(
        lambda a: cost.amortized(a[:, 0], a[:, 1]), "ik", share=True, range=(0, INF), sizes=(("k", 2),), constant=1.0,
        more=lambda a: [a + np.array([1, 0])], separated=(lambda a: [a * [0, 1]], 0.0),
    ),
    "cost.share_changed": Case(
        lambda a: cost.share_changed([a[:, 0]], [a[:, 1]]), "ik", range=(0, 1), sizes=(("k", 2),), shift=(0,),
        constant=0.0, more=lambda a: [a + np.array([99, 0])], separated=(add(np.array([99, 0])), 1.0), ties=False,
        reason="ties are broken where a constant is added",
    ),
    "published_code.modified_entropy": Case(
        lambda p: published_code.modified_entropy(p, np.arange(len(p)) % 3), "ik", share=True, bounded=True,
        range=(0, INF), rows="",
        constant=lambda v: v > 0, min_rows=0,
        reason="which classes are in the batch matters: that is its fault",
    ),
    "published_code.zrf": Case(
        published_code.zrf, "ik ik", range=(-INF, 1), shift=(0,), swap=even, constant=1.0,
        separated=(certain(0, 1), lambda v: not v > -9),
    ),
    "published_code.lira_offline": Case(
        lambda a, b: published_code.lira_offline(a, shadow_models.fit_normal(b)), "i si", out="i", shift=(0, 1),
        tolerance=1e-5,
        more=add(99, -99), constant=lambda v: v < 0, separated=(add(99, -99), lambda v: v > 99),
    ),
    "published_code.fixed_variance": Case(
        lambda a: published_code.fixed_variance(a, np.indices(a.shape)[0] < 2)[1].sd, "si", range=(0, INF),
        out="i", shift=(0,), more=lambda a: [2 * a], constant=0.0,
        separated=(lambda a: [99 * (a * 0 + [[1], [-1], [0], [0]])], 99.0),
    ),
    "published_code.klom": Case(
        published_code.klom, "si ti", range=(0, np.log(1e5 + 20)), out="i", shift=(0, 1), more=lambda a, _: [a, a],
        sign=-1, constant=0.0,
        separated=(lambda a, b: [0 * a + 999, 0 * b], 0.0), holds_with_ties=False, ties=False,
        reason="where all values of the oracles are the largest none is in a bin, and it is NaN",
    ),
    "published_code.rmia_population": Case(
        published_code.rmia_population, "si", share=True, bounded=True, range=(0, 1), out="i", more=raise_by(0.1),
        constant=0.5,
        separated=(put(1), 1.0),
    ),
    "published_code.loss_score": Case(
        published_code.loss_score, "i", share=True, bounded=True, range=(-1, 0), out="i", more=raise_by(0.1), sign=-1,
        constant=-0.5,
        separated=(put(1), -1.0), min_rows=0,
    ),
    "published_code.tpr_nearest": Case(
        lambda a, b: published_code.tpr_nearest(a, b, 0.5), "i j", range=(0, 1), rows="ij", shift=(0, 1),
        constant=0.0, separated=(add(99, -99), 0.0),
        reason="higher scores of members may lower it, to 0 where they are separated: that is its fault",
    ),
}  # fmt: skip
