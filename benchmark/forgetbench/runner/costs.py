"""What methods usually cost, from the reference results that come with the package."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from statistics import median

SHIPPED = Path(__file__).parents[1] / "reference"
"""The reference results of this package; published results of papers are in a folder below."""
UNKNOWN_SHARE = 1.0
"""Share of a retraining that is assumed for a method without results, so that it is not started last."""


@cache
def typical_shares() -> dict[str, float]:
    """Method -> the median of the FLOPs of unlearning over tasks and rows, as a share of retraining."""
    found: dict[str, list[float]] = {}
    for path in SHIPPED.glob("*/*/*.json"):
        for row in json.loads(path.read_bytes()).get("rows", []):
            flops = row.get("cost", {}).get("flops")
            if flops is not None:
                found.setdefault(row["label"].partition(":")[0], []).append(flops)
    return {name: median(values) for name, values in found.items()}


def expected_share(method: str) -> float:
    """FLOPs of unlearning by a method, as a share of retraining; `UNKNOWN_SHARE` if it has no results."""
    return typical_shares().get(method, UNKNOWN_SHARE)
