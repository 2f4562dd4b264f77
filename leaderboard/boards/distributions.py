"""Where phi of the forgotten examples lies: of an entry's models, beside the oracles' and the originals'.

Only histograms over all models leave this file, never an oracle's answer to an example.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from forgetbench.evidence.arrays import Logits
from forgetbench.metrics.logit_statistics import phi
from forgetbench.scoring.scorer import Scorer

BINS = 40
TAIL = 0.002
"""Share of the references' and originals' examples beyond each end; they count in the first and the last bin."""


def of_board(judge: Scorer) -> dict[str, Any]:
    """The bins of a board, and the shares of its reference oracles and originals in each."""
    oracles, originals = _phi(judge, judge.references), _phi(judge, judge.originals)
    ends = [np.quantile(both, share) for both in (np.concatenate([oracles, originals]),) for share in (TAIL, 1 - TAIL)]
    low, high = float(ends[0]), float(max(ends[1], ends[0] + 1e-6))
    edges = np.linspace(low, high, BINS + 1)
    return {
        "edges": [round(float(edge), 6) for edge in edges],
        "oracles": shares(oracles, edges),
        "originals": shares(originals, edges),
    }


def of_models(judge: Scorer, board: dict[str, Any], population: list[Logits]) -> list[float]:
    """The shares of a population in the bins of its board; only ``forget`` of it is read."""
    return shares(_phi(judge, population), np.array(board["edges"]))


def shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> list[float]:
    """Share of the values in each bin; those beyond the ends count in the outermost."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return [round(float(count) / len(values), 6) for count in counts]


def _phi(judge: Scorer, population: list[Logits]) -> NDArray[np.float64]:
    found = [
        phi(answers["forget"], labels["forget"]).ravel()
        for answers, labels in zip(population, judge.pack.labels, strict=True)
    ]
    return np.concatenate(found)
