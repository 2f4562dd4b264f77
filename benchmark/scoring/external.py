"""Logits of other suites: score what somebody has saved, without our trainer and without torch."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.answers import UNREADABLE
from forgetbench.errors import UsageError
from forgetbench.metrics.spec import Track, metrics
from forgetbench.scoring.bands import reference_bands
from forgetbench.scoring.comparisons import Population
from forgetbench.scoring.gates import gate_of
from forgetbench.scoring.score import score
from forgetbench.scoring.scorecards import Bands, Scorecard, SingleModels, Value
from forgetbench.scoring.singles import single_values
from forgetbench.scoring.submitted import answers_of, same_outputs, truth_of


def score_logits(
    unlearned: Mapping[str, ArrayLike],
    oracle: Mapping[str, ArrayLike],
    labels: Mapping[str, ArrayLike],
    *,
    originals: Mapping[str, ArrayLike] | None = None,
    track: Track = "match-oracle",
    name: str = "unlearned",
) -> Scorecard:
    """The scorecard of somebody's own models, from their logits.

    Args:
        unlearned: Subset (forget, retain, test and what else there is) to logits (S, n, K), or (n, K) of one model.
        oracle: The same of models that never saw the forget set. With 2 S of them the second half gives the bands;
            with fewer there are values and no bands, and more are not read.
        labels: Subset to labels (n,), or (n, A) of binary attributes.
        originals: The same of the S models before unlearning; without them nothing tells what is feasible.
        track: match-oracle, or erase (then test-forgotten rows too).
        name: The row's name.

    Raises:
        UsageError: A subset is missing or empty, shapes or types will not do (the message names role and subset), or
            the numbers of models do not fit each other.
    """
    truth = truth_of(labels, track)
    given = {"unlearned": unlearned, "oracle": oracle} | ({"originals": originals} if originals is not None else {})
    sides = {role: answers_of(values, role, truth, track) for role, values in given.items()}
    same_outputs(sides)
    seeds, available = (len(sides[role]["forget"]) for role in ("unlearned", "oracle"))
    if available < seeds:
        raise UsageError(f"{_counted(seeds, 'unlearned model')} need at least as many oracles; there are {available}.")
    before: Population | None = [sides["originals"]] if originals is not None else None
    if before is not None and len(before[0]["forget"]) != seeds:
        raise UsageError(
            f"originals: {len(before[0]['forget'])} models, but {seeds} were unlearned: give the model that each of "
            "those started from, in their order."
        )
    oracles = [sides["oracle"]]
    references = _some(oracles, slice(0, seeds))
    if available >= 2 * seeds:
        bands = reference_bands([truth], references, _some(oracles, slice(seeds, 2 * seeds)), before, track)
    else:
        bands = _without_bands([truth], references, before, track, seeds, available)
    card = score([sides["unlearned"]], name=name, references=references, labels=[truth], bands=bands, originals=before)
    return _with_reasons(card, truth, originals=before is not None)


def score_files(
    logits: Path, oracle: Path, labels: Path, originals: Path | None = None, *, track: Track = "match-oracle"
) -> Scorecard:
    """``score_logits`` from ``.npz`` files with one array for each subset.

    Raises:
        UsageError: A file is not there, or is no ``.npz`` of plain arrays.
    """
    return score_logits(
        read_arrays(logits),
        read_arrays(oracle),
        read_arrays(labels),
        originals=read_arrays(originals) if originals is not None else None,
        track=track,
        name=logits.stem,
    )


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file; pickled objects are refused.

    Raises:
        UsageError: The file is not there, or is no such file.
    """
    try:
        if not path.is_file():
            raise UsageError(f"There is no file {path}.")
        if not zipfile.is_zipfile(path):
            raise UsageError(f"{path} is no .npz file; one array for each subset is needed, as np.savez writes them.")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except UNREADABLE as error:
        raise UsageError(f"{path} is no .npz file of plain arrays: {error}") from error


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _some(population: Population, models: slice) -> Population:
    return [{subset: array[models] for subset, array in answers.items()} for answers in population]


def _with_reasons(card: Scorecard, truth: Mapping[str, NDArray[Any]], *, originals: bool) -> Scorecard:
    """The scorecard with a reason for every metric of a board that these files tell nothing of."""
    given = {name for name, rows in truth.items() if len(rows)} | ({"originals"} if originals else set())
    values = dict(card.metrics)
    for spec in (metrics.get(name) for name in metrics.names()):
        if spec.on_boards and spec.name not in values:
            absent = [name for name in spec.requires if name not in given]
            values[spec.name] = Value(reason=f"not computable: needs {', '.join(absent or spec.requires)}")
    return card.model_copy(update={"metrics": {name: values[name] for name in sorted(values)}})


def _without_bands(
    labels: list[dict[str, NDArray[Any]]],
    references: Population,
    originals: Population | None,
    track: Track,
    seeds: int,
    available: int,
) -> Bands:
    alone, _ = single_values(references, labels)
    before, _ = single_values(originals, labels) if originals is not None else ({}, {})
    return Bands(
        track=track,
        seeds=seeds,
        draws=1,
        halvings=0,
        bands={},
        references={},
        ranking=(),
        family_limit=None,
        gate=gate_of(None, [references], labels),
        singles={
            name: SingleModels(
                references=tuple(tuple(row) for row in values.tolist()),
                originals=tuple(tuple(row) for row in before[name].tolist()) if name in before else (),
            )
            for name, values in alone.items()
        },
        informational=f"{_counted(available, 'oracle')} for {_counted(seeds, 'unlearned model')}: bands need twice as "
        f"many oracles as unlearned models, {2 * seeds}",
    )
