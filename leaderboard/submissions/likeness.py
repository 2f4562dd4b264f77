"""What claimed evidence resembles: the board's originals, its oracles, and other entries.

All comparisons use the logits on test rows, on which a method need not change anything. Thresholds are those of the
board's own models, or say how much of a change is another's; docs/checks-on-claims.md explains them.

- *Trace*: models that were unlearned from the board's originals keep some of what distinguishes one original from the
  others. Without it they come from elsewhere.
- *Nearness*: models that were trained independently are about equally far from each other. Closer ones are copies.
- *Mixtures*: what an entry changed in the originals' answers is its own, unless other answers explain nearly all of it.
  This is computed from a *sketch*, the inner products of an entry's answers with those of the board's models: it is
  small, and hardly sees noise that was added to hide a copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import beta

from forgetbench.metrics.board_rules import Arrays, Population
from forgetbench.scoring.scorer import Scorer

Floats = NDArray[np.float64]
MIN_SEEDS = 4
"""With fewer seeds nothing can be said of traces: their limit is the best of few pairs."""
SIGNIFICANCE = 0.01
"""Probability of the alarm of nearness for independently trained models, and of a change being taken for noise."""
COPIED_RESIDUAL = 0.05
"""Largest share of a model's change, as a norm, that is its own if other answers are said to explain it."""
COPIED_MODELS = 1 / 2
"""Share of an entry's models that must be explained in the same way, or moved between seeds, for an alarm."""
MAX_CANDIDATES = 300
"""Entries whose mixtures in pairs are compared: those that alone explain most."""
ORIGINALS, ORACLES = "the board's originals", "the board's oracles"
"""What models can be mixtures of, in addition to entries."""
NOISE_RATIO = 2.0
"""Noise changes all rows alike: a larger ratio of the changes on forgotten and on test rows is no noise."""
RESOLUTION = 0.01
"""Change of a logit, as a norm per answer, that does not count as one: float16 is as coarse at logits of 10."""
_LOGIT_LIMIT = 30.0
"""Logits farther below a row's largest are cut: masked classes would outweigh everything, and float16 is coarse."""


class Mixture(NamedTuple):
    """Answers that explain an entry's: one or two entries, the board's originals, or its oracles."""

    parts: tuple[str, ...]
    """Ids of entries, `ORIGINALS` or `ORACLES`."""
    residual: float
    """What they leave unexplained of the change, as a share of its norm."""


@dataclass(frozen=True)
class Likeness:
    """What an entry's evidence resembles, apart from other entries."""

    unchanged: bool
    """Whether the answers are those of the originals, or differ from them as noise would."""
    spliced: bool
    """Whether the answers on test rows are those of the originals, and those on forgotten rows are not."""
    trace: float
    """Mean correlation of each model with its own original, centered over seeds."""
    trace_limit: float
    """What the board's oracles reach if the best of them are assigned to the originals."""
    moved_seeds: tuple[int, ...]
    """Seeds whose models come from the original of another seed."""
    near_oracles: int
    """Models that are closer to an oracle than any of the board's oracles is to another."""
    models: int
    """Number of models."""
    copies_oracles: bool
    """Whether so many are close that chance is no explanation."""
    sketch: Floats
    """Inner products with the board's models: (draws, seeds, board's models)."""

    @property
    def traceless(self) -> bool:
        """Whether nothing shows that the models come from the board's originals."""
        return not self.unchanged and not self.moved_seeds and self.trace <= self.trace_limit


@dataclass(frozen=True, eq=False)
class BoardModels:
    """The originals and oracles of a bundle, as one forget set's models are compared with them.

    Args:
        originals: Answers (S, d).
        oracles: Answers of reference and control oracles (2S, d).
        freedom: Number of independent dimensions of the answers.
    """

    originals: Floats
    oracles: Floats
    freedom: int

    @cached_property
    def everything(self) -> Floats:
        """Originals and oracles (3S, d)."""
        return np.concatenate([self.originals, self.oracles])

    @cached_property
    def _whitening(self) -> Floats:
        """Matrix (3S, k) that makes coordinates of inner products, with the norms of projections on these models."""
        values, vectors = np.linalg.eigh(self.everything @ self.everything.T)
        used = values > values[-1] * 1e-9
        return np.asarray(vectors[:, used] / np.sqrt(values[used]), np.float64)

    def sketch(self, answers: Floats) -> Floats:
        """Inner products with the board's models (S, 3S)."""
        return answers @ self.everything.T

    def coordinates(self, sketch: Floats) -> Floats:
        """Coordinates (..., k) of answers in the space of the board's models, from their sketch."""
        return sketch @ self._whitening

    @cached_property
    def nearest_oracles(self) -> Floats:
        """Distance of each oracle from the nearest other one (2S)."""
        distances = _distances(self.oracles, self.oracles)
        np.fill_diagonal(distances, np.inf)
        return np.asarray(distances.min(axis=1))

    @cached_property
    def independent(self) -> Floats:
        """Correlations of independent models: each oracle with each original, centered over seeds (2S, S)."""
        return _centered(self.oracles) @ _centered(self.originals).T

    @cached_property
    def trace_limit(self) -> float:
        """The mean correlation if the best oracles are assigned to the originals."""
        rows, columns = linear_sum_assignment(self.independent, maximize=True)
        return float(self.independent[rows, columns].mean())

    def moved_seeds(self, correlations: Floats) -> set[int]:
        """Seeds whose models are traced to another seed's original, more clearly than any independent model is."""
        own, origin = linear_sum_assignment(correlations, maximize=True)
        moved = {
            int(seed)
            for seed, source in zip(own, origin, strict=True)
            if seed != source and correlations[seed, source] > self.independent.max()
        }
        return moved if len(moved) >= len(correlations) * COPIED_MODELS else set()

    def is_noise(self, answers: Floats) -> bool:
        """Whether the change of every model is as noise that was added to its original, or there is none."""
        changes = answers - self.originals
        totals = (changes**2).sum(axis=1)
        if not totals.any():
            return True
        coordinates = self.coordinates(self.sketch(answers) - self.sketch(self.originals))
        shares = (coordinates**2).sum(axis=1) / np.maximum(totals, np.finfo(np.float64).tiny)
        used = coordinates.shape[1]
        if self.freedom <= 2 * used:
            return False  # too few test rows to tell
        chances = beta.sf(shares, used / 2, (self.freedom - used) / 2)
        return bool((chances[totals > 0] > SIGNIFICANCE / len(answers)).all())


def board_models(scorer: Scorer) -> list[BoardModels]:
    """The models of a bundle, for each forget set."""
    groups = zip(
        scorer.bundle.labels,
        scorer.originals,
        scorer.references,
        scorer.bundle.population("controls"),
        strict=True,
    )
    boards = []
    for labels, originals, references, controls in groups:
        attributes = labels["test"].ndim == 2
        answers = [_answers(logits, attributes=attributes) for logits in (originals, references, controls)]
        rows, outputs = originals["test"].shape[1:]
        freedom = rows * (outputs if attributes else outputs - 1)
        boards.append(BoardModels(answers[0], np.concatenate(answers[1:]), freedom))
    return boards


def resemblance(scorer: Scorer, boards: list[BoardModels], population: Population) -> Likeness:
    """What an entry's evidence resembles.

    Args:
        scorer: Scorer of the board.
        boards: The board's models, for each forget set.
        population: Logits of the entry's models, for each forget set.
    """
    answers = [
        _answers(logits, attributes=labels["test"].ndim == 2)
        for logits, labels in zip(population, scorer.bundle.labels, strict=True)
    ]
    pairs = list(zip(boards, answers, strict=True))
    traces = [_centered(models) @ _centered(board.originals).T for board, models in pairs]
    distances = [_distances(models, board.oracles).min(axis=1) / board.nearest_oracles.min() for board, models in pairs]
    near, models = int((np.concatenate(distances) < 1).sum()), sum(map(len, answers))
    oracles = sum(len(board.oracles) for board in boards)
    enough = len(answers[0]) >= MIN_SEEDS
    limits = [board.trace_limit for board in boards]
    idle = all(board.is_noise(models) for board, models in pairs)
    same = all(_changes_alike(one, original) for one, original in zip(population, scorer.originals, strict=True))
    return Likeness(
        unchanged=idle and same,
        spliced=idle and not same,
        trace=float(np.mean([np.diag(trace).mean() for trace in traces])),
        trace_limit=float(np.mean(limits)) if enough else -1.0,
        moved_seeds=tuple(
            sorted(set().union(*(board.moved_seeds(trace) for board, trace in zip(boards, traces, strict=True))))
        )
        if enough
        else (),
        near_oracles=near,
        models=models,
        copies_oracles=_chance_of_first(near, models, oracles) <= SIGNIFICANCE,
        sketch=np.stack([board.sketch(models) for board, models in pairs]),
    )


def _chance_of_first(near: int, models: int, oracles: int) -> float:
    """Probability that the ``near`` least of exchangeable distances are all those of an entry's models."""
    return math.comb(models, near) / math.comb(models + oracles, near)


def find_mixture(boards: list[BoardModels], sketch: Floats, others: Mapping[str, Floats]) -> Mixture | None:
    """The answers that explain an entry's: a copy, a scaled copy, or a mixture of two; None if they are its own.

    Args:
        boards: The board's models, for each forget set.
        sketch: The entry's sketch (draws, seeds, board's models).
        others: Sketches of other entries, by their ids.
    """
    names = [name for name, other in others.items() if other.shape == sketch.shape]
    changes, candidates, oracles = [], [], []
    for draw, board in enumerate(boards):
        start = board.sketch(board.originals)
        changes.append(board.coordinates(sketch[draw] - start))
        stacked = np.stack([others[name][draw] - start for name in names]) if names else np.empty((0, *start.shape))
        candidates.append(board.coordinates(stacked))
        oracles.append(board.coordinates(board.sketch(board.oracles)[None] - start[:, None]))
    change, candidate = np.concatenate(changes), np.concatenate(candidates, axis=1)  # (models, k), (entries, models, k)
    chosen = _most_similar(change, candidate)
    parts = [*(names[place] for place in chosen), ORIGINALS, ORACLES]
    tables = [
        _pair_residuals(change[model], candidate[chosen, model], oracle)
        for model, oracle in enumerate(np.concatenate(oracles))
    ]
    count = math.ceil(len(tables) * COPIED_MODELS)
    residuals = np.partition(np.stack(tables), count - 1, axis=0)[count - 1]
    single = int(np.argmin(np.diag(residuals)))
    first, second = divmod(int(np.argmin(residuals)), len(parts))
    if residuals[single, single] <= COPIED_RESIDUAL:
        return Mixture((parts[single],), float(residuals[single, single]))
    if residuals[first, second] <= COPIED_RESIDUAL:
        return Mixture((parts[first], parts[second]), float(residuals[first, second]))
    return None


def _most_similar(change: Floats, candidate: Floats) -> NDArray[np.intp]:
    """The candidates whose changes have the directions most like the entry's, at most `MAX_CANDIDATES`."""
    if not len(candidate):
        return np.empty(0, np.intp)
    norms = np.linalg.norm(candidate, axis=2) * np.linalg.norm(change, axis=1)
    cosines = np.einsum("emk,mk->em", candidate, change) / np.maximum(norms, np.finfo(np.float64).tiny)
    return np.argsort(-np.median(cosines, axis=1), kind="stable")[:MAX_CANDIDATES]


def _pair_residuals(change: Floats, candidates: Floats, oracles: Floats) -> Floats:
    """What pairs leave unexplained of one model's change, as shares of its norm.

    Args:
        change: The change (k).
        candidates: Changes of entries' models that were made from the same original (E, k).
        oracles: Oracles minus that original (2S, k).

    Returns:
        (E + 2, E + 2): entries, the original (no change), and the best oracle. A part paired with itself is used alone.
    """
    points = np.concatenate([candidates, np.zeros((1, len(change))), oracles])
    products, own, total = points @ points.T, points @ change, float(change @ change)
    squares = np.diag(products)
    between = squares[:, None] + squares - 2 * products
    along = own[:, None] - own - products + squares
    weight = np.clip(along / np.maximum(between, np.finfo(np.float64).tiny), 0, 1)
    left = total - 2 * own + squares - 2 * weight * along + weight**2 * between
    starts = np.arange(len(candidates) + 2)
    best = np.minimum.reduceat(np.minimum.reduceat(left, starts, axis=0), starts, axis=1)
    if total == 0:
        return np.full_like(best, np.inf)
    return np.asarray(np.sqrt(np.maximum(best, 0) / total))


def _answers(logits: Arrays, *, attributes: bool) -> Floats:
    """Logits on test rows as vectors (S, d): of classes, those below the largest are cut, and each row is centered."""
    values = np.asarray(logits["test"], np.float64)
    if attributes:
        values = np.clip(values, -_LOGIT_LIMIT, _LOGIT_LIMIT)
    else:
        values = np.maximum(values - values.max(axis=-1, keepdims=True), -_LOGIT_LIMIT)
        values = values - values.mean(axis=-1, keepdims=True)
    return values.reshape(len(values), -1)


def _centered(answers: Floats) -> Floats:
    """What distinguishes each model from the others, with unit norm (S, d)."""
    values = answers - answers.mean(axis=0)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float64).tiny))


def _distances(first: Floats, second: Floats) -> Floats:
    """Euclidean distances of all pairs."""
    return np.stack([np.linalg.norm(second - one, axis=1) for one in first])


def _changes_alike(population: Arrays, originals: Arrays) -> bool:
    """Whether forgotten rows changed less than `RESOLUTION` or `NOISE_RATIO` times what test rows did."""
    pairs = [[np.asarray(side[name], np.float64) for side in (population, originals)] for name in ("forget", "test")]
    forget, test = (np.sqrt(np.mean((changed - original) ** 2)) for changed, original in pairs)
    return bool(forget <= max(RESOLUTION, NOISE_RATIO * test))
