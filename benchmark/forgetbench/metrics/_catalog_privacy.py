"""Specs of the further privacy metrics: margins, RMIA, U-LiRA, forgetting quality, and the risk of those who stay."""

from __future__ import annotations

from typing import Literal

from forgetbench.metrics.registry import MetricSpec, metrics


def _margin(kind: Literal["w1", "klom"], subset: str) -> MetricSpec:
    klom = kind == "klom"
    return MetricSpec(
        name=f"{kind}.{subset}",
        title=f"{'KLOM' if klom else 'W1'}, {subset}",
        symbol=f"{'KLOM' if klom else 'W1'}_{subset}",
        group="privacy",
        unit="nats",
        direction="band",
        range=(None, 11.6 if klom else None),
        requires=(subset,),
        meaning="Distance of phi's distributions over models, 95th percentile over examples, minus the oracles' own.",
        misses="Calibration: fresh oracles fall outside its band far too often, so it flags and ranks nothing.",
        misuse=(
            "Few models: 0.35 between two oracle sets of 100, 1.7 of 32. The published code drops the largest value."
            if klom
            else "Comparing values between tasks: it has the scale of phi."
        ),
        formula=(
            "KL(u || r) of 20-bin histograms of phi clipped to [-100, 100], empty bins of r at 1e-5; 50 models a side"
            if klom
            else "mean over ranks of |sorted phi_u - sorted phi_r|, phi clipped to [-100, 100]"
        )
        + "; 95th percentile over examples, minus the band's mean.",
        example=(
            "u = 0.5..9.5 and r = 0..9 in steps of 1: log(0.1 * 1.0001 / 1e-5) = 9.2104."
            if klom
            else "u = (1, 3), r = (0, 5): (|1 - 0| + |3 - 5|) / 2 = 1.5."
        ),
        source="Georgiev et al. 2024, section 3; protocol, section 3.",
        function="margins.klom" if klom else "margins.wasserstein",
        calibrated=False,
    )


def register() -> None:
    """Add this file's specs to the registry."""
    specs = [_margin(kind, subset) for kind in ("w1", "klom") for subset in ("forget", "retain", "test")]
    specs += [
        MetricSpec(
            name="rmia",
            title="RMIA",
            symbol="RMIA",
            group="privacy",
            unit="AUC",
            direction="band",
            range=(0.0, 1.0),
            requires=("forget", "test"),
            meaning="Per-example attack for few models: above 0.5 still looks trained on, below 0.5 overdone.",
            misses="Attributes (defined for classes only); differences that are the same for all rows.",
            misuse="Few population rows: strong members tie at 1 (here ties are broken by the example's own ratio).",
            formula=(
                "LR(x, z) = [p(x|m) / p(x)] / [p(z|m) / p(z)], p(x) = ((1 + a) p_OUT(x) + 1 - a) / 2 with a = 0.3 "
                "and p_OUT the mean over the other oracles; score Pr_z(LR >= 2) over test rows z, on boards "
                "at most 2,500, evenly spaced; AUC of u against r, all folds"
            ),
            example="p(x|m) = 0.8, p_OUT = 0.4, a = 0.3: p(x) = 0.61 and the ratio 1.3115.",
            source="Zarifzadeh et al. 2024, section 3.",
            function="population_rmia.population_rmia",
        ),
        MetricSpec(
            name="ulira",
            title="U-LiRA",
            symbol="U-LiRA",
            group="privacy",
            unit="AUC",
            direction="down",
            range=(0.0, 1.0),
            requires=("halves",),
            meaning="Tells examples trained on and unlearned from those never seen, in equally treated models.",
            misses="Tasks whose originals are not trained on random halves: not computable there.",
            misuse="Fitting on 0/1 correctness (blind, undefined at spread 0), or with models that unlearned nothing.",
            formula=(
                "p = N(phi; IN) / (N(phi; IN) + N(phi; OUT)), IN = trained with i, then unlearned i; OUT = never saw i "
                "and unlearned another forget set; each model judged by the others, by the log ratio: AUC, balanced "
                "accuracy at p > 1/2, TPR at 1 % and 0.1 % FPR"
            ),
            example="N(1,1) and N(-1,1): phi = 1 gives 0.8808, phi = 0 gives 0.5.",
            source="Hayes et al. 2024, section 4.",
            function="shadow.ulira_roc",
        ),
        MetricSpec(
            name="forgetting-quality",
            title="forgetting quality",
            symbol="F/F_c",
            group="privacy",
            unit="ratio",
            direction="up",
            range=(0.0, None),
            requires=("forget",),
            meaning="The NeurIPS 2023 challenge's F over that of oracles against oracles: about 1 for an oracle.",
            misses="Anything beyond log(models - 1); its band.",
            misuse="Reading F itself: an oracle reaches about 0.19 and not 1.",
            formula=(
                "F = mean_i 2 / 2^n(i), n the bin of width 0.5 of epsilon_i = max over decision rules of "
                "log((1 - d - FPR) / FNR), log((1 - d - FNR) / FPR), d = 1e-5; over the mean F of 4 halvings"
            ),
            example="Epsilons 0.2, 0.7 and 5 with 64 models: F = (1 + 0.5 + 0) / 3 = 0.5.",
            source="Triantafillou et al. 2024; the released metric.py cannot run as it is.",
            function="quality.forgetting_quality",
            calibrated=False,
        ),
        MetricSpec(
            name="neurips-score",
            title="NeurIPS score",
            symbol="F·RA·TA",
            group="literature",
            unit="ratio",
            direction="up",
            range=(0.0, None),
            requires=("forget", "retain", "test"),
            meaning="The challenge's final score over the control: forgetting quality times the two accuracy ratios.",
            misses="As forgetting-quality; an accuracy above the oracle's makes up for memory.",
            misuse="Comparing with the challenge's board, which does not divide by the control.",
            formula="F / F(control) * (RA_u / RA_r) * (TA_u / TA_r)",
            example="F ratio 0.5, accuracies equal: 0.5.",
            source="Triantafillou et al. 2024.",
            function="quality.neurips_score",
        ),
        MetricSpec(
            name="mia.retain",
            title="risk of the retained",
            symbol="MIA_r",
            group="privacy",
            unit="AUC",
            direction="band",
            range=(-1.0, 1.0),
            requires=("retain", "test"),
            meaning="How much easier than on the oracles retained rows are told from unseen ones: are others exposed?",
            misses="Single people; originals have seen more data than oracles, so a small drift is ordinary.",
            misuse="Reading it as forgetting.",
            formula="As mia.population: retain rows as members, against unseen people where there are any, else test.",
            example="AUC 0.70 on the unlearned models and 0.66 on the oracles: +0.04.",
            source="After Hayes et al. 2024, section 6.",
            function="membership.mia_population",
        ),
    ]
    for spec in specs:
        metrics.register(spec.name, spec)


register()
