"""Specs of metrics for comparison with published tables. They rank nothing."""

from __future__ import annotations

from typing import Any

from forgetbench.metrics.registry import MetricSpec, metrics


def published(name: str, title: str, **fields: Any) -> MetricSpec:
    """A spec with what metrics for comparison have in common: a share, toward the oracle's value."""
    given: dict[str, Any] = {"symbol": title, "group": "literature", "unit": "share", "direction": "band"}
    given |= {"range": (0.0, 1.0)}
    return MetricSpec(name=name, title=title, **(given | fields))


def _attacks() -> list[MetricSpec]:
    return [
        published(
            "mia.svc-confidence",
            "SVC confidence",
            requires=("forget", "retain", "test"),
            meaning="Share of D_f that a support vector machine calls non-member; the target is the oracle's.",
            misses="Per-example memory; and the order of rows decides which are fitted, as in the published protocol.",
            misuse="Maximizing it: calling everything non-member scores 1.0, and an oracle is well below that.",
            formula=(
                "RBF-SVC (C = 3, gamma = auto) on p_y; members = the first |test| retain rows after a seeded shuffle, "
                "non-members = test; fitted on at most 1,000 rows a side, evenly spaced (published: all); share of D_f "
                "called non-member."
            ),
            example="Oracles 0.66, originals 0.29 in one published setting.",
            source="Jia et al. 2023; Fan et al. 2024 (SalUn).",
            function="attacks.svc_non_members",
        ),
        published(
            "mia.loss",
            "loss attack",
            requires=("forget", "test"),
            meaning="Accuracy of logistic regression on losses, forget set against test; the target is the oracle's.",
            misses="Label mix: its null is not 0.5 where the two sides differ in anything but membership.",
            misuse=(
                "Unequal sides, which the published code has where test rows are more: the majority alone reaches 0.94 "
                "at 1,600 to 100. Its 10 splits overlap."
            ),
            formula=(
                "LogisticRegression on [test, forget], StratifiedShuffleSplit(10, random_state=0), mean accuracy; "
                "the larger side thinned out evenly to the smaller, on boards to at most 2,000 rows a side."
            ),
            example="0.579 on the starting kit's original, 0.502 on its retrained model.",
            source="NeurIPS 2023 starting kit, simple_mia; Choi and Na 2023.",
            function="attacks.loss_attack",
        ),
        published(
            "mia.entropy",
            "entropy attack",
            requires=("forget", "retain", "test"),
            meaning="Share of D_f that logistic regression on entropy calls member; the target is the oracle's.",
            misses="The label: an example that is surely wrong looks like a member.",
            misuse="Lower is not better. Unbalanced (Bad Teaching's code) it says 1.0 for every model.",
            formula=(
                "Balanced LogisticRegression (C = 2) on entropy, retain against test, on boards at most 2,000 rows a "
                "side, evenly spaced; share of D_f called member."
            ),
            example="0.295 for an oracle in one published setting.",
            source="Foster et al. 2024 (SSD).",
            function="attacks.entropy_attack",
        ),
        published(
            "nomus",
            "NoMUS",
            direction="up",
            requires=("forget", "test"),
            meaning="Test accuracy and the loss attack in one number, each weighing a half.",
            misses="The oracle; a useless model scores about 0.6, doing nothing may beat retraining.",
            misuse="Ranking by it. The README's MIA column is |attack - 0.5|.",
            formula="(accuracy + 1 - 2 |mia.loss - 0.5|) / 2",
            example="Accuracy 0.5952, attack 0.7136: 0.5840.",
            source="Choi and Na 2023.",
            function="literature.nomus",
        ),
        published(
            "avg-gap",
            "average gap",
            direction="down",
            requires=("forget", "retain", "test"),
            meaning="Mean |difference from the oracle| of forget, retain and test accuracy and SVC confidence.",
            misses="Anything but averages; an oracle against an oracle is not 0.",
            misuse="Taking the gap of means instead of the mean of gaps: the latter is never smaller.",
            formula="mean of |dUA|, |dRA|, |dTA|, |dMIA| per seed, then averaged",
            example="2.85/99.62/93.93/14.39 against 5.24/100/94.26/12.88: 1.1525 points.",
            source="Fan et al. 2024 (SalUn), table 1.",
            function="utility.average_gap",
            calibrated=False,
        ),
        published(
            "tow-mia",
            "ToW-MIA",
            direction="up",
            unit="",
            requires=("forget", "retain", "test"),
            meaning="Tug-of-war with the SVC confidence attack in place of forget accuracy.",
            misses="As tow.",
            misuse="Taking the attack's value as good when large: only the oracle's value counts.",
            formula="(1 - |dMIA|)(1 - |dRA|)(1 - |dTA|), per seed, then averaged",
            example="Differences 0.1, 0, 0: 0.9.",
            source="Zhao et al. 2024 (RUM).",
            function="literature.tow_mia",
            calibrated=False,
        ),
    ]


def _outputs() -> list[MetricSpec]:
    return [
        published(
            "activation-distance",
            "activation distance",
            direction="down",
            unit="",
            range=(0.0, None),
            requires=("forget",),
            meaning="Mean L2 distance of the softmax outputs of unlearned models and oracles on D_f.",
            misses="The spread of oracles among themselves, which is in it.",
            misuse="Four definitions are in use (mean L2, mean L1, root of mean square, layer means).",
            formula=(
                "mean over u, r and D_f of |softmax z_u - softmax z_r|_2, at most sqrt(2); of the probabilities of A "
                "attributes, at most sqrt(A)"
            ),
            example="(1, 0) against (0, 1): sqrt(2).",
            source="Chundawat et al. 2023.",
            function="literature.activation_distance",
            calibrated=False,
        ),
        published(
            "completeness",
            "completeness",
            direction="up",
            requires=("forget",),
            meaning="Share of the forget set on which unlearned model and oracle predict the same.",
            misses="Confidence; two oracles do not agree fully either.",
            misuse="Taking 1 as the goal; Jaccard versions under the same name.",
            formula="mean over u, r and D_f of 1[argmax z_u = argmax z_r]",
            example="Predictions 0, 1, 2 and 0, 1, 1: 2/3.",
            source="Cao and Yang 2015.",
            function="literature.completeness",
            calibrated=False,
        ),
        published(
            "zrf",
            "ZRF",
            direction="up",
            requires=("forget", "teacher"),
            meaning="Likeness to a randomly initialized network on the forget set.",
            misses="The oracle, which is no random network: its target is over-forgetting.",
            misuse="Published code exchanges the arguments of KL and divides by the number of classes (legacy.zrf).",
            formula="1 - mean JS(softmax z_u, softmax z_teacher)",
            example="Equal outputs: 1; certain of different classes: 1 - log 2 = 0.3069.",
            source="Chundawat et al. 2023.",
            function="literature.zrf",
        ),
        published(
            "layer-distance",
            "layer-wise distance",
            direction="down",
            unit="",
            range=(0.0, None),
            requires=("submitter",),
            meaning="L2 distance of the weights of unlearned model and oracle.",
            misses="Function: hidden units may change places at no cost.",
            misuse="Between models of different initialization it measures the initialization.",
            formula="sqrt(sum over layers |W_u - W_r|^2)",
            example="One layer, (3, 0) against (0, 4): 5.",
            source="Golatkar et al. 2020.",
            function="literature.layer_distance",
        ),
        published(
            "aus",
            "AUS",
            direction="up",
            range=(0.0, None),
            requires=("forget", "test", "originals"),
            meaning="Test accuracy kept, over one plus the distance of forget accuracy from its target.",
            misses="The oracle; confidence.",
            misuse="Comparing random and class forgetting: their denominators differ.",
            formula="(1 - (A_t(o) - A_t(u))) / (1 + |A_f(u) - A_t(u)|); for classes the denominator is 1 + A_f(u)",
            example="A_t(u) 0.88, A_t(o) 0.92, A_f(u) 0.95: 0.8972.",
            source="Bonato et al. 2024 (SCAR).",
            function="literature.adaptive_unlearning_score",
        ),
        published(
            "retention-deviation",
            "retention deviation",
            direction="down",
            range=(0.0, None),
            requires=("retain", "test"),
            meaning="How far accuracies are from the oracle's, as shares of it, summed over retain and test.",
            misses="The spread of oracles.",
            misuse="Averaging it with the attack into one number.",
            formula="sum over subsets of |1 - A_u / A_r|",
            example="0.9 against 1.0 and 0.8 against 0.8: 0.1.",
            source="Cadet et al. 2024 (Deep Unlearn).",
            function="literature.retention_deviation",
        ),
        published(
            "indiscernibility",
            "indiscernibility",
            direction="up",
            requires=("forget", "test"),
            meaning="1 where the attack on losses guesses, 0 where it is always right.",
            misses="As mia.loss; 0.5 is not the oracle's value.",
            misuse="Maximizing it: an oracle need not be at 1.",
            formula="1 - 2 |mia.loss - 0.5|",
            example="Attack 0.6: 0.8.",
            source="Cadet et al. 2024 (Deep Unlearn).",
            function="literature.indiscernibility",
        ),
        published(
            "relearn",
            "relearn time",
            direction="band",
            group="erasure",
            unit="steps",
            range=(0.0, None),
            requires=("submitter",),
            meaning="Steps until forget accuracy is back at 95 % of the original's, as the submitter measured.",
            misses="What other optimizers would do: one optimizer and learning rate for all.",
            misuse="Counting a curve that never comes back as 0: it is censored.",
            formula="smallest t with A_f(t) >= 0.95 A_f(o), t = 0 included",
            example="Original 1.0, curve 0.2, 0.6, 0.96: 2 steps.",
            source="Tarun et al. 2023; protocol, section 3.",
            function="relearn.relearn_time",
        ),
        published(
            "ain",
            "anamnesis index",
            group="erasure",
            direction="band",
            unit="ratio",
            range=(0.0, None),
            requires=("submitter",),
            meaning="Relearn time over the oracle's: 1 as an oracle, below 1 a trace is left, above 1 overdone.",
            misses="As relearn.",
            misuse="Dividing by 0 where the oracle is back at once: hence the + 1.",
            formula="(rt_u + 1) / (rt_r + 1)",
            example="2 steps against 5: 0.5.",
            source="Tarun et al. 2023.",
            function="relearn.anamnesis_index",
        ),
    ]


def register() -> None:
    """Add this file's specs to the registry."""
    for spec in (*_attacks(), *_outputs()):
        metrics.register(spec.name, spec)


register()
