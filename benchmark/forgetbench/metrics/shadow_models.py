"""Per-example attacks with reference models: LiRA online and offline, U-LiRA, and RMIA. Larger = member everywhere.

The board's own ``lira`` is in lira_mia.py: there both sides are populations. Here one target is compared with models
that trained with (IN) and without (OUT) each example. Sources: Carlini et al. 2022, Hayes et al. 2024, Zarifzadeh et
al. 2024.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.errors import UsageError
from forgetbench.metrics._lazy_scipy import expit, normal_log_cdf, normal_log_density
from forgetbench.metrics._validation import (
    BoolArray,
    FloatArray,
    at_least,
    floats,
    mask_of,
    number,
    phi_of,
    same_shape,
    share,
    shares,
)
from forgetbench.metrics.lira_mia import POOL_BELOW, SMALLEST_SD
from forgetbench.metrics.registry import MetricSpec, metric
from forgetbench.metrics.roc import ROC


class Fit(NamedTuple):
    """A normal distribution for each example."""

    center: FloatArray
    """(n,) medians."""
    sd: FloatArray
    """(n,) standard deviations; the same for all examples if pooled."""


def fit_normal(phi: ArrayLike, members: ArrayLike | None = None) -> Fit:
    """Median and spread of phi for each example, over the models selected for it.

    Args:
        phi: (M, n) phi of M reference models.
        members: (M, n) true and false, which models are used for which example; all of them by default.

    Returns:
        With at least 32 models the spread is per example (about the mean, M in the denominator); with fewer it is
        pooled: the root of the mean of the examples' variances (with M - 1). Each side has its own spread; the
        published code takes the IN side's raw spread for both.

    Raises:
        UsageError: An example has fewer than two models, or the mask does not have the shape of phi.
    """
    values = phi_of(phi, "phi of the reference models")
    mask = np.ones(values.shape, dtype=np.bool_) if members is None else mask_of(members, values.shape, "members")
    counts = mask.sum(axis=0)
    if not values.size or (counts < 2).any():
        raise UsageError("Every example needs at least two reference models on each side.")
    center: FloatArray = np.nanmedian(np.where(mask, values, np.nan), axis=0)
    squares = np.where(mask, (values - np.where(mask, values, 0.0).sum(axis=0) / counts) ** 2, 0.0).sum(axis=0)
    if counts.min() >= POOL_BELOW:
        sd = np.sqrt(squares / counts)
    else:
        sd = np.full(len(counts), np.sqrt(squares.sum() / (counts - 1).sum()))
    return Fit(center, np.maximum(sd, SMALLEST_SD))


@metric(
    MetricSpec(
        name="lira.online",
        title="LiRA, online",
        group="literature",
        unit="nats",
        range=(None, None),
        requires=("shadow models",),
        meaning="Log ratio of phi under models with the example and without it; above 0 is member. ROC.of reads it.",
        misses="Anything but phi; needs shadow models on both sides of every example.",
        misuse="The target among its own shadows; a spread per example with few shadows.",
        formula="log N(phi; median_in, sd_in) - log N(phi; median_out, sd_out); sd pooled below 32 models a side",
        example="N(1,1) and N(-1,1): phi = 1 gives 2, phi = 0 gives 0.",
        source="Carlini et al. 2022, algorithm 1.",
        calibrated=False,
        on_boards=False,
    )
)
def lira_online(target: ArrayLike, inside: Fit, outside: Fit) -> FloatArray:
    """Log ratio log N(phi; IN) - log N(phi; OUT) of each example (Carlini et al. 2022, algorithm 1).

    Args:
        target: (n,) phi of the model under attack, or (Q, n) of Q augmented queries, which are averaged.
        inside: Fit of models that trained on the example.
        outside: Fit of models that did not.
    """
    values = queries(target, inside, outside)
    scores = normal_log_density(values, inside.center, inside.sd)
    scores = scores - normal_log_density(values, outside.center, outside.sd)
    return np.asarray(np.mean(scores, axis=0))


@metric(
    MetricSpec(
        name="lira.offline",
        title="LiRA, offline",
        group="literature",
        unit="nats",
        range=(None, 0.0),
        requires=("shadow models",),
        meaning="Log chance that a model without the example is no more confident than the target; larger is member.",
        misses="More than 38 sd above the shadows all scores round to 0.",
        misuse="The published code's two-sided density (legacy.lira-offline) finds less.",
        formula="log Pr[Z <= phi], Z ~ N(median_out, sd_out)",
        example="phi at the median: log(1/2) = -0.6931.",
        source="Carlini et al. 2022, section 5.",
        calibrated=False,
        on_boards=False,
    )
)
def lira_offline(target: ArrayLike, outside: Fit) -> FloatArray:
    """One-sided log Pr[Z <= phi], Z from the OUT fit: confidence against that of models that never saw the example.

    This is the paper's test; its published code takes the two-sided density instead (``published_code.lira_offline``),
    and finds less. A target more than 38 standard deviations above the OUT median scores 0, the largest score.
    """
    values = queries(target, outside)
    return np.asarray(np.mean(normal_log_cdf(values, outside.center, outside.sd), axis=0))


def ulira(target: ArrayLike, unlearned: Fit, never: Fit) -> FloatArray:
    """U-LiRA's probability that the target was trained with the example and then unlearned it (Hayes et al. 2024).

    Args:
        target: (n,) phi of an unlearned model.
        unlearned: Fit of models trained with the example that then unlearned it, by the method under test.
        never: Fit of models that never saw it and unlearned another forget set by the same method.

    Returns:
        (n,) N(phi; unlearned) / (N(phi; unlearned) + N(phi; never)): the sigmoid of the difference of log densities.
    """
    probability: FloatArray = expit(lira_online(target, unlearned, never))
    return probability


@metric(
    MetricSpec(
        name="ulira",
        title="U-LiRA",
        group="privacy",
        unit="AUC",
        direction="down",
        requires=("halves",),
        meaning="Distinguishes examples trained on and unlearned from those never seen, in equally treated models.",
        misses="Tasks whose originals are not trained on random halves: not computable there.",
        misuse="Fitting on 0/1 correctness (blind, undefined at spread 0), or with models that unlearned nothing.",
        formula=(
            "p = N(phi; IN) / (N(phi; IN) + N(phi; OUT)), IN = trained with i, then unlearned i; OUT = never saw i and "
            "unlearned another forget set; each model compared with the others, by the log ratio: AUC, balanced "
            "accuracy at p > 1/2, TPR at 1 % and 0.1 % FPR"
        ),
        example="N(1,1) and N(-1,1): phi = 1 gives 0.8808, phi = 0 gives 0.5.",
        source="Hayes et al. 2024, section 4.",
        unavailable="not computable: the originals of this task are not trained on random halves",
    )
)
def ulira_roc(phi: ArrayLike, forgotten: ArrayLike, seen: ArrayLike) -> ROC:
    """Results of U-LiRA over all unlearned models, each compared with the others.

    The scores are the log ratios and not the probabilities, which round to 1 above a log ratio of 37 and then tie; a
    probability above 1/2 is a log ratio above 0.

    Args:
        phi: (M, n) phi of M unlearned models, from originals on random halves, each with its own forget set.
        forgotten: (M, n), true if the model trained on the example and then unlearned it.
        seen: (M, n), true if it trained on the example. Pairs seen and not forgotten are ignored.

    Raises:
        UsageError: For no model there is an example that enough others have in both roles, or a mask does not have the
            shape of phi.
    """
    values = phi_of(phi)
    inside, outside = mask_of(forgotten, values.shape, "forgotten"), ~mask_of(seen, values.shape, "seen")
    if (inside & outside).any():
        raise UsageError("A model cannot have forgotten an example that it never saw: check forgotten and seen.")
    roles = [_Role(values, members) for members in (inside, outside)]
    scores: list[FloatArray] = []
    truth: list[BoolArray] = []
    for model in range(len(values)):
        usable = inside[model] | outside[model]
        for role in roles:
            usable = usable & (role.counts - role.members[model] >= 2)
        if usable.any():
            scores.append(lira_online(values[model, usable], *(role.fit_without(model, usable) for role in roles)))
            truth.append(inside[model, usable])
    if not scores:
        raise UsageError(
            "U-LiRA needs examples with two other models in each role: use more halves, or more forget sets."
        )
    called, is_inside = np.concatenate(scores), np.concatenate(truth)
    return ROC.of(called[is_inside], called[~is_inside])


class _Role:
    """The models of one role for each example; the fit of all but one of them follows from sums and one order.

    Args:
        values: (M, n) phi.
        members: (M, n) true and false, which models have the role.
    """

    def __init__(self, values: FloatArray, members: BoolArray) -> None:
        self.values, self.members = values, members
        self.counts = members.sum(axis=0)
        means = np.where(members, values, 0.0).sum(axis=0) / np.maximum(self.counts, 1)
        self.squares: FloatArray = np.where(members, (values - means) ** 2, 0.0)
        self.total = self.squares.sum(axis=0)
        self.ordered: FloatArray = np.sort(np.where(members, values, np.inf), axis=0)

    def fit_without(self, model: int, examples: BoolArray) -> Fit:
        """`fit_normal` of the other models on some examples, each with at least two of them."""
        own, left_out = self.values[model, examples], self.members[model, examples]
        counts, ordered = self.counts[examples], self.ordered[:, examples]
        rest, columns = counts - left_out, np.arange(len(own))

        def order_statistic(position: NDArray[np.int64]) -> FloatArray:
            here = ordered[position, columns]
            return np.where(left_out & (own <= here), ordered[position + 1, columns], here)

        center = (order_statistic((rest - 1) // 2) + order_statistic(rest // 2)) / 2
        squares = self.total[examples] - self.squares[model, examples] * counts / np.maximum(counts - 1, 1)
        squares = np.maximum(squares, 0.0)
        if rest.min() >= POOL_BELOW:
            sd = np.sqrt(squares / rest)
        else:
            sd = np.full(len(rest), np.sqrt(squares.sum() / (rest - 1).sum()))
        return Fit(center, np.maximum(sd, SMALLEST_SD))


@metric(
    MetricSpec(
        name="rmia.online",
        title="RMIA, online",
        group="literature",
        requires=("shadow models",),
        meaning="Share of population rows that the example's ratio dominates; half of the references saw it.",
        misses="Ties: with m rows it has m + 1 values (shadow_models.rmia_tie_break).",
        misuse="Averaging the larger half of the references instead of all (legacy.rmia-population).",
        formula="Pr_z[(p(x|m) / p(x)) / (p(z|m) / p(z)) >= gamma], p the references' mean: rmia(..., offline=None)",
        example="p(x|m) / p(x) = 2 against z of 1, 1.2, 1.4, 1.6 and gamma 1.5: 0.5.",
        source="Zarifzadeh et al. 2024.",
        calibrated=False,
        on_boards=False,
    )
)
def rmia(
    target: tuple[ArrayLike, ArrayLike],
    reference: tuple[ArrayLike, ArrayLike],
    *,
    gamma: float = 2.0,
    offline: float | None = 0.3,
) -> FloatArray:
    """RMIA's score Pr_z(LR(x, z) >= gamma), LR = [p(x|target) / p(x)] / [p(z|target) / p(z)].

    Args:
        target: p_y of the model under attack: (n,) on the examples, (m,) on population rows z, disjoint from them.
        reference: Mean p_y of the reference models on the same examples and rows. Offline: of models that never saw the
            examples; online: half of them did.
        gamma: The ratio that counts as dominance: 2 in the paper, 1 in a well-known library.
        offline: a in p(x) = ((1 + a) p_OUT(x) + (1 - a)) / 2; None for online references, with p(x) their mean.

    Returns:
        (n,) scores in [0, 1], resolved to 1/m.

    Raises:
        UsageError: Shapes do not fit, a probability is below 0 (offline: or above 1), or gamma is not above 0.
    """
    gamma = number(gamma, "gamma")
    if gamma <= 0:
        raise UsageError(f"gamma: {gamma:.9g} is not above 0; the paper uses 2.")
    return dominance(*_relative(target, reference, offline), gamma)


def rmia_tie_break(
    target: tuple[ArrayLike, ArrayLike],
    reference: tuple[ArrayLike, ArrayLike],
    *,
    gamma: float = 2.0,
    offline: float | None = 0.3,
) -> FloatArray:
    """RMIA's score with ties broken by the ratio of the example, so that strong members do not all score 1.

    The arguments are those of ``rmia``.
    """
    score = rmia(target, reference, gamma=gamma, offline=offline)
    return broken_ties(score, _relative(target, reference, offline)[0], np.size(target[1]))


def relative(p: FloatArray, mean: FloatArray, offline: float | None = 0.3) -> FloatArray:
    """p(x|target) / p(x) of `rmia`, element by element. Inputs are not validated: an inner loop of the boards."""
    marginal = mean if offline is None else ((1 + offline) * mean + (1 - offline)) / 2
    return p / np.maximum(marginal, 1e-300)


def dominance(examples: FloatArray, rows: FloatArray, gamma: float = 2.0) -> FloatArray:
    """Share of the rows whose ratio is at most 1/gamma of an example's: (n,) of (n,) and (m,). Not validated."""
    return np.searchsorted(np.sort(rows * gamma), examples, side="right") / len(rows)


def broken_ties(score: FloatArray, ratio: FloatArray, rows: int) -> FloatArray:
    """Scores over a number of rows, plus less than the least difference of two of them. Not validated."""
    broken: FloatArray = score + ratio / (1.0 + ratio) / (rows + 1)
    return broken


def queries(target: ArrayLike, *fits: Fit) -> FloatArray:
    """(Q, n) phi of the target, on the examples of each fit.

    Raises:
        UsageError: The target is neither (n,) nor (Q, n), the examples of a fit are others, or a spread is not above 0.
    """
    values = floats(target, "phi of the target", first="query")
    if values.ndim not in {1, 2}:
        raise UsageError(f"phi of the target: expected (n,) or (Q, n), but the shape is {values.shape}.")
    queries = np.atleast_2d(values)
    for fit in fits:
        for part in fit:
            same_shape(queries, floats(part, "fit", ndim=1)[None], "the same examples", after=1)
        if np.min(fit.sd) <= 0:
            raise UsageError(f"A fit's spread must be above 0; fit_normal uses at least {SMALLEST_SD:g}.")
    return queries


def _relative(
    target: tuple[ArrayLike, ArrayLike], reference: tuple[ArrayLike, ArrayLike], offline: float | None
) -> tuple[FloatArray, FloatArray]:
    weight = None if offline is None else share(offline, "offline")
    validate = at_least if weight is None else shares  # the online ratio does not depend on the unit
    ratios = []
    for target_p, reference_p in zip(target, reference, strict=True):
        p, mean = validate(target_p, "p of the target", ndim=1), validate(reference_p, "p of the references", ndim=1)
        same_shape(p, mean, "the same rows, target and references,")
        ratios.append(relative(p, mean, weight))
    return ratios[0], ratios[1]
