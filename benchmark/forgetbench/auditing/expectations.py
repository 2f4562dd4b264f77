"""Expected results of the sentinels: of the whole scorecard, and on each metric (protocol section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forgetbench.metrics import metrics
from forgetbench.metrics._validation import FloatArray
from forgetbench.scoring.distance import z_in
from forgetbench.scoring.forgotten import FEASIBLE_Z
from forgetbench.scoring.scorecards import Bands, Record, Scorecard, Value
from forgetbench.scoring.statistics import half_width

SENTINELS = ("retrain", "third", "none", "no-op", "collapse", "relabelled", "head-mask")
"""Retrain, a third set of oracles, No unlearning, and the sentinel methods; ``line`` is a separate argument."""

FORGOTTEN = frozenset({"forget", "withheld", "test-forgotten", "test-triggered"})
"""Subsets that originals know better than oracles do: a metric that reads one is about forgetting."""
FORGETTING_SIDES = ("gap.forget", "shift.forget")
"""Signed metrics that show a sentinel at chance level as over-forgotten."""
HARM_SIDES = ("gap.retain", "gap.test", "shift.retain")
"""Signed metrics that show a collapsed network below the oracles."""

MASKED_ACCURACY = 0.02
"""Upper limit of a masked head's test-forgotten accuracy; the argmax of equal logits may still be right."""
MASKED_PROBE = 0.8
"""Lower limit of a masked head's probe: its features are unchanged."""
CONFIDENCE = 0.99
"""Confidence of the interval outside of which two sentinels differ on a metric that has no band."""


class Finding(Record):
    """The result of one sentinel on one metric, or of its whole scorecard."""

    sentinel: str
    """Name of the sentinel."""
    metric: str | None
    """Name of the metric; None for the whole scorecard (gate, flags, distance)."""
    passed: bool | None
    """Whether the result is as expected; None if nothing is expected, or if it is undecided."""
    detail: str
    """The result in words."""


def family_limit(bands: Bands) -> float:
    """The board's family limit, or 3 if nothing ranks."""
    return bands.family_limit if bands.family_limit is not None else FEASIBLE_Z


def metric_limit(bands: Bands) -> float:
    """The |z| above which a metric that does not rank distinguishes a sentinel from the oracles."""
    return max(family_limit(bands), FEASIBLE_Z)


def about_forgetting(metric: str) -> bool:
    """Whether a metric measures forgetting, so that it must distinguish No unlearning from retraining."""
    return metric == "probe" or bool(FORGOTTEN & set(metrics.get(metric).requires))


def check_scorecard(name: str, card: Scorecard, bands: Bands) -> list[Finding]:
    """Compare the whole scorecard of a sentinel with what is expected of it."""

    def finding(*, passed: bool | None, detail: str) -> Finding:
        return Finding(sentinel=name, metric=None, passed=passed, detail=detail)

    distance, flags = card.distance, f"flags: {', '.join(card.flags) or 'none'}"
    position = (
        "no distance" if distance is None else f"distance {distance.value:.2f}, family band {family_limit(bands):.2f}"
    )
    if name in {"retrain", "third"}:
        return [finding(passed=distance.within_band if distance else None, detail=position)]
    if name == "none":
        feasible = any(reference.feasible for reference in bands.references.values())
        outside = distance is not None and not distance.within_band
        passed = (outside and "under-forgotten" in card.flags) if feasible else None
        return [finding(passed=passed, detail=f"{position}; {flags}")]
    if name == "collapse":
        gated = card.gate is not None and card.gate.collapsed
        # Flags come from what ranks. Nothing is below oracles that never predict a class, or contradict the labels.
        sided = bands.track == "match-oracle" and not _oracles_contradict_labels(card)
        passed = gated and ("over-forgotten" in card.flags or not sided)
        return [finding(passed=passed, detail=f"gated: {gated}; {flags}")]
    if name == "relabelled":
        if bands.track != "match-oracle" or _oracles_contradict_labels(card):
            return [finding(passed=None, detail=f"{flags}; uniform outputs are not less than the oracles' here")]
        return [finding(passed="over-forgotten" in card.flags, detail=flags)]
    return []


def _oracles_contradict_labels(card: Scorecard) -> bool:
    """Whether oracles mostly contradict the labels of the forget set, as on mislabelled tasks."""
    bands = [card.metrics[name].band if name in card.metrics else None for name in ("accuracy.forget", "accuracy.test")]
    return bands[0] is not None and bands[1] is not None and bands[0].mean < bands[1].mean / 2


def check_metric(metric: str, cards: Mapping[str, Scorecard], bands: Bands) -> list[Finding]:
    """Compare the sentinels on one metric with what is expected; empty if no sentinel can judge the metric."""
    if any(card.metrics.get(metric, Value()).band is not None for card in cards.values()):
        judgments = {name: _judge_in_band(name, metric, cards, card, bands) for name, card in cards.items()}
    else:
        judgments = dict(_judge_by_seeds(metric, cards, bands))
    return [
        Finding(sentinel=name, metric=metric, passed=judgment[0], detail=judgment[1])
        for name, judgment in judgments.items()
        if judgment is not None
    ]


def not_judged_reason(metric: str, cards: Mapping[str, Scorecard], bands: Bands) -> str:
    """Why no sentinel judges a metric."""
    if metric in bands.bands and not bands.bands[metric].width:  # z would be infinite for any difference
        return "its band has no width: oracles do not differ on it here"
    values = {name: cards[name].metrics.get(metric, Value()) for name in ("none", "retrain") if name in cards}
    reasons = [value.reason for value in values.values() if value.value is None and value.reason]
    if reasons:
        return reasons[0]
    if any(value.value is None for value in values.values()):
        reference = bands.references.get(metric)
        needs = f"not computed here: needs {', '.join(metrics.get(metric).requires)}"
        return (reference.reason if reference is not None else "") or needs
    return "it has neither a band nor values by seed"


Judgment = tuple[bool | None, str]
"""Whether the result is as expected, and the result in words."""


def _judge_in_band(
    name: str, metric: str, cards: Mapping[str, Scorecard], card: Scorecard, bands: Bands
) -> Judgment | None:
    """Judge a sentinel on a metric with a band; None if nothing is expected of it."""
    value = card.metrics.get(metric, Value())
    if value.band is None or value.value is None or (z := value.z) is None:
        return None
    judgment: Judgment | None = None
    if name in {"retrain", "third"}:
        judgment = abs(z) < metric_limit(bands), f"z {z:+.2f}"
    elif name == "none":
        judgment = _judge_no_unlearning(metric, z, bands)
    elif name == "no-op" and "none" in cards:
        judgment = _judge_equality(value, cards["none"].metrics.get(metric))
    elif name in {"collapse", "relabelled"}:
        judgment = _judge_side(name, metric, z, card, bands)
    elif name == "head-mask" and metric in {"gap.test-forgotten", "probe"}:
        judgment = _judge_head_mask(metric, card)
    return judgment


def _judge_no_unlearning(metric: str, z: float, bands: Bands) -> Judgment | None:
    """No unlearning must differ from the oracles on metrics of forgetting, and never be better than they are."""
    reference = bands.references.get(metric)
    if reference is not None and reference.feasible:
        return abs(z) > family_limit(bands), f"z {z:+.2f}"
    if not about_forgetting(metric):
        return None
    if reference is not None and reference.feasible is False and reference.reason:
        return None, f"z {z:+.2f}, but {reference.reason}"
    if abs(z) <= metric_limit(bands):
        return None, f"z {z:+.2f}: indistinguishable from retraining"
    return _judge_direction(metric, z, f"z {z:+.2f}")


def _judge_direction(metric: str, difference: float, detail: str) -> Judgment:
    """No unlearning, which differs from retraining, must be worse; on metrics with a target either side is worse."""
    better = {"up": difference > 0, "down": difference < 0, "band": False}[metrics.get(metric).direction]
    return not better, f"{detail}: better than retraining" if better else detail


def _judge_side(name: str, metric: str, z: float, card: Scorecard, bands: Bands) -> Judgment | None:
    """Both must be away from the original on the forget set; Collapse must be below the oracles on retain and test."""
    limit = metric_limit(bands)
    if metric in HARM_SIDES and name == "collapse" and card.gate is not None and card.gate.collapsed:
        return z < -limit, f"z {z:+.2f}: {'below' if z < -limit else 'not below'} the oracles"
    if metric not in FORGETTING_SIDES or bands.track != "match-oracle" or _oracles_contradict_labels(card):
        return None
    original = bands.references[metric].original_z
    away = -z * (np.sign(original) if original is not None and abs(original) > FEASIBLE_Z else 1.0)
    if abs(away) <= limit:
        return None, f"z {z:+.2f}: indistinguishable from retraining"
    return bool(away > 0), f"z {z:+.2f}: {'away from' if away > 0 else 'on the side of'} the original"


def _judge_by_seeds(metric: str, cards: Mapping[str, Scorecard], bands: Bands) -> dict[str, Judgment]:
    """Judge a metric without z: No unlearning and the third set against Retrain, seed by seed."""
    values = {name: card.metrics.get(metric, Value()) for name, card in cards.items()}
    judgments: dict[str, Judgment] = {}
    for name in ("third", "none"):
        compared = _difference_from_retrain(metric, values.get(name, Value()), values.get("retrain", Value()), bands)
        if compared is None:
            continue
        difference, margin, detail = compared
        if name == "third":
            judgments[name] = abs(difference) <= margin, detail
        elif about_forgetting(metric) and abs(difference) > margin:
            judgments[name] = _judge_direction(metric, difference, detail)
        elif about_forgetting(metric):
            judgments[name] = None, f"{detail}: indistinguishable from retraining"
    return judgments


def _difference_from_retrain(
    metric: str, value: Value, retrain: Value, bands: Bands
) -> tuple[float, float, str] | None:
    """The difference from Retrain, its margin, and both in words; None if the size of the noise is unknown."""
    if value.value is None or retrain.value is None:
        return None
    if metrics.get(metric).relative_to_band == "ratio":  # the band is that of the control
        band = bands.bands[metric]
        z = z_in(value.value * band.mean, band)
        return z, metric_limit(bands), f"z {z:+.2f}"
    sides = [np.array(side.pseudo_values or side.seeds) for side in (value, retrain)]
    if len({len(side) for side in sides}) > 1 or len(sides[0]) < 2:
        return None
    difference: FloatArray = sides[0] - sides[1]
    mean, margin = float(difference.mean()), half_width(difference, confidence=CONFIDENCE)
    return mean, margin, f"{mean:+.4f} from Retrain's, ±{margin:.4f}"


def _judge_equality(no_op: Value, no_unlearning: Value | None) -> Judgment:
    """Two records must agree: within a paired 99 % interval of pseudo-values, or within the band's width."""
    sides = [value.pseudo_values if value is not None else () for value in (no_op, no_unlearning)]
    if not sides[0] or len(sides[0]) != len(sides[1]) or no_op.band is None:
        return None, "no intervals"
    difference = np.array(sides[0]) - np.array(sides[1])
    mean, margin = float(difference.mean()), max(half_width(difference, confidence=CONFIDENCE), no_op.band.width)
    return abs(mean) <= margin, f"differs from No unlearning by {mean:+.4f}, {margin:.4f} allowed"


def _judge_head_mask(metric: str, card: Scorecard) -> Judgment:
    """A masked head never predicts the class, but its features still show the class to a probe."""
    if metric == "probe":
        value = card.metrics["probe"].value
        return value is not None and value >= MASKED_PROBE, f"probe {value}"
    value = card.metrics["accuracy.test-forgotten"].value
    return value is not None and value <= MASKED_ACCURACY, f"test-forgotten accuracy {value}"


def check_line(metric: str | None, line: Sequence[Scorecard] | Sequence[Value], bands: Bands) -> Finding:
    """Check that |z| (or the distance) rises along the line from oracles to originals, except for noise."""
    heights: list[float] = []
    for item in line:
        if isinstance(item, Scorecard):
            heights.append(item.distance.value if item.distance is not None else float("nan"))
        else:
            heights.append(abs(item.z) if item.z is not None else float("nan"))
    detail = "|z| along the line: " + ", ".join(f"{height:.2f}" for height in heights)
    expected = metric is None or bands.references[metric].feasible
    if not expected or not np.isfinite(heights).all():
        return Finding(sentinel="line", metric=metric, passed=None, detail=detail)
    fall = float((np.maximum.accumulate(heights) - heights).max())
    passed = bool(fall <= max(1.0, 0.1 * max(heights)) and heights[-1] > heights[0] + 1.0)
    return Finding(sentinel="line", metric=metric, passed=passed, detail=detail)
