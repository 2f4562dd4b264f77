"""From evidence to a scorecard, with the pack's oracles; only the worker imports this, for it needs scipy.

These are the functions of local scoring; the server adds nothing, so that its scores are equal to local ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import forgetbench
from forgetbench import scoring
from forgetbench.evidence import Manifest, Run
from forgetbench.metrics import Cost, metrics
from forgetbench.packs import Pack
from forgetbench.scorecards import Bands, Scorecard, Value
from forgetbench.store import source_digest, write_atomically

ORDER = ("efficacy", "harm")
_LIBRARIES = ("forgetbench", "numpy", "scipy", "scikit-learn")


@lru_cache(maxsize=1)
def software() -> dict[str, str]:
    """Versions of what computes scores, and one hash of the scoring code."""
    root = Path(str(forgetbench.__file__)).parent
    names = ("bands", "comparisons", "gates", "ranking", "scorecards", "scoring", "statistics")
    files = [path for name in names if (path := root / f"{name}.py").is_file()]
    code = source_digest(*files, *(root / "metrics").glob("*.py"))
    return {**{name: version(name) for name in _LIBRARIES}, "code": code}


def bands_of(pack: Pack, cache: Path) -> Bands:
    """Everything about a board that depends on its pack alone, from the cache where this code computed it before."""
    file = cache / f"bands-{software()['code'][:16]}.json"
    if file.is_file():
        return Bands.model_validate_json(file.read_bytes())
    bands = scoring.reference_bands(
        pack.labels,
        pack.population("references"),
        pack.population("controls"),
        pack.population("originals"),
        pack.card.track,
    )
    write_atomically(file, bands.model_dump_json().encode())
    return bands


def score_run(run: Run, pack: Pack, bands: Bands) -> Scorecard:
    """The scorecard of a run.

    Raises:
        ForgetBenchError: Its evidence cannot be scored; the message says why.
    """
    card = pack.card
    return scoring.score(
        run.population(card.draws, card.seeds),
        name=run.manifest.row,
        references=pack.population("references"),
        labels=pack.labels,
        bands=bands,
        cost=cost_of(run.manifest, pack),
    )


def cost_of(manifest: Manifest, pack: Pack) -> Cost:
    """Costs as ratios. FLOPs over those that the pack gives for an oracle; wall time over the same run's oracle."""
    cost = manifest.cost
    retrain = pack.card.retrain_flops or cost.retrain_flops
    shares = [model.share_changed for model in manifest.models if model.share_changed is not None]
    return Cost(
        flops=cost.flops / retrain if cost.flops is not None and retrain else None,
        wall=cost.seconds / cost.retrain_seconds if cost.seconds is not None and cost.retrain_seconds else None,
        changed=sum(shares) / len(shares) if shares else None,
        seconds=cost.seconds,
        trials=cost.tuning_trials,
    )


def brief(card: Scorecard) -> Scorecard:
    """A scorecard without what the ranking does not read."""
    kept = {name: Value(value=card.metrics[name].value) for name in card.ranking if name in card.metrics}
    return card.model_copy(update={"metrics": kept})


def rank_briefs(briefs: Iterable[dict[str, Any]]) -> scoring.Board:
    """The ranking of scorecards as they were stored."""
    return scoring.rank([Scorecard.model_validate_json(json.dumps(item)) for item in briefs])


def summary_of(bands: Bands, scored: set[str]) -> dict[str, Any]:
    """What a board's pages need besides its rows: the columns with their bands, and whether and how it ranks.

    Args:
        bands: Of the board.
        scored: Names of the metrics that the board's scorecards hold.
    """
    specs = [metrics.get(name) for name in metrics.names() if name in scored]
    columns = []
    for spec in specs:
        role, reference, band = spec.role(bands.track), bands.references.get(spec.name), bands.bands.get(spec.name)
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
    }


def budget_of(cost: Cost) -> int | None:
    """The budget class as a number of per cent; 101 beyond retraining."""
    if cost.flops is None:
        return None
    return next((limit for limit in (1, 5, 20, 100) if cost.flops * 100 <= limit), 101)
