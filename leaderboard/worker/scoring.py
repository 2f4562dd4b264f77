"""From evidence to rows; only the worker imports this, for scores need scipy.

Scores are those of ``forgetbench.scoring.scorer``, which scores runs on a user's machine as well: same bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from forgetbench.evidence.reference import read_pack
from forgetbench.leaderboard.boards import distributions
from forgetbench.metrics import Cost, metrics
from forgetbench.scoring.score import rank
from forgetbench.scoring.scorecards import Bands, Board, Scorecard, Value
from forgetbench.scoring.scorer import Scorer, scoring_code

ORDER = ("efficacy", "harm")
_LIBRARIES = ("forgetbench", "numpy", "scipy", "scikit-learn")


@lru_cache(maxsize=1)
def software() -> dict[str, str]:
    """Versions of what computes scores, and one hash of the scoring code."""
    return {**{name: version(name) for name in _LIBRARIES}, "code": scoring_code()}


@lru_cache(maxsize=8)
def judge_of(pack: Path) -> Scorer:
    """What scores against a pack; its bands are kept beside the pack."""
    return Scorer(read_pack(pack, verify=False), cache=pack.parent)


@lru_cache(maxsize=32)
def distributions_of(pack: Path) -> dict[str, Any]:
    """The bins of a board's distributions of phi, with the oracles' and the originals' shares."""
    return distributions.of_board(judge_of(pack))


def brief(card: Scorecard) -> Scorecard:
    """A scorecard without what the ranking does not read."""
    kept = {name: Value(value=card.metrics[name].value) for name in card.ranking if name in card.metrics}
    return card.model_copy(update={"metrics": kept})


def rank_briefs(briefs: Iterable[dict[str, Any]]) -> Board:
    """The ranking of scorecards as they were stored."""
    return rank([stored(item) for item in briefs])


def summary_of(bands: Bands, example: Scorecard, phi: dict[str, Any]) -> dict[str, Any]:
    """What a board's pages need besides its rows: the columns with their bands, and whether and how it ranks.

    Args:
        bands: Of the board.
        example: Any scorecard of the board: all hold the same metrics and bands.
        phi: Distributions of the oracles and the originals.
    """
    specs = [metrics.get(name) for name in metrics.names() if name in example.metrics]
    columns = []
    for spec in specs:
        role, reference, band = spec.role(bands.track), bands.references.get(spec.name), example.metrics[spec.name].band
        ranks, why = spec.name in bands.ranking, ""
        if role == "efficacy" and not ranks:
            why = "No unlearning cannot be told from the oracles by it here"
        if reference is not None and reference.reason:
            why = reference.reason
        columns.append(
            {
                **spec.model_dump(mode="json", exclude={"efficacy", "harm"}),
                "role": role,
                "ranks": ranks,
                "why": why,
                "band": band.model_dump(include={"mean", "low", "high", "sd"}) if band else None,
            }
        )
    places = {name: place for place, name in enumerate((*ORDER, None))}
    columns.sort(key=lambda column: (places[column["role"]], column["name"]))
    return {
        "columns": columns,
        "ranking": list(bands.ranking),
        "family_limit": bands.family_limit,
        "informational": bands.informational,
        "seeds": bands.seeds,
        "halvings": bands.halvings,
        "phi": phi,
    }


def stored(card: dict[str, Any]) -> Scorecard:
    """A scorecard as it was stored."""
    return Scorecard.model_validate_json(json.dumps(card))


def budget_of(cost: Cost) -> int | None:
    """The budget class as a number of per cent; 101 beyond retraining."""
    if cost.flops is None:
        return None
    return next((limit for limit in (1, 5, 20, 100) if cost.flops * 100 <= limit), 101)
