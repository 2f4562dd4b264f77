"""Which forgotten examples leak most, and what each forgotten person's images show. Of public draws only.

Only the rows that leak most and sums over people are stored, never an oracle's prediction for an example.
"""

from __future__ import annotations

import numpy as np

from forgetbench.evidence.arrays import UNREADABLE, Array, Logits, load_arrays
from forgetbench.evidence.display import people, read_display
from forgetbench.evidence.reference import ReferenceBundle
from forgetbench.metrics.logit_statistics import phi
from forgetbench.scoring.scorer import Scorer
from forgetbench.store import JsonObject

TOP = 10
"""Examples that are shown."""
MAX_PEOPLE = 500
"""People that are shown."""
_LEAST_SD = 1e-6


def of_models(scorer: Scorer, models: list[Logits]) -> JsonObject:
    """The examples that leak most, and the people of the forget sets.

    An example leaks by how far its confidence phi, the mean over the models, is from that of the reference oracles, in
    standard deviations of these oracles: their variance on the example, averaged with that on all examples.

    Args:
        scorer: Scorer of the public draws.
        models: For each draw, subset -> logits (S, n, K) of the unlearned models.

    Returns:
        ``rows``: draw, position in the forget set, row number, class number and z. ``people``: number, images, z, and
        the accuracy of the models, the oracles and the originals.
    """
    bundle, shown = scorer.bundle, read_display(scorer.bundle.folder)
    rows: list[JsonObject] = []
    persons: list[JsonObject] = []
    parts = zip(models, scorer.references, scorer.originals, bundle.labels, strict=True)
    for draw, (own, oracles, originals, labels) in enumerate(parts):
        truth = labels["forget"]
        z = _z(phi(own["forget"], truth), phi(oracles["forget"], truth))
        numbers = _row_numbers(bundle, draw, len(z))
        for place in np.argsort(-np.abs(z), kind="stable")[:TOP]:
            line = {"draw": draw, "position": int(place), "row": int(numbers[place]), "z": round(float(z[place]), 1)}
            rows.append(line | {"class": int(truth[place]) if truth.ndim == 1 else None})
        identities = shown.get(people(draw))
        if identities is not None and len(identities) == len(z):
            right = [_right(population["forget"], truth) for population in (own, oracles, originals)]
            persons += _persons(draw, identities, z, right)
    rows.sort(key=lambda line: -abs(line["z"]))
    return {"rows": rows[:TOP], "people": persons[:MAX_PEOPLE]}


def _z(own: Array, oracles: Array) -> Array:
    """(S, n) phi of models and of oracles -> (n,) standardized differences of their means."""
    variance = oracles.var(axis=0, ddof=1)
    sd = np.sqrt((variance + variance.mean()) / 2)
    z: Array = (own.mean(axis=0) - oracles.mean(axis=0)) / np.maximum(sd, _LEAST_SD)
    return z


def _right(logits: Array, labels: Array) -> Array:
    """(n,) share of the models that are right about each example."""
    right = (logits > 0) == (labels == 1) if labels.ndim == 2 else logits.argmax(axis=-1) == labels
    share: Array = right.mean(axis=(0, 2) if labels.ndim == 2 else 0)
    return share


def _persons(draw: int, identities: Array, z: Array, right: list[Array]) -> list[JsonObject]:
    lines = []
    for person in np.unique(identities):
        chosen = identities == person
        shares = [round(float(values[chosen].mean()), 4) for values in right]
        line = {
            "draw": draw,
            "person": int(person),
            "images": int(chosen.sum()),
            "z": round(float(z[chosen].mean()), 1),
        }
        lines.append(line | dict(zip(("accuracy", "oracles", "originals"), shares, strict=True)))
    return lines


def _row_numbers(bundle: ReferenceBundle, draw: int, count: int) -> Array:
    """Row numbers of a draw's forget set among the training images; positions where the bundle has none."""
    try:
        rows = load_arrays(bundle.folder / f"rows-d{draw}.npz")["forget"]
    except (*UNREADABLE, FileNotFoundError, KeyError):
        return np.arange(count)
    return rows if len(rows) == count else np.arange(count)
