"""Specs of the metrics that every board shows: accuracy and its gaps, divergence, and the membership attacks."""

from __future__ import annotations

from forgetbench.metrics.registry import MetricSpec, metrics

_SUBSETS = {
    "forget": "the forget set, against the labels that were trained on",
    "retain": "the sample of the retain set",
    "test": "test images (on erase tasks, those of classes that are kept)",
    "test-forgotten": "test images of the forgotten classes",
    "unseen": "images of people that no model has seen",
    "withheld": "training rows that were to be forgotten but given to no method",
    "validation": "validation images",
}


def _accuracy(subset: str, where: str) -> MetricSpec:
    return MetricSpec(
        name=f"accuracy.{subset}",
        title=f"{subset} accuracy",
        symbol=f"A_{subset}",
        group="utility",
        unit="share",
        direction="up" if subset in {"test", "validation", "retain", "unseen"} else "band",
        range=(0.0, 1.0),
        requires=(subset,),
        meaning=f"Share of right answers on {where}; read it beside the oracle's.",
        misses="Confidence: a model may answer as an oracle does and still remember.",
        misuse="Driving forget accuracy to 0 as a goal: an oracle still answers most forgotten images rightly.",
        formula="(1/n) sum_i 1[argmax z(x_i) = y_i], averaged over models; for attributes the mean over them.",
        example="Labels 0, 1, 1 and predictions 0, 1, 0 give 2/3.",
        source="Protocol, section 3.",
        function="utility.accuracy",
    )


def _gap(subset: str, where: str) -> MetricSpec:
    return MetricSpec(
        name=f"gap.{subset}",
        signed=True,
        title=f"{subset} gap",
        symbol=f"Δ_{subset}",
        group="erasure" if subset == "test-forgotten" else "utility",
        unit="share",
        direction="band",
        range=(-1.0, 1.0),
        requires=(subset,),
        meaning=f"Mean accuracy of the unlearned models minus the oracles' on {where}.",
        misses="Single examples: half may be remembered and half overdone at a gap of 0.",
        misuse="Reading |gap| without its band: oracles differ among themselves.",
        formula="mean_s A(u_s) - mean_s A(r_s)",
        example="Unlearned 0.90, 0.92 and oracles 0.88, 0.88 give +0.03.",
        source="Protocol, section 3.",
        function="utility.gap",
        efficacy=("match-oracle",) if subset == "forget" else ("erase",) if subset == "test-forgotten" else (),
        harm=("match-oracle", "erase") if subset in {"retain", "test"} else (),
        floor=0.005,
    )


def _lira(subset: str, *, harm: bool) -> MetricSpec:
    drift = "retain drift" if harm else "LiRA"
    return MetricSpec(
        name=f"lira.{subset}",
        title=drift,
        symbol="drift" if harm else "LiRA",
        group="privacy",
        unit="AUC",
        direction="band",
        range=(0.0, 1.0),
        requires=(subset,),
        meaning="How well somebody who knows the example tells an unlearned model from an oracle; 0.5 is not at all.",
        misses="The side: remembered and overdone look alike (see shift). Small differences with few models.",
        misuse="Fitting on 0/1 correctness, or with the scored model among the fitted; reading it without its band.",
        formula=(
            "phi = z_y - logsumexp_{j != y} z_j. For fold s, fit N(median, sd) to phi(i) over the other S-1 models of "
            "each side (sd pooled over examples below 32 models a side), score u_s and r_s by log N_u - log N_r; AUC "
            "over all examples and folds."
        ),
        example="Fits N(1,1) for unlearned and N(-1,1) for oracles: phi = 1 scores 2, phi = 0 scores 0.",
        source="Carlini et al. 2022, section 5; Hayes et al. 2024; protocol, section 3.",
        function="likelihood.lira",
        efficacy=() if harm else ("match-oracle",),
        harm=("match-oracle", "erase") if harm else (),
        floor=0.05 if harm else 0.01,
    )


def _lira_part(part: str, title: str, formula: str) -> MetricSpec:
    return MetricSpec(
        name=f"lira.forget.{part}",
        title=f"LiRA, {title}",
        symbol=f"LiRA {part}",
        group="privacy",
        unit="AUC" if part == "worst-decile" else "share",
        direction="band",
        range=(0.0, 1.0),
        requires=("forget",),
        meaning=f"The likelihood ratio attack on the forget set, read as {title}.",
        misses="As lira.forget; with few models these readings are noisier than the AUC.",
        misuse="Reporting the TPR at a rate that the number of scores cannot resolve.",
        formula=formula,
        example="Perfectly separated scores give 1.",
        source="Carlini et al. 2022; protocol, section 3.",
        function="likelihood.lira",
    )


def _shift(subset: str) -> MetricSpec:
    return MetricSpec(
        name=f"shift.{subset}",
        signed=True,
        title="shift" if subset == "forget" else "retain shift",
        symbol="shift" if subset == "forget" else "shift_r",
        group="privacy",
        unit="sd",
        direction="band",
        range=(None, None),
        requires=(subset,),
        meaning="Oracle standard deviations of confidence above the oracles: above 0 remembers, below 0 overdoes.",
        misses="Changes that cancel between examples (lira sees those).",
        misuse="Reading it without lira: half up and half down is 0.",
        formula="mean_i (mean_s phi_u(i) - mean_s phi_r(i)) / sigma, sigma^2 = mean_i var_s phi_r(i). "
        f"Above 0.99 lira.{subset} is saturated: the shift then stands in for it, and may decide the distance",
        example="Oracles at phi 0 and 2 (sd 1.414), unlearned at 2 and 2: shift 0.707.",
        source="Protocol, section 3.",
        function="likelihood.shift",
        floor=0.035 if subset == "forget" else 0.18,
    )


def register() -> None:
    """Add this file's specs to the registry."""
    specs = [_accuracy(*item) for item in _SUBSETS.items()] + [_gap(*item) for item in _SUBSETS.items()]
    specs += [_lira("forget", harm=False), _lira("retain", harm=True), _shift("forget"), _shift("retain")]
    specs += [
        _lira_part("balanced", "balanced accuracy at 0", "Mean of the two rates of right calls at a log ratio of 0."),
        _lira_part("tpr-1", "TPR at 1 % FPR", "The largest TPR whose FPR does not exceed 1 %; none below 100 scores."),
        _lira_part("tpr-0.1", "TPR at 0.1 % FPR", "The largest TPR whose FPR does not exceed 0.1 %; none below 1,000."),
        _lira_part(
            "worst-decile",
            "AUC of the worst decile",
            "The tenth of the examples with the largest |mean phi_u - mean phi_r| over every other model, scored on "
            "the remaining folds; both ways, averaged.",
        ),
    ]
    specs += [
        MetricSpec(
            name="tow",
            title="tug-of-war",
            symbol="ToW",
            group="utility",
            unit="",
            direction="up",
            range=(0.0, 1.0),
            requires=("forget", "retain", "test"),
            meaning="One number for three gaps: 1 where all accuracies are the oracle's.",
            misses="Anything but accuracy; and an oracle against an oracle is below 1.",
            misuse="Comparing it between papers without the oracle's own value.",
            formula="prod over X in {forget, retain, test} of (1 - |A_u(X) - A_r(X)|), per seed, then averaged",
            example="Gaps of 0.05, 0.01 and 0.031: 0.95 * 0.99 * 0.969 = 0.9113.",
            source="Zhao et al. 2024 (RUM), equation 1.",
            function="utility.tow",
            calibrated=False,
        ),
        MetricSpec(
            name="js",
            title="divergence",
            symbol="JS",
            group="privacy",
            unit="nats",
            direction="band",
            range=(-0.7, 0.7),
            requires=("forget",),
            meaning="How far predictions on the forget set are from the oracles', beyond the spread of each side.",
            misses="Which examples, and which side.",
            misuse="The copied code computes KL with its arguments exchanged and divides by the number of classes.",
            formula=(
                "mean_{u,r} JS(p_u, p_r) - (1/2) mean_{u != u'} JS(p_u, p_u') - (1/2) mean_{r != r'} JS(p_r, p_r'), "
                "averaged over D_f"
            ),
            example="JS((1/2, 1/2), (1, 0)) = 0.215762; disjoint predictions give log 2 = 0.693147.",
            source="Lin 1991; protocol, section 3.",
            function="divergence.centered_js",
        ),
        MetricSpec(
            name="mia.population",
            title="population attack",
            symbol="MIA",
            group="privacy",
            unit="AUC",
            direction="band",
            range=(-1.0, 1.0),
            requires=("forget", "test"),
            meaning="How much more than on the oracles the forget set looks like training data, label by label.",
            misses="Single examples: per-example attacks find what this does not. A cheap floor, never the headline.",
            misuse="Reading the attack's accuracy as an absolute; matching no labels; imbalanced sides.",
            formula=(
                "For loss, confidence, entropy and modified entropy: AUC of D_f against test examples of the same "
                "label; AUC_u - AUC_r of the attack with the largest difference, chosen on one half of the examples "
                "and read on the other, each label's rows dealt out by confidence"
            ),
            example="AUC 0.62 on the unlearned models and 0.51 on the oracles: +0.11.",
            source="Yeom et al. 2018; Song and Mittal 2021; protocol, section 3.",
            function="membership.mia_population",
        ),
    ]
    for spec in specs:
        metrics.register(spec.name, spec)


register()
