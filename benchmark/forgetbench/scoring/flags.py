"""The flags of protocol section 4, and the side on which each metric shows a row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from forgetbench.metrics.registry import metrics
from forgetbench.scoring.distance import counting_metrics
from forgetbench.scoring.forgotten import FEASIBLE_Z
from forgetbench.scoring.scorecards import Bands, Distance, GateResult, Value
from forgetbench.scoring.vocabulary import Side

SIDED = ("gap.forget", "shift.forget", "gap.test-forgotten", "probe")
"""Metrics of forgetting with a side: originals are on one side of the oracles."""
CORRECTIVE_SIDED = ("gap.attack-success", "gap.test-triggered", "gap.withheld")
"""Metrics with a side on the corrective track only."""


def sides_of(values: Mapping[str, Value], bands: Bands) -> dict[str, Side]:
    """The side on which each metric with a side shows a row, for metrics that are outside their own band.

    The side of the original is that of No unlearning if it is outside (|z| > 3). Otherwise it is assumed to be above,
    since originals predict the forget set better and more confidently than oracles, and answer what harmful data taught
    them; they are below on the true labels of affected test images.
    """
    found: dict[str, Side] = {}
    for name in sided(bands):
        value = values.get(name)
        if value is None or value.z is None or value.within_band is not False:
            continue
        original = bands.references[name].original_z
        side = -1.0 if name == "gap.test-triggered" else 1.0
        if original is not None and abs(original) > FEASIBLE_Z:
            side = float(np.sign(original))
        found[name] = "under-forgotten" if np.sign(value.z) == side else "over-forgotten"
    return found


def sided(bands: Bands) -> tuple[str, ...]:
    """The metrics with a side on a board."""
    return (*SIDED, *CORRECTIVE_SIDED) if bands.track == "corrective" else SIDED


def flags_of(
    values: Mapping[str, Value],
    bands: Bands,
    gate: GateResult,
    distance: Distance | None,
    sides: Mapping[str, Side],
) -> tuple[str, ...]:
    """The flags of a scored contestant, in alphabetical order.

    Args:
        values: Every metric.
        bands: The board's bands.
        gate: What the utility gate says.
        distance: The distance, if there is one.
        sides: The result of `sides_of`.
    """
    flags: set[str] = set()
    if distance is not None and not distance.within_band and (side := _ranking_side(values, bands, sides)) is not None:
        flags.add(side)
    for name in ("lira.forget", "js"):
        value = values.get(name)
        if value is not None and value.within_band is False and value.z is not None and value.z < 0:
            flags.add("suspicious")
    if gate.collapsed:
        flags.add("collapsed")
    elif gate.harmed:
        flags.add("harmed")
    if gate.unstable:
        flags.add("unstable")
    return tuple(sorted(flags))


def _ranking_side(values: Mapping[str, Value], bands: Bands, sides: Mapping[str, Side]) -> Side | None:
    """The side of the ranking efficacy metric that is farthest out; None where none is outside its own band.

    lira has no side: then the side is that of gap.forget, or of shift.forget where gap.forget is inside its band.
    """
    efficacy = [
        name
        for name in counting_metrics(values, bands) or ()
        if metrics.get(name).role(bands.track) == "efficacy" or name == "shift.forget"
    ]
    outside = [(abs(z), name) for name in efficacy if (z := values[name].z) is not None and _is_out(values[name])]
    if not outside:
        return None
    farthest = max(outside)[1]
    candidates = (farthest,) if farthest in sided(bands) else ("gap.forget", "shift.forget")
    return next((sides[name] for name in candidates if name in sides), None)


def _is_out(value: Value) -> bool:
    return value.within_band is False
