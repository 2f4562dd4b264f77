"""Specs of the erasure metrics: is the behavior gone, everywhere, and for good?"""

from __future__ import annotations

from forgetbench.metrics.registry import MetricSpec, metrics


def register() -> None:
    """Add this file's specs to the registry."""
    specs = [
        MetricSpec(
            name="h-mean",
            title="H-mean",
            symbol="H",
            group="erasure",
            unit="share",
            direction="up",
            range=(0.0, 1.0),
            requires=("test", "test-forgotten", "originals"),
            meaning="Harmonic mean of the accuracy kept and the accuracy dropped on forgotten classes, on test images.",
            misses="Whether the features are gone; an extra penalty for damage elsewhere.",
            misuse="On random forget sets, where an oracle hardly drops at all.",
            formula="2 A_r Drop / (A_r + Drop), Drop = A_f(original) - A_f(unlearned), per seed, then averaged",
            example="A_r = 0.8 and Drop = 0.8 give 0.8; Drop = 0 gives 0.",
            source="Zhao et al. 2024 (GS-LoRA), section 4.1.",
            function="erasure.h_mean",
        ),
        MetricSpec(
            name="generalization",
            title="generalization",
            symbol="FR ratio",
            group="erasure",
            unit="ratio",
            direction="up",
            range=(None, None),
            requires=("forget", "withheld", "originals"),
            meaning="Does forgetting reach images of the same class or person that were not given? 1 = fully.",
            misses="Whether it should: a match-oracle task asks for the oracle's value, not for 1.",
            misuse="Reading it where hardly anything was forgotten: then it is noise over noise, and not defined.",
            formula=(
                "FR(withheld) / FR(seen), FR(S) = (A_o(S) - A_u(S)) / (A_o(S) - chance); test-forgotten where nothing "
                "was withheld"
            ),
            example="Chance 0.1, seen 1.0 -> 0.1 (FR 1), withheld 0.9 -> 0.5 (FR 0.5): 0.5.",
            source="Zhang, Choshen and Andreas 2024; protocol, section 3.",
            function="erasure.generalization",
        ),
        MetricSpec(
            name="probe",
            title="linear probe",
            symbol="probe",
            group="erasure",
            unit="ratio",
            direction="band",
            range=(None, None),
            requires=("features", "originals"),
            meaning="How much of the forgotten class a probe reads from the features: 0 as an oracle, 1 as before.",
            misses="What only a non-linear probe could read.",
            misuse="Probing without an oracle: features that never saw a class separate it too.",
            formula=(
                "(P_u - P_r) / (P_o - P_r), P the accuracy on the forgotten class of an L2 logistic regression on "
                "frozen penultimate features, C chosen on validation, 3 seeds; undefined where |P_o - P_r| < 0.02"
            ),
            example="P_o = 0.90, P_r = 0.60, P_u = 0.75: 0.5.",
            source="Protocol, section 3.",
            function="probe.recoverability",
            efficacy=("erase",),
            floor=0.02,
        ),
        MetricSpec(
            name="probe.shuffled",
            title="probe, shuffled labels",
            symbol="probe_0",
            group="erasure",
            unit="share",
            direction="band",
            range=(0.0, 1.0),
            requires=("features",),
            meaning="Accuracy of the probe on forgotten classes with shuffled training labels: what nothing reads as.",
            misses="Everything but the probe's own floor.",
            misuse="Comparing a probe's accuracy with 1/K: with shuffled labels it need not be there.",
            formula="As the probe's accuracy, with the labels of its training rows in random order; 3 seeds.",
            example="Ten balanced classes: about 0.1.",
            source="Protocol, section 3.",
            function="probe.linear_probe",
        ),
    ]
    for spec in specs:
        metrics.register(spec.name, spec)


register()
