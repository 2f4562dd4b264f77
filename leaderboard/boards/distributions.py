"""Histograms of phi on the forgotten examples: of an entry's models, the oracles and the originals.

Only histograms over all models are stored, never an oracle's prediction for an example.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from forgetbench.metrics.board_rules import Population
from forgetbench.metrics.logit_statistics import phi
from forgetbench.scoring.scorer import Scorer
from forgetbench.store import JsonObject

BINS = 40
TAIL = 0.002
"""Share of the references' and originals' examples beyond each end; they count in the first and the last bin."""


def of_board(scorer: Scorer) -> JsonObject:
    """The bins of a board, and the shares of its reference oracles and originals in each."""
    oracles, originals = _phi(scorer, scorer.references), _phi(scorer, scorer.originals)
    ends = [np.quantile(both, share) for both in (np.concatenate([oracles, originals]),) for share in (TAIL, 1 - TAIL)]
    low, high = float(ends[0]), float(max(ends[1], ends[0] + 1e-6))
    edges = np.linspace(low, high, BINS + 1)
    return {
        "edges": [round(float(edge), 6) for edge in edges],
        "oracles": shares(oracles, edges),
        "originals": shares(originals, edges),
    }


def of_models(scorer: Scorer, board: JsonObject, population: Population) -> list[float]:
    """The shares of a population in the bins of its board; reads only its forget set."""
    return shares(_phi(scorer, population), np.array(board["edges"]))


def shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> list[float]:
    """Share of the values in each bin; those beyond the ends count in the outermost."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return [round(float(count) / len(values), 6) for count in counts]


def _phi(scorer: Scorer, population: Population) -> NDArray[np.float64]:
    samples = [
        phi(logits["forget"], labels["forget"]).ravel()
        for logits, labels in zip(population, scorer.bundle.labels, strict=True)
    ]
    return np.concatenate(samples)
