"""Where every sentinel of an audit is and must be: as a whole, and on each metric (protocol section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forgetbench.metrics import metrics
from forgetbench.metrics._validation import FloatArray
from forgetbench.scoring.bands import FEASIBLE_Z, z_in
from forgetbench.scoring.scorecards import Bands, Record, Scorecard, Value
from forgetbench.scoring.statistics import half_width

SENTINELS = ("retrain", "third", "none", "no-op", "collapse", "relabelled", "head-mask")
"""Retrain, a third set of oracles, No unlearning, and the sentinel methods; ``line`` is given apart."""

FORGOTTEN = frozenset({"forget", "withheld", "test-forgotten"})
"""Subsets of which originals know more than oracles do: a metric that reads one is about forgetting."""
FORGETTING_SIDES = ("gap.forget", "shift.forget")
"""Metrics with a side on which a sentinel that answers no better than chance is over-forgotten."""
HARM_SIDES = ("gap.retain", "gap.test", "shift.retain")
"""Metrics on which a collapsed network is below the oracles."""

GONE = 0.02
"""Test-forgotten accuracy of a masked head, at most; the argmax of equal logits may still hit."""
LEGIBLE = 0.8
"""Probe of a masked head, at least: the features are untouched."""
SURE = 0.01
"""Two-sided level at which two sentinels differ on a metric that has no band."""


class Finding(Record):
    """One sentinel on one metric, or as a whole."""

    sentinel: str
    """Which sentinel."""
    metric: str | None
    """Which metric; None where the whole scorecard is judged (gate, flags, distance)."""
    passed: bool | None
    """Whether the result is as expected; None if nothing is expected, or if the result is not conclusive."""
    detail: str
    """What was found, in words."""


def family_limit(bands: Bands) -> float:
    """The family band, or 3 where nothing ranks."""
    return bands.family_limit if bands.family_limit is not None else FEASIBLE_Z


def metric_limit(bands: Bands) -> float:
    """The |z| beyond which a metric that does not rank puts a sentinel elsewhere than the oracles."""
    return max(family_limit(bands), FEASIBLE_Z)


def about_forgetting(metric: str) -> bool:
    """Whether a metric is there to tell who forgot, so that it must tell No unlearning from retraining."""
    return metric == "probe" or bool(FORGOTTEN & set(metrics.get(metric).requires))


def whole(name: str, card: Scorecard, bands: Bands) -> list[Finding]:
    """What is demanded of a sentinel's scorecard as a whole."""

    def say(*, passed: bool | None, detail: str) -> Finding:
        return Finding(sentinel=name, metric=None, passed=passed, detail=detail)

    distance = card.distance
    away = (
        "no distance" if distance is None else f"distance {distance.value:.2f}, family band {family_limit(bands):.2f}"
    )
    feasible = any(reference.feasible for reference in bands.references.values())
    if name in {"retrain", "third"}:
        return [say(passed=distance.within_band if distance else None, detail=away)]
    if name == "none":
        passed = (
            (distance is not None and not distance.within_band and "under-forgotten" in card.flags)
            if feasible
            else None
        )
        return [say(passed=passed, detail=f"{away}; flags: {', '.join(card.flags) or 'none'}")]
    if name == "collapse":
        gated = card.gate is not None and card.gate.collapsed
        over = "over-forgotten" in card.flags
        return [say(passed=gated and over, detail=f"gated: {gated}; flags: {', '.join(card.flags) or 'none'}")]
    if name == "relabelled":
        detail = f"flags: {', '.join(card.flags) or 'none'}"
        if bands.track != "match-oracle" or _oracles_miss(card):
            return [say(passed=None, detail=f"{detail}; uniform outputs are not less than the oracles' here")]
        return [say(passed="over-forgotten" in card.flags, detail=detail)]
    return []


def _oracles_miss(card: Scorecard) -> bool:
    """Whether oracles mostly answer the forget set otherwise than it was labeled, as on mislabelled tasks."""
    bands = [card.metrics[name].band if name in card.metrics else None for name in ("accuracy.forget", "accuracy.test")]
    return bands[0] is not None and bands[1] is not None and bands[0].mean < bands[1].mean / 2


def of_metric(metric: str, cards: Mapping[str, Scorecard], bands: Bands) -> list[Finding]:
    """What the sentinels say of one metric; nothing of a metric that none of them can judge."""
    if any(card.metrics.get(metric, Value()).band is not None for card in cards.values()):
        found = {name: _in_band(name, metric, cards, card, bands) for name, card in cards.items()}
    else:
        found = dict(_by_values(metric, cards, bands))
    return [
        Finding(sentinel=name, metric=metric, passed=item[0], detail=item[1])
        for name, item in found.items()
        if item is not None
    ]


def why_not(metric: str, cards: Mapping[str, Scorecard], bands: Bands) -> str:
    """Why nothing is said of a metric."""
    if metric in bands.bands and not bands.bands[metric].width:  # any difference would be infinitely large
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


def _in_band(name: str, metric: str, cards: Mapping[str, Scorecard], card: Scorecard, bands: Bands) -> Judgment | None:
    """What is demanded of a sentinel on a metric with a band; None where nothing is."""
    value = card.metrics.get(metric, Value())
    if value.band is None or value.value is None or (z := value.z) is None:
        return None
    found: Judgment | None = None
    if name in {"retrain", "third"}:
        found = abs(z) < metric_limit(bands), f"z {z:+.2f}"
    elif name == "none":
        found = _untouched(metric, z, bands)
    elif name == "no-op" and "none" in cards:
        found = _same(value, cards["none"].metrics.get(metric))
    elif name in {"collapse", "relabelled"}:
        found = _side(name, metric, z, card, bands)
    elif name == "head-mask" and metric in {"gap.test-forgotten", "probe"}:
        found = _masked(metric, card)
    return found


def _untouched(metric: str, z: float, bands: Bands) -> Judgment | None:
    """No unlearning: away from the oracles on whatever is about forgetting, and never better than they are."""
    reference = bands.references.get(metric)
    if reference is not None and reference.feasible:
        return abs(z) > family_limit(bands), f"z {z:+.2f}"
    if not about_forgetting(metric):
        return None
    if reference is not None and reference.feasible is False and reference.reason:
        return None, f"z {z:+.2f}, but {reference.reason}"
    if abs(z) <= metric_limit(bands):
        return None, f"z {z:+.2f}: indistinguishable from retraining"
    return _better(metric, z, f"z {z:+.2f}")


def _better(metric: str, away: float, detail: str) -> Judgment:
    """Whether No unlearning, which differs from retraining, is worse; for a metric with a band, either direction is."""
    better = {"up": away > 0, "down": away < 0, "band": False}[metrics.get(metric).direction]
    return not better, f"{detail}: better than retraining" if better else detail


def _side(name: str, metric: str, z: float, card: Scorecard, bands: Bands) -> Judgment | None:
    """Collapse and Relabelled: away from the original on the forget set; a collapsed network below the oracles."""
    limit = metric_limit(bands)
    if metric in HARM_SIDES and name == "collapse" and card.gate is not None and card.gate.collapsed:
        return z < -limit, f"z {z:+.2f}: {'below' if z < -limit else 'not below'} the oracles"
    if metric not in FORGETTING_SIDES or bands.track != "match-oracle" or _oracles_miss(card):
        return None
    original = bands.references[metric].original_z
    away = -z * (np.sign(original) if original is not None and abs(original) > FEASIBLE_Z else 1.0)
    if abs(away) <= limit:
        return None, f"z {z:+.2f}: indistinguishable from retraining"
    return bool(away > 0), f"z {z:+.2f}: {'away from' if away > 0 else 'on the side of'} the original"


def _by_values(metric: str, cards: Mapping[str, Scorecard], bands: Bands) -> dict[str, Judgment]:
    """A metric without z: No unlearning and the third set against Retrain, seed by seed."""
    values = {name: card.metrics.get(metric, Value()) for name, card in cards.items()}
    found: dict[str, Judgment] = {}
    for name in ("third", "none"):
        away = _away(metric, values.get(name, Value()), values.get("retrain", Value()), bands)
        if away is None:
            continue
        difference, margin, detail = away
        if name == "third":
            found[name] = abs(difference) <= margin, detail
        elif about_forgetting(metric):
            is_distinct = abs(difference) > margin
            found[name] = (
                _better(metric, difference, detail)
                if is_distinct
                else (None, f"{detail}: indistinguishable from retraining")
            )
    return found


def _away(metric: str, value: Value, retrain: Value, bands: Bands) -> tuple[float, float, str] | None:
    """The difference from Retrain with its margin, in words too; None where nothing tells how large noise is."""
    if value.value is None or retrain.value is None:
        return None
    if metrics.get(metric).relative_to_band == "ratio":  # shown over the control's, whose own spread the band has
        band = bands.bands[metric]
        z = z_in(value.value * band.mean, band)
        return z, metric_limit(bands), f"z {z:+.2f}"
    sides = [np.array(one.pseudo_values or one.seeds) for one in (value, retrain)]
    if len({len(side) for side in sides}) > 1 or len(sides[0]) < 2:
        return None
    difference: FloatArray = sides[0] - sides[1]
    mean, margin = float(difference.mean()), half_width(difference, SURE)
    return mean, margin, f"{mean:+.4f} from Retrain's, ±{margin:.4f}"


def _same(no_op: Value, untouched: Value | None) -> tuple[bool | None, str]:
    """Whether two records are indistinguishable, by a paired 99 % interval of pseudo-values or the band's width."""
    if (
        untouched is None
        or not no_op.pseudo_values
        or len(no_op.pseudo_values) != len(untouched.pseudo_values)
        or no_op.band is None
    ):
        return None, "no intervals"
    difference = np.array(no_op.pseudo_values) - np.array(untouched.pseudo_values)
    mean, margin = float(difference.mean()), max(half_width(difference, SURE), no_op.band.width)
    return abs(mean) <= margin, f"differs from No unlearning by {mean:+.4f}, {margin:.4f} allowed"


def _masked(metric: str, card: Scorecard) -> tuple[bool, str]:
    """A masked head: nothing of the class is answered, and all of it is still in the features."""
    if metric == "probe":
        found = card.metrics["probe"].value
        return found is not None and found >= LEGIBLE, f"probe {found}"
    found = card.metrics["accuracy.test-forgotten"].value
    return found is not None and found <= GONE, f"test-forgotten accuracy {found}"


def rising(metric: str | None, line: Sequence[Scorecard] | Sequence[Value], bands: Bands) -> Finding:
    """Whether |z| (or the distance) rises along the line, and never falls by more than noise."""
    heights: list[float] = []
    for item in line:
        if isinstance(item, Scorecard):
            heights.append(item.distance.value if item.distance is not None else float("nan"))
        else:
            heights.append(abs(item.z) if item.z is not None else float("nan"))
    detail = "|z| along the line: " + ", ".join(f"{height:.2f}" for height in heights)
    demanded = metric is None or bands.references[metric].feasible
    if not demanded or not np.isfinite(heights).all():
        return Finding(sentinel="line", metric=metric, passed=None, detail=detail)
    fall = float((np.maximum.accumulate(heights) - heights).max())
    passed = bool(fall <= max(1.0, 0.1 * max(heights)) and heights[-1] > heights[0] + 1.0)
    return Finding(sentinel="line", metric=metric, passed=passed, detail=detail)
