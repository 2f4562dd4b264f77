"""What is measured on each model by itself: the attacks of the literature, and the linear probe.

They are slow, so the oracles' and originals' values are computed once, with the bands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray, floats
from forgetbench.metrics.accuracy_gap import accuracy
from forgetbench.metrics.classic_mia import entropy_attack, loss_attack, svc_non_members
from forgetbench.metrics.literature import nomus
from forgetbench.metrics.logit_statistics import confidence, entropy, signed_logits
from forgetbench.metrics.logit_statistics import loss as cross_entropy
from forgetbench.metrics.probes import Rows, linear_probe
from forgetbench.scoring.pairwise import Arrays, Labels, Population, SingleValues

ATTACK_ROWS = 2000
"""Rows a side that the logistic attacks of a scorecard use; more are thinned out evenly."""

FEATURES = "features:"
"""Prefix of the subsets that hold penultimate features."""


def single_values(
    population: Population, labels: Labels, *, ranking_only: bool = False
) -> tuple[SingleValues, dict[str, str]]:
    """Each model's own values.

    Args:
        population: For each draw, subset -> logits (S, n, K), and features where recorded.
        labels: For each draw, subset -> labels.
        ranking_only: Only what may rank: the probe.

    Returns:
        Metric name to (G, S) values, and the reason for each that cannot be computed.
    """
    found: dict[str, FloatArray] = {}
    missing: dict[str, str] = {}
    with threadpool_limits(limits=1):  # so that the bits do not depend on the machine, and small fits do not wait
        for names, measure in _MEASURES.items():
            if ranking_only and "probe" not in names:
                continue
            try:
                draws = [measure(answers, truth) for answers, truth in zip(population, labels, strict=True)]
            except UsageError as error:
                missing |= dict.fromkeys(names, str(error))
            else:  # (draws, models) or (draws, models, names)
                columns = np.array(draws).reshape(len(draws), -1, len(names))
                found |= {name: columns[..., place] for place, name in enumerate(names)}
    if "mia.loss" in found and all("test" in truth for truth in labels):
        right = [accuracy(answers["test"], truth["test"]) for answers, truth in zip(population, labels, strict=True)]
        found["nomus"] = np.vectorize(nomus)(np.array(right), found["mia.loss"])
    return found, missing


def _svc_confidence(answers: Arrays, truth: Arrays) -> FloatArray:
    parts = _each(answers, truth, ("retain", "test", "forget"), confidence)
    return _per_model(parts, svc_non_members)


def _loss(answers: Arrays, truth: Arrays) -> FloatArray:
    parts = _each(answers, truth, ("forget", "test"), _losses)
    return _per_model(parts, lambda forget, test: loss_attack(forget, test, most=ATTACK_ROWS))


def _entropy(answers: Arrays, truth: Arrays) -> FloatArray:
    parts = _each(answers, truth, ("retain", "test", "forget"), _entropies)
    return _per_model(parts, lambda retain, test, forget: entropy_attack(retain, test, forget, most=ATTACK_ROWS))


def _probe(answers: Arrays, truth: Arrays) -> FloatArray:
    """(S, 2): the probe's accuracy on the forgotten classes, and with shuffled training labels."""
    needed = ("retain", "forget", "validation", "test-forgotten")
    absent = [name for name in needed if FEATURES + name not in answers or not len(truth.get(name, ()))]
    if absent:
        raise UsageError(f"not computable: no features recorded ({', '.join(FEATURES + name for name in absent)})")
    if np.asarray(truth["forget"]).ndim != 1:
        raise UsageError("not computable: the probe is defined for classes, not for attributes")
    trained = np.concatenate([truth["retain"], truth["forget"]])
    values = []
    for model in range(len(answers[FEATURES + "forget"])):
        rows = {name: floats(answers[FEATURES + name][model], f"features of {name}", ndim=2) for name in needed}
        values.append(
            linear_probe(
                Rows(np.concatenate([rows["retain"], rows["forget"]]), trained),
                Rows(rows["validation"], truth["validation"]),
                Rows(rows["test-forgotten"], truth["test-forgotten"]),
            )
        )
    return np.array(values)


_MEASURES: Mapping[tuple[str, ...], Callable[[Arrays, Arrays], FloatArray]] = {
    ("mia.svc-confidence",): _svc_confidence,
    ("mia.loss",): _loss,
    ("mia.entropy",): _entropy,
    ("probe", "probe.shuffled"): _probe,
}


def _each(
    answers: Arrays, truth: Arrays, subsets: tuple[str, ...], score: Callable[[FloatArray, IntArray], FloatArray]
) -> list[FloatArray]:
    """The score of every model on each subset, (S, n, A): A attributes, or one column for classes."""
    found = []
    for name in subsets:
        if name not in answers or not len(truth.get(name, ())):
            raise UsageError(f"not computable: no {name} rows")
        values = score(floats(answers[name], f"{name} logits", ndim=3), np.asarray(truth[name], dtype=np.int64))
        found.append(values if values.ndim == 3 else values[..., None])
    return found


def _per_model(parts: list[FloatArray], attack: Callable[..., float]) -> FloatArray:
    """The attack on each model, the mean over attributes."""
    models, attributes = len(parts[0]), parts[0].shape[-1]
    values = [[attack(*(part[model, :, a] for part in parts)) for a in range(attributes)] for model in range(models)]
    mean: FloatArray = np.mean(values, axis=1)
    return mean


def _losses(logits: FloatArray, labels: IntArray) -> FloatArray:
    if labels.ndim == 2:
        each: FloatArray = np.logaddexp(0.0, -signed_logits(logits, labels))
        return each
    return cross_entropy(logits, labels)


def _entropies(logits: FloatArray, labels: IntArray) -> FloatArray:
    return entropy(logits, attributes=labels.ndim == 2)
