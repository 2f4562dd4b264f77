"""Per-example attacks with reference models: LiRA online and offline, U-LiRA, and RMIA. Larger = member everywhere.

The board's own ``lira`` is in likelihood.py: there both sides are populations. Here one target is judged against models
that trained with (IN) and without (OUT) each example. Sources: Carlini et al. 2022, Hayes et al. 2024, Zarifzadeh et
al. 2024.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import norm

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import BoolArray, FloatArray, floats, phi_of, same_shape, share, shares
from forgetbench.metrics.lira_mia import POOL_BELOW, SMALLEST_SD
from forgetbench.metrics.roc import ROC


class Fit(NamedTuple):
    """A normal law for each example."""

    center: FloatArray
    """(n,) medians."""
    sd: FloatArray
    """(n,) standard deviations; the same for all where they were pooled."""


def fit_normal(phi: ArrayLike, members: BoolArray | None = None) -> Fit:
    """Median and spread of phi for each example, over the models that count for it.

    Args:
        phi: (M, n) phi of M reference models.
        members: (M, n), which models count for which example; all of them by default.

    Returns:
        The spread is each example's own (about the mean, M in the denominator) from 32 models on; below, it is pooled:
        the root of the mean of the examples' variances (with M - 1). Each side has its own; the published code takes
        the IN side's raw spread for both.

    Raises:
        UsageError: An example has fewer than two models.
    """
    values = phi_of(phi, "phi of the reference models")
    mask = np.ones(values.shape, dtype=np.bool_) if members is None else np.asarray(members, dtype=np.bool_)
    counts = mask.sum(axis=0)
    if mask.shape != values.shape or not values.size or (counts < 2).any():
        raise UsageError("Every example needs at least two reference models on each side.")
    kept = np.where(mask, values, np.nan)
    center: FloatArray = np.nanmedian(kept, axis=0)
    squares = np.where(mask, (values - np.where(mask, values, 0.0).sum(axis=0) / counts) ** 2, 0.0).sum(axis=0)
    if counts.min() >= POOL_BELOW:
        sd = np.sqrt(squares / counts)
    else:
        sd = np.full(len(counts), np.sqrt(squares.sum() / (counts - 1).sum()))
    return Fit(center, np.maximum(sd, SMALLEST_SD))


def lira_online(target: ArrayLike, inside: Fit, outside: Fit) -> FloatArray:
    """Log ratio log N(phi; IN) - log N(phi; OUT) of each example (Carlini et al. 2022, algorithm 1).

    Args:
        target: (n,) phi of the model under attack, or (Q, n) of Q augmented queries, which are averaged.
        inside: Fit of models that trained on the example.
        outside: Fit of models that did not.
    """
    values = _queries(target, inside, outside)
    scores = norm.logpdf(values, inside.center, inside.sd) - norm.logpdf(values, outside.center, outside.sd)
    return np.asarray(np.mean(scores, axis=0))


def lira_offline(target: ArrayLike, outside: Fit) -> FloatArray:
    """One-sided log Pr[Z <= phi], Z from the OUT fit: how much surer the target is than models that never saw it.

    This is the paper's test; its published code takes the two-sided density instead (``legacy.lira_offline``), and
    finds less. A target more than 38 standard deviations above the OUT median scores 0, as the largest do.
    """
    values = _queries(target, outside)
    return np.asarray(np.mean(norm.logcdf(values, outside.center, outside.sd), axis=0))


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


def ulira_roc(phi: ArrayLike, forgotten: ArrayLike, seen: ArrayLike) -> ROC:
    """What U-LiRA achieves over all unlearned models, each judged by the others.

    The scores are the log ratios and not the probabilities, which round to 1 from a log ratio of 37 on and then tie;
    a probability above 1/2 is a log ratio above 0.

    Args:
        phi: (M, n) phi of M unlearned models, from originals on random halves, each with a forget set of its own.
        forgotten: (M, n), true where the model trained on the example and then unlearned it.
        seen: (M, n), true where it trained on the example. Pairs seen and not forgotten take no part.

    Raises:
        UsageError: No model has an example that enough others have in both roles.
    """
    values = phi_of(phi)
    inside = np.asarray(forgotten, dtype=np.bool_)
    outside = ~np.asarray(seen, dtype=np.bool_)
    if not inside.shape == outside.shape == values.shape:
        raise UsageError(f"Roles are (models, examples) as phi is: {inside.shape} and {outside.shape}, {values.shape}.")
    if (inside & outside).any():
        raise UsageError("A model cannot have forgotten what it never saw.")
    scores: list[FloatArray] = []
    truth: list[BoolArray] = []
    for model in range(len(values)):
        others = np.arange(len(values)) != model
        usable = (
            (inside[others].sum(axis=0) >= 2) & (outside[others].sum(axis=0) >= 2) & (inside[model] | outside[model])
        )
        if usable.any():
            rest = values[others][:, usable]
            fits = [fit_normal(rest, role[others][:, usable]) for role in (inside, outside)]
            scores.append(lira_online(values[model, usable], fits[0], fits[1]))
            truth.append(inside[model, usable])
    if not scores:
        raise UsageError("U-LiRA needs examples with two other models in each role: more halves, or more forget sets.")
    called, roles = np.concatenate(scores), np.concatenate(truth)
    return ROC.of(called[roles], called[~roles])


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
        offline: a in p(x) = ((1 + a) p_OUT(x) + (1 - a)) / 2; None where the references are online: p(x) is their mean.

    Returns:
        (n,) scores in [0, 1], resolved to 1/m.
    """
    ratios = _relative(target, reference, offline)
    return np.searchsorted(np.sort(ratios[1] * gamma), ratios[0], side="right") / len(ratios[1])


def rmia_tie_break(
    target: tuple[ArrayLike, ArrayLike],
    reference: tuple[ArrayLike, ArrayLike],
    *,
    gamma: float = 2.0,
    offline: float | None = 0.3,
) -> FloatArray:
    """RMIA's score with ties broken by the ratio of the example, so that strong members do not all stand at 1.

    The arguments are those of ``rmia``.
    """
    score = rmia(target, reference, gamma=gamma, offline=offline)
    ratio = _relative(target, reference, offline)[0]
    rows = len(np.asarray(target[1]))
    return score + ratio / (1.0 + ratio) / (rows + 1)


def _queries(target: ArrayLike, *fits: Fit) -> FloatArray:
    """(Q, n) phi of the target, as many examples as each fit has."""
    values = floats(target, "phi of the target", first="query")
    if values.ndim not in {1, 2}:
        raise UsageError(f"phi of the target: (n,) or (Q, n) expected, but the shape is {values.shape}.")
    queries = np.atleast_2d(values)
    for fit in fits:
        for part in fit:
            same_shape(queries, floats(part, "fit", ndim=1)[None], "the same examples", after=1)
        if np.min(fit.sd) <= 0:
            raise UsageError(f"A fit's spread must be above 0: {SMALLEST_SD:g} at least, as fit_normal has it.")
    return queries


def _relative(
    target: tuple[ArrayLike, ArrayLike], reference: tuple[ArrayLike, ArrayLike], offline: float | None
) -> tuple[FloatArray, FloatArray]:
    weight = None if offline is None else share(offline, "offline")
    found = []
    for own, mean in zip(target, reference, strict=True):
        read = floats if weight is None else shares  # online the ratio knows no unit
        mine, theirs = read(own, "p of the target", ndim=1), read(mean, "p of the references", ndim=1)
        same_shape(mine, theirs, "the same rows, target and references,")
        marginal = theirs if weight is None else ((1 + weight) * theirs + (1 - weight)) / 2
        found.append(mine / np.maximum(marginal, 1e-300))
    return found[0], found[1]
