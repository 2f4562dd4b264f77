"""Linear probe: can the forgotten class still be read from the features?"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import FloatArray, IntArray, classes_of, floats, shares
from forgetbench.metrics.board_rules import FEATURES, Comparison, Draw, PerModelRule
from forgetbench.metrics.registry import MetricSpec, metric

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Candidate inverse L2 penalties."""
SEEDS = 3
ROWS_PER_CLASS = 100
"""Limit of the training rows of each class that one seed's probe is fitted on."""
UNDEFINED_BELOW = 0.02
"""The ratio is undefined if the probe's accuracies on originals and oracles differ by less than this."""

LEAST_SCORE = -60_000.0
"""The lowest log-probability of a class."""

_SUBSETS = ("retain", "forget", "validation", "test-forgotten")
"""Subsets whose features a board's probe reads."""


class Rows(NamedTuple):
    """Features of one model on some rows, and their classes."""

    features: FloatArray
    """(n, F)."""
    labels: IntArray
    """(n,)."""


class Probe(NamedTuple):
    """Results of the probe on one model."""

    accuracy: float
    """Accuracy on test rows of the forgotten classes, the mean over 3 seeds."""
    shuffled: float
    """The same with shuffled training labels, when there is nothing to learn."""


def _probe_all(draw: Draw) -> FloatArray:
    """(M, 2) accuracies of every model's probe on the forgotten classes: fitted as it should be, and shuffled."""
    answers = draw.sides[0]
    missing = [FEATURES + subset for subset in _SUBSETS if FEATURES + subset not in answers or not draw.has(subset)]
    if missing:
        raise UsageError(f"not computable: no features recorded ({', '.join(missing)})")
    if draw.has_attributes("forget"):
        raise UsageError("not computable: the probe is defined for classes, not for attributes")
    trained = np.concatenate([draw.labels["retain"], draw.labels["forget"]])
    probes = []
    for model in range(len(answers[FEATURES + "forget"])):
        rows = {
            subset: floats(answers[FEATURES + subset][model], f"features of {subset}", ndim=2) for subset in _SUBSETS
        }
        probes.append(
            linear_probe(
                Rows(np.concatenate([rows["retain"], rows["forget"]]), trained),
                Rows(rows["validation"], draw.labels["validation"]),
                Rows(rows["test-forgotten"], draw.labels["test-forgotten"]),
            )
        )
    return np.array(probes)


def _measure_probe(draw: Draw) -> FloatArray:
    return draw.cached("probe", lambda: _probe_all(draw))[:, 0]


def _measure_shuffled(draw: Draw) -> FloatArray:
    return draw.cached("probe", lambda: _probe_all(draw))[:, 1]


@metric(
    MetricSpec(
        name="probe.shuffled",
        title="probe, shuffled labels",
        symbol="probe_0",
        group="erasure",
        requires=("features",),
        meaning="Accuracy of the probe on forgotten classes if trained on shuffled labels: its own floor.",
        misses="Everything but the probe's own floor.",
        misuse="Comparing a probe's accuracy with 1/K: with shuffled labels it need not be there.",
        formula="As the probe's accuracy, with the labels of its training rows in random order; 3 seeds.",
        example="Ten balanced classes: about 0.1.",
        source="Protocol, section 3.",
    ),
    board=PerModelRule(_measure_shuffled),
)
def linear_probe(train: Rows, validation: Rows, forgotten: Rows) -> Probe:
    """Accuracy of an L2 logistic regression on frozen penultimate features, on the forgotten class.

    Features are standardized on the training rows; C is chosen by accuracy on validation rows, with the first seed;
    each seed draws at most 100 rows of each class. Where no feature varies on the training rows, as in a network that
    died, there is nothing to read, and the accuracy is that of guessing, 1 over the number of classes.

    Args:
        train: Training rows of all classes, including the forgotten ones.
        validation: Validation rows.
        forgotten: Test rows of the forgotten classes.

    Raises:
        UsageError: A part has no rows, labels are not one class number per row, the numbers of features differ, or the
            training rows lack a forgotten class.
    """
    sides = []
    for part, name in ((train, "training"), (validation, "validation"), (forgotten, "forgotten classes")):
        features = floats(part.features, f"features, {name}", ndim=2)
        if not len(features):
            raise UsageError(
                f"The probe needs rows for training, validation and the forgotten classes: {name} has none."
            )
        sides.append(Rows(features, classes_of(part.labels, len(features), f"labels, {name}")))
    if len({part.features.shape[1] for part in sides}) > 1:
        counts = " and ".join(str(part.features.shape[1]) for part in sides)
        raise UsageError(
            f"The probe needs the same features of all rows; training, validation and forgotten: {counts}."
        )
    known = np.unique(sides[0].labels)
    if len(known) < 2:
        raise UsageError("The probe's training rows are all of one class; it needs at least two.")
    if not np.isin(sides[2].labels, known).all():
        raise UsageError("The probe's training rows lack a forgotten class.")
    scaling = _scaling(sides[0].features)
    if scaling is None:
        return Probe(1.0 / len(known), 1.0 / len(known))
    scaled = [Rows(scaling.apply(part.features), part.labels) for part in sides]
    samples = [_sample(scaled[0], seed) for seed in range(SEEDS)]
    chosen = _best_strength(samples[0], scaled[1])
    accuracies = [_fitted(sample, chosen).score(*scaled[2]) for sample in samples]
    floors = [_fitted(_shuffled(sample, seed), chosen).score(*scaled[2]) for seed, sample in enumerate(samples)]
    return Probe(float(np.mean(accuracies)), float(np.mean(floors)))


class FittedProbe(NamedTuple):
    """A probe that was fitted on the features of one model."""

    scaling: _Scaling
    """Center and spread of the training rows."""
    model: LogisticRegression
    """The classifier."""

    def scores(self, features: FloatArray, outputs: int) -> FloatArray:
        """Log-probabilities (n, outputs) of all classes; the lowest float16 can hold for classes without a row."""
        scores = np.full((len(features), outputs), LEAST_SCORE)
        found = self.model.predict_log_proba(self.scaling.apply(floats(features, "features", ndim=2)))
        scores[:, self.model.classes_] = np.maximum(found, LEAST_SCORE)
        return scores


def fit_probe(train: Rows, validation: Rows, seed: int) -> FittedProbe | None:
    """Fit the classifier of `linear_probe` once; None if no feature varies on the training rows.

    Args:
        train: Training rows of all classes, including the forgotten ones.
        validation: Validation rows.
        seed: Which at most 100 rows of each class are drawn.
    """
    scaling = _scaling(train.features)
    if scaling is None:
        return None
    sample = _sample(Rows(scaling.apply(train.features), train.labels), seed)
    strength = _best_strength(sample, Rows(scaling.apply(validation.features), validation.labels))
    return FittedProbe(scaling, _fitted(sample, strength))


def _compare_probe(draw: Draw, values: FloatArray) -> Comparison | None:
    original = draw.originals.get("probe")
    if original is None:
        return None

    def value(left: IntArray, right: IntArray) -> float:
        ratio = residual_share(values[left], values[right], original)
        if ratio is None:
            raise UsageError("undefined: the probe reads the oracles' features as well as the originals'")
        return ratio

    return Comparison(value)


@metric(
    MetricSpec(
        name="probe",
        title="linear probe",
        symbol="probe",
        group="erasure",
        unit="ratio",
        range=(None, None),
        requires=("features", "originals"),
        meaning="How much of the forgotten class a probe reads from the features: 0 as an oracle, 1 as before.",
        misses="What only a non-linear probe could read.",
        misuse="Probing without an oracle: features that never saw a class separate it too.",
        formula=(
            "(P_u - P_r) / (P_o - P_r), P the accuracy on the forgotten class of an L2 logistic regression on frozen "
            "penultimate features, C chosen on validation, 3 seeds (1/K if no feature varies); undefined if "
            "|P_o - P_r| < 0.02"
        ),
        example="P_o = 0.90, P_r = 0.60, P_u = 0.75: 0.5.",
        source="Protocol, section 3.",
        efficacy=("erase",),
        floor=0.02,
    ),
    board=PerModelRule(_measure_probe, compare=_compare_probe),
)
def residual_share(unlearned: ArrayLike, oracle: ArrayLike, original: ArrayLike) -> float | None:
    """(P_u - P_r) / (P_o - P_r) of mean probe accuracies: 0 as an oracle, 1 as before; None if |P_o - P_r| < 0.02.

    Args:
        unlearned: (S,) probe accuracies of the unlearned models, in [0, 1].
        oracle: (S,) of the oracles.
        original: (S,) of the originals.
    """
    sides = [shares(side, "probe accuracies") for side in (unlearned, oracle, original)]
    if not all(side.size for side in sides):
        raise UsageError("The probe's ratio needs at least one model of each kind.")
    means = [float(side.mean()) for side in sides]
    headroom = means[2] - means[1]
    return None if abs(headroom) < UNDEFINED_BELOW else (means[0] - means[1]) / headroom


class _Scaling(NamedTuple):
    center: FloatArray
    spread: FloatArray

    def apply(self, features: FloatArray) -> FloatArray:
        scaled: FloatArray = (features - self.center) / self.spread
        return scaled


def _scaling(features: FloatArray) -> _Scaling | None:
    """Mean and deviation of features over rows; None if none of them varies."""
    varies = np.ptp(features, axis=0) > 0
    if not varies.any():
        return None
    center, spread = features.mean(axis=0), features.std(axis=0)
    return _Scaling(center, np.where(varies & (spread > 0), spread, 1.0))  # of constants, the deviation may be rounding


def _best_strength(sample: Rows, validation: Rows) -> float:
    """The strength with the best accuracy on validation rows; of equal ones the smallest."""
    return max(STRENGTHS, key=lambda strength: (_fitted(sample, strength).score(*validation), -strength))


def _sample(rows: Rows, seed: int) -> Rows:
    draw = np.random.default_rng(seed).random(len(rows.labels))
    chosen = []
    for label in np.unique(rows.labels):
        members = np.flatnonzero(rows.labels == label)
        chosen.append(members[np.argsort(draw[members], kind="stable")[:ROWS_PER_CLASS]])
    sample = np.sort(np.concatenate(chosen))
    return Rows(rows.features[sample], rows.labels[sample])


def _shuffled(rows: Rows, seed: int) -> Rows:
    order = np.argsort(np.random.default_rng(seed).random(len(rows.labels)), kind="stable")
    return Rows(rows.features, rows.labels[order])


def _fitted(rows: Rows, strength: float) -> LogisticRegression:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that has nearly converged is good enough
        return LogisticRegression(C=strength, max_iter=100).fit(rows.features, rows.labels)
