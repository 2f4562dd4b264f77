"""What attacks find in unlearned models beyond what they find in oracles (protocol section 4).

Each attack with each budget has one statistic: *recovered* (forgotten before minus forgotten after the attack, each
against No unlearning and Retrain in the same state), or for a membership attack the AUC by which it tells forgotten
from unseen examples, minus the oracles'. Both have a band over halvings of the oracles, which were attacked alike. A
row is *recoverable* only outside the family band over all attacks and budgets of the board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import RETESTED
from forgetbench.evidence.attacks import AttackedPopulation
from forgetbench.evidence.attacks import Population as EvidencePopulation
from forgetbench.metrics._validation import FloatArray, IntArray
from forgetbench.metrics.accuracy_gap import accuracy_by_seed
from forgetbench.metrics.board_rules import Labels, Population, difference_of_means
from forgetbench.metrics.registry import metrics
from forgetbench.metrics.roc import auc
from forgetbench.options import Scalar
from forgetbench.scoring.distance import z_in
from forgetbench.scoring.forgotten import FEASIBLE_Z, anchors, forgotten_by
from forgetbench.scoring.pairwise import comparison_of, count_models, sides
from forgetbench.scoring.recovery import difference, shares_over_split_halves
from forgetbench.scoring.scorecards import Anchors, Bands, Effect, MetricBand, Record
from forgetbench.scoring.scorer import Scorer
from forgetbench.scoring.statistics import (
    ALPHA,
    band_of,
    family_limit,
    over_split_halves,
    pseudo_interval,
    sign_flip_p,
)

Statistic = Literal["recovered", "membership"]

ACCURACY_FLOOR = 0.01
"""Margin of practical indifference of an accuracy after an attack, and of an AUC."""
UNFIT = "this attack is unfit: it finds as much in control oracles against reference oracles"
"""Why an attack flags no row of a board."""
LEAST_LIMIT = 1.96
"""The family limit is at least that of a single normal statistic."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackedBoard:
    """The answers of a board's originals and oracles after one attack with one budget."""

    label: str
    """The attack with its budget and options."""
    name: str
    """The attack."""
    budget: str = ""
    """The option that is its budget; "" if it has none."""
    value: Scalar = None
    """The budget."""
    membership: bool = False
    """Whether answers are scores of membership rather than logits of the classes."""
    shots: Mapping[int, Sequence[int]] | None = None
    """Draw -> positions in the forget set of the examples that the attacker held, which are not scored."""
    flops: float | None = None
    """FLOPs of one attack."""
    originals: Population
    """The originals: for each draw, subset -> answers (S, n, outputs)."""
    references: Population
    """The reference oracles."""
    controls: Population
    """The control oracles, which are Retrain."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UntouchedBoard:
    """A board as it is before the attacks."""

    originals: Population
    """The originals: for each draw, subset -> logits (S, n, K)."""
    references: Population
    """The reference oracles."""
    controls: Population
    """The control oracles."""
    labels: Labels
    """For each draw, subset -> labels."""
    bands: Bands
    """The board's bands."""


def read_board(populations: Mapping[EvidencePopulation, AttackedPopulation]) -> AttackedBoard:
    """The answers of a board's originals and oracles after one attack, from their evidence.

    Args:
        populations: ``originals``, ``references`` and ``controls``.

    Raises:
        ForgetBenchError: A file is missing or damaged.
    """
    manifest = populations["originals"].manifest
    return AttackedBoard(
        label=manifest.attack.label,
        name=manifest.attack.name,
        budget=manifest.attack.budget,
        value=manifest.attack.parameters.get(manifest.attack.budget),
        membership=bool(manifest.attack.outcomes),
        shots={int(draw): rows for draw, rows in manifest.shots.items()},
        flops=manifest.flops,
        originals=populations["originals"].answers(),
        references=populations["references"].answers(),
        controls=populations["controls"].answers(),
    )


def untouched_board(scorer: Scorer) -> UntouchedBoard:
    """The board of a scorer as it is before the attacks."""
    return UntouchedBoard(
        originals=scorer.originals,
        references=scorer.references,
        controls=scorer.bundle.population("controls"),
        labels=scorer.bundle.labels,
        bands=scorer.bands,
    )


class SubsetBand(Record):
    """Accuracies on one subset after an attack, of the reference populations."""

    original: float
    """Mean accuracy of the originals."""
    oracle: float
    """Mean accuracy of the reference oracles."""
    band: MetricBand
    """The difference of mean accuracies if both sides are oracles."""


class AttackScale(Record):
    """What an attack with one budget is compared with on a board."""

    label: str
    """The attack with its budget and options."""
    name: str
    """The attack."""
    budget: str
    """The option that is its budget; "" if it has none."""
    value: Scalar
    """The budget."""
    flops: float | None
    """FLOPs of one attack."""
    statistic: Statistic
    """What is compared."""
    anchors: Anchors | None = None
    """For *recovered*: the metric of *forgotten* on the attacked originals and control oracles."""
    band: MetricBand | None = None
    """The statistic over halvings of the oracles; None where it cannot be computed."""
    reason: str = ""
    """Why there is no band."""
    fit: bool | None = None
    """Whether control oracles against reference oracles are inside the family band; None without a band."""
    control_z: float | None = None
    """What the attack finds in control oracles against reference oracles, in its band; None without a band."""
    accuracies: dict[str, SubsetBand] = Field(default={})
    """Subset -> accuracies after the attack."""


class AttackBands(Record):
    """Everything about the attacks on a board that depends on its oracles and originals alone."""

    scales: tuple[AttackScale, ...]
    """One for each attack with each budget."""
    family_limit: float | None
    """Above this z of its statistic, an attack finds more than in oracles; None where no attack has a band."""
    false_flags: float | None
    """Share of oracle halvings in which some attack is above the family limit."""
    split_halves: int
    """Halvings behind the bands, mirrored ones included."""

    def scale(self, label: str) -> AttackScale:
        """The scale of an attack with its budget."""
        return next(scale for scale in self.scales if scale.label == label)

    @property
    def unfit(self) -> tuple[str, ...]:
        """Labels of the attacks that find more in control oracles than the family limit allows; they flag no row."""
        return tuple(scale.label for scale in self.scales if scale.fit is False)


class AttackedAccuracy(Record):
    """Accuracy of a row on one subset, before and after an attack."""

    before: float
    """As the models are."""
    after: float
    """After the attack."""
    difference: float
    """After the attack, minus the mean of the reference oracles after the attack."""
    within_band: bool
    """Whether the difference is in its band."""


class AttackScore(Record):
    """What one attack with one budget finds in one row."""

    label: str
    """The attack with its budget and options."""
    statistic: Effect = Effect()
    """*Recovered*, or the AUC minus the oracles'; with its interval over seeds."""
    z: float | None = None
    """The statistic in the band of the oracles."""
    before: Effect = Effect()
    """*Forgotten*, as the models are."""
    after: Effect = Effect()
    """*Forgotten* after the attack, against originals and oracles that were attacked alike."""
    accuracies: dict[str, AttackedAccuracy] = Field(default={})
    """Subset -> accuracies; empty for a membership attack."""
    outside: bool | None = None
    """Whether the statistic is above the family limit, and beyond its own noise; None if it was not computed."""
    recoverable: bool | None = None
    """Whether something had been forgotten and the statistic is outside; None if that was not tested, or if the attack
    is unfit on this board."""
    reason: str = ""
    """Why the statistic was not computed; "" if it was."""


class RowAttacks(Record):
    """All attacks on one row."""

    name: str
    """The row's name."""
    scores: tuple[AttackScore, ...]
    """One for each attack with each budget."""
    worst: str = ""
    """The attack with the largest z; "" if none has one."""
    recoverable: bool | None = None
    """Whether some attack finds more than in oracles of what had been forgotten; None if none was tested."""


def attack_bands(attacked: Sequence[AttackedBoard], board: UntouchedBoard) -> AttackBands:
    """Bands of all attacks on a board, and the family limit over all of them.

    Args:
        attacked: The reference populations after each attack with each budget.
        board: The board before the attacks.
    """
    scales: list[AttackScale] = []
    statistics: dict[str, FloatArray] = {}
    for one in attacked:
        scale = AttackScale(
            label=one.label,
            name=one.name,
            budget=one.budget,
            value=one.value,
            flops=one.flops,
            statistic="membership" if one.membership else "recovered",
        )
        try:
            if one.membership:
                halves, update = _membership_scale(one, board.labels), dict[str, object]()
            else:
                scale = scale.model_copy(update={"accuracies": _accuracy_bands(one, board.labels)})
                halves, update = _recovered_scale(one, board)
        except UsageError as error:
            scales.append(scale.model_copy(update={"reason": str(error)}))
            continue
        statistics[one.label] = halves
        scales.append(scale.model_copy(update={"band": _band(halves, update.pop("floor", ACCURACY_FLOOR)), **update}))
    if not statistics:
        return AttackBands(scales=tuple(scales), family_limit=None, false_flags=None, split_halves=0)
    z = {scale.label: _z(statistics[scale.label], scale.band) for scale in scales if scale.band is not None}
    largest: FloatArray = np.max(list(z.values()), axis=0)
    limit = max(LEAST_LIMIT, family_limit(largest, count_models(board.references)))
    # The first halving is that of the board: here, the control oracles against the reference oracles.
    scales = [
        scale.model_copy(
            update={"fit": bool(z[scale.label][1, 0] <= limit), "control_z": _finite(float(z[scale.label][1, 0]))}
        )
        if scale.label in z
        else scale
        for scale in scales
    ]
    return AttackBands(
        scales=tuple(scales),
        family_limit=limit,
        false_flags=float((largest > limit).mean()),
        split_halves=int(largest.size),
    )


def score_attacks(
    name: str,
    contestant: Population,
    attacked: Mapping[str, Population],
    boards: Sequence[AttackedBoard],
    untouched: UntouchedBoard,
    found: AttackBands,
) -> RowAttacks:
    """What all attacks find in one row.

    Args:
        name: The row's name.
        contestant: The row as it is: for each draw, subset -> logits (S, n, K).
        attacked: Label of an attack with its budget -> the row after it; attacks that failed are absent.
        boards: The reference populations after each attack.
        untouched: The board before the attacks.
        found: The result of `attack_bands`.
    """
    labels = untouched.labels
    scores, forgotten = [], dict[str, Effect]()
    for board in boards:
        scale = found.scale(board.label)
        if board.label not in attacked:
            scores.append(AttackScore(label=board.label, reason="this row was not attacked, or the attack failed"))
            continue
        after = attacked[board.label]
        row, truth = _unseen(board, contestant, labels)
        shots = repr(sorted((board.shots or {}).items()))
        if shots not in forgotten:
            others = [_unseen(board, side, labels)[0] for side in _sides_of(untouched)]
            forgotten[shots] = _forgotten_before(row, others, truth, untouched.bands)
        before = forgotten[shots]
        score = (
            _membership(after, board, scale, before, labels)
            if board.membership
            else _recovered(row, after, board, scale, before, labels)
        )
        scores.append(_judged(score, scale, found.family_limit))
    tested = [score for score in scores if score.z is not None]
    verdicts = [score.recoverable for score in scores if score.recoverable is not None]
    return RowAttacks(
        name=name,
        scores=tuple(scores),
        worst=max(tested, key=lambda score: score.z or 0.0).label if tested else "",
        recoverable=any(verdicts) if verdicts else None,
    )


def _judged(score: AttackScore, scale: AttackScale, limit: float | None) -> AttackScore:
    """A score with what the family band says of it."""
    statistic, before = score.statistic, score.before
    if score.z is None or scale.band is None or limit is None:
        return score
    # where oracles have no spread the band has none, but a row that forgets only in part varies between seeds
    beyond_own_noise = statistic.low is not None and statistic.low > scale.band.mean
    outside = bool(score.z > limit and beyond_own_noise)
    if scale.fit is False:
        return score.model_copy(update={"outside": outside, "reason": UNFIT})
    recoverable = None
    if before.value is not None and before.pseudo_values and statistic.low is not None:
        recoverable = bool(outside and before.value > 0 and sign_flip_p(before.pseudo_values) <= ALPHA)
    return score.model_copy(update={"outside": outside, "recoverable": recoverable})


def _recovered_scale(board: AttackedBoard, untouched: UntouchedBoard) -> tuple[FloatArray, dict[str, object]]:
    """*Recovered* over halvings (2, H), and the fields of its scale.

    Raises:
        UsageError: *Forgotten* cannot be measured on this board, or not after the attack.
    """
    bands, labels = untouched.bands, untouched.labels
    if bands.forgetting is None:
        raise UsageError(bands.forgetting_reason or "forgetting cannot be measured on this board")
    metric = bands.forgetting.metric
    originals, references, controls = (_unseen(board, side, labels)[0] for side in _sides_of(untouched))
    after = [_unseen(board, side, labels)[0] for side in _sides_of(board)]
    truth = _unseen(board, untouched.originals, labels)[1]
    floor = metrics.get(metric).floor
    _require_feasible(metric, after[0], after[1], after[2], truth, floor)
    before_halves = shares_over_split_halves(metric, originals, references, controls, truth)
    halves = before_halves - shares_over_split_halves(metric, after[0], after[1], after[2], truth)
    scale = anchors(metric, after[0], after[2], after[1], truth)
    way = abs(bands.forgetting.original[0] - bands.forgetting.retrain[0])
    return halves, {"anchors": scale, "floor": floor / way}


def _require_feasible(
    metric: str, originals: Population, references: Population, controls: Population, labels: Labels, floor: float
) -> None:
    """Refuse an attack after which No unlearning is no longer distinguishable from Retrain.

    Such an attack teaches oracles as much as it finds in originals, or spoils all models: a share of the way between
    them says nothing.
    """
    seeds = count_models(references)
    oracles = comparison_of(metric, references, controls, labels)
    band = _band(over_split_halves(oracles.value, seeds, oracles.symmetry, oracles.max_splits), floor)
    z = z_in(comparison_of(metric, originals, references, labels).value(*sides(seeds)), band)
    if abs(z) <= FEASIBLE_Z:
        raise UsageError(
            f"after this attack No unlearning is not distinguishable from Retrain ({metric} z {z:+.1f}): it finds as "
            "much in oracles"
        )


def _recovered(
    untouched: Population,
    after: Population,
    board: AttackedBoard,
    scale: AttackScale,
    before: Effect,
    labels: Labels,
) -> AttackScore:
    changed, oracles = (_unseen(board, side, labels)[0] for side in (after, board.references))
    labels = _unseen(board, after, labels)[1]
    accuracies = {}
    for subset, reference in scale.accuracies.items():
        rows = [float(accuracy_by_seed(side, labels, subset).mean()) for side in (untouched, changed)]
        gap = rows[1] - reference.oracle
        accuracies[subset] = AttackedAccuracy(
            before=rows[0], after=rows[1], difference=gap, within_band=_is_within(gap, reference.band)
        )
    score = AttackScore(label=board.label, before=before, accuracies=accuracies, reason=scale.reason)
    if scale.anchors is None or scale.band is None:
        return score
    effect = forgotten_by(changed, oracles, labels, scale.anchors)
    recovered = difference(before, effect)
    if recovered.value is None:
        return score.model_copy(update={"after": effect, "reason": recovered.reason})
    return score.model_copy(
        update={"after": effect, "statistic": recovered, "z": _finite(z_in(recovered.value, scale.band))}
    )


def _forgotten_before(contestant: Population, others: Sequence[Population], labels: Labels, bands: Bands) -> Effect:
    """*Forgotten* as models are; the others are originals, reference oracles and control oracles."""
    if bands.forgetting is None:
        return Effect(reason=bands.forgetting_reason)
    originals, references, controls = others
    scale = anchors(bands.forgetting.metric, originals, controls, references, labels)
    return forgotten_by(contestant, references, labels, scale)


def _membership_scale(board: AttackedBoard, labels: Labels) -> FloatArray:
    """The difference of mean AUCs over halvings of the oracles (2, H)."""
    values = np.concatenate([_auc_by_seed(side, board, labels) for side in (board.references, board.controls)])
    return _difference_over_split_halves(values)


def _membership(
    after: Population, board: AttackedBoard, scale: AttackScale, before: Effect, labels: Labels
) -> AttackScore:
    if scale.band is None:
        return AttackScore(label=board.label, before=before, reason=scale.reason)
    differences = _auc_by_seed(after, board, labels) - _auc_by_seed(board.references, board, labels)
    value = float(differences.mean())
    effect = Effect(value=value, metric="auc")
    if len(differences) >= 2:
        _, low, high = pseudo_interval(value, differences)
        effect = Effect(value=value, low=low, high=high, pseudo_values=tuple(differences.tolist()), metric="auc")
    return AttackScore(label=board.label, before=before, statistic=effect, z=_finite(z_in(value, scale.band)))


def _auc_by_seed(population: Population, board: AttackedBoard, labels: Labels) -> FloatArray:
    """AUC by which the first outcome tells forgotten from unseen examples, the mean over draws, (S,).

    Unseen are the test images of the forgotten classes, or where no class is forgotten those of all classes.

    Raises:
        UsageError: A draw has no unseen examples.
    """
    answers, truth = _unseen(board, population, labels)
    draws = []
    for one, known in zip(answers, truth, strict=True):
        unseen = "test-forgotten" if "test-forgotten" in one and len(known["test-forgotten"]) else "test"
        if not len(known["forget"]):
            raise UsageError("the attacker holds the whole forget set: nothing is left to be scored")
        pairs = zip(one["forget"][:, :, 0], one[unseen][:, :, 0], strict=True)
        draws.append([auc(members, others) for members, others in pairs])
    mean: FloatArray = np.mean(draws, axis=0)
    return mean


def _accuracy_bands(board: AttackedBoard, labels: Labels) -> dict[str, SubsetBand]:
    bands = {}
    originals, references, controls = (_unseen(board, side, labels)[0] for side in _sides_of(board))
    truth = _unseen(board, board.originals, labels)[1]
    for subset in RETESTED:
        if all(subset in answers and len(known[subset]) for answers, known in zip(references, truth, strict=True)):
            sides_of = [accuracy_by_seed(side, truth, subset) for side in (originals, references, controls)]
            halves = _difference_over_split_halves(np.concatenate(sides_of[1:]))
            bands[subset] = SubsetBand(
                original=float(sides_of[0].mean()),
                oracle=float(sides_of[1].mean()),
                band=_band(halves, ACCURACY_FLOOR),
            )
    return bands


def _difference_over_split_halves(values: FloatArray) -> FloatArray:
    """The difference of means of per-model values (2S,) over halvings (2, H)."""
    comparison = difference_of_means(values)

    def value(left: IntArray, right: IntArray) -> float:
        return comparison.value(left, right)

    return over_split_halves(value, len(values) // 2, "odd")


def _sides_of(board: AttackedBoard | UntouchedBoard) -> tuple[Population, Population, Population]:
    """Originals, reference oracles and control oracles."""
    return board.originals, board.references, board.controls


def _unseen(board: AttackedBoard, population: Population, labels: Labels) -> tuple[list[dict[str, FloatArray]], Labels]:
    """A population and the labels, without the forgotten examples that the attacker holds."""
    if not board.shots:
        return [dict(answers) for answers in population], labels
    kept, truth = [], []
    for draw, (answers, known) in enumerate(zip(population, labels, strict=True)):
        rows = np.setdiff1d(np.arange(len(known["forget"])), np.array(board.shots.get(draw, ()), dtype=np.int64))
        kept.append({name: array[:, rows] if name == "forget" else array for name, array in answers.items()})
        truth.append({name: array[rows] if name == "forget" else array for name, array in known.items()})
    return kept, truth


def _band(halves: FloatArray, floor: object) -> MetricBand:
    mean, low, high, sd = band_of(halves)
    return MetricBand(mean=mean, low=low, high=high, sd=sd, floor=float(floor))  # type: ignore[arg-type]


def _z(halves: FloatArray, band: MetricBand) -> FloatArray:
    deviations: FloatArray = halves - band.mean
    return deviations / band.width if band.width > 0 else np.zeros_like(deviations)


def _is_within(value: float, band: MetricBand) -> bool:
    return band.low <= value <= band.high or abs(value - band.mean) <= 1.96 * band.width


def _finite(z: float) -> float | None:
    return z if np.isfinite(z) else None
