"""Logits of other suites: score what somebody has saved, without our trainer and without torch."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import UNREADABLE
from forgetbench.metrics._validation import FloatArray, floats, labels_of
from forgetbench.metrics.registry import Track, metrics
from forgetbench.scoring.bands import reference_bands
from forgetbench.scoring.gates import gate_of
from forgetbench.scoring.pairwise import SUBSETS, Population
from forgetbench.scoring.per_model import FEATURES, single_values
from forgetbench.scoring.score import score
from forgetbench.scoring.scorecards import Bands, Scorecard, SingleModels, Value


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
        split_halves=0,
        bands={},
        references={},
        ranking=(),
        family_limit=None,
        gate=gate_of(None, [references], labels),
        per_model={
            name: SingleModels(
                references=tuple(tuple(row) for row in values.tolist()),
                originals=tuple(tuple(row) for row in before[name].tolist()) if name in before else (),
            )
            for name, values in alone.items()
        },
        unranked_reason=f"{_counted(available, 'oracle')} for {_counted(seeds, 'unlearned model')}: bands need "
        f"twice as many oracles as unlearned models, {2 * seeds}",
    )


NEEDED = ("forget", "retain", "test")
GROUPS = "groups:"

Answers = Mapping[str, FloatArray]


def truth_of(labels: Mapping[str, ArrayLike], track: Track) -> dict[str, NDArray[Any]]:
    """The labels (n,) or (n, A) of every subset, and groups (n,) where there are any.

    Raises:
        UsageError: A subset is unknown, missing or empty, labels are no whole numbers or one-hot, or groups do not fit.
    """
    found = {name: np.asarray(values) for name, values in labels.items()}
    known = {*SUBSETS, *(GROUPS + subset for subset in SUBSETS)}
    if set(found) - known:
        raise UsageError(f"labels: the subsets are {', '.join(SUBSETS)}, not {', '.join(sorted(set(found) - known))}.")
    _demand(found, "labels", track)
    for name, array in found.items():
        if array.dtype.kind not in "iub":
            whole = array.dtype.kind == "f" and bool((array == np.round(array)).all())
            mend = ", which .astype(int) makes of them" if whole else ""
            raise UsageError(f"labels: {name}: whole numbers expected{mend}, but the type is {array.dtype}.")
        if array.ndim != 1 and (array.ndim != 2 or name.startswith(GROUPS)):
            raise UsageError(
                f"labels: {name}: (n,) class numbers or (n, A) attributes, but the shape is {array.shape}."
            )
    for name in [name for name in found if name.startswith(GROUPS)]:
        subset = name.removeprefix(GROUPS)
        rows = len(found[subset]) if subset in found else 0
        if len(found[name]) != rows:
            raise UsageError(f"labels: {name} has {len(found[name])} rows, but {subset} has {rows}.")
    _no_mixture({name: array for name, array in found.items() if not name.startswith(GROUPS)})
    return found


def answers_of(values: Mapping[str, ArrayLike], role: str, truth: Mapping[str, NDArray[Any]], track: Track) -> Answers:
    """Logits (S, n, K) of every subset that has labels; (n, K) of one model is read as S = 1.

    Raises:
        UsageError: A subset is unknown or missing, or an array is not one of finite real numbers that fits the labels.
    """
    named = set(values) - set(SUBSETS) - {FEATURES + subset for subset in SUBSETS}
    if named:
        raise UsageError(f"{role}: the subsets are {', '.join(SUBSETS)}, not {', '.join(sorted(named))}.")
    found = {name: _logits(array, f"{role}: {name}") for name, array in values.items()}
    _demand(found, role, track)
    absent = [name for name in truth if not name.startswith(GROUPS) and name not in found]
    if absent:
        raise UsageError(
            f"{role}: no logits on {', '.join(absent)}, of which there are labels; leave those out, or add them."
        )
    models, outputs = len(found["forget"]), found["forget"].shape[2]
    _counted_from_0(truth, outputs)
    for name, array in found.items():
        if len(array) != models:
            raise UsageError(f"{role}: {name} has {len(array)} models, but forget has {models}.")
        if name.startswith(FEATURES):
            _features(found, name, role, truth)
            continue
        if array.shape[2] != outputs:
            raise UsageError(f"{role}: {name} has {array.shape[2]} outputs, but forget has {outputs}.")
        if name in truth:
            if array.shape[1] != len(truth[name]):
                raise UsageError(f"{role}: {name} has {array.shape[1]} rows, but there are {len(truth[name])} labels.")
            labels_of(truth[name], array, f"labels: {name}")
    return found


def _features(found: Answers, name: str, role: str, truth: Mapping[str, NDArray[Any]]) -> None:
    """Refuse features that are of other rows than the subset's, or of another width than the first."""
    subset = name.removeprefix(FEATURES)
    rows, width = found[name].shape[1:]
    if subset in truth and rows != len(truth[subset]):
        raise UsageError(f"{role}: {name} has {rows} rows, but there are {len(truth[subset])} labels of {subset}.")
    first = next(other for other in found if other.startswith(FEATURES))
    if width != found[first].shape[2]:
        raise UsageError(
            f"{role}: {name} has {width} features, but {first} has {found[first].shape[2]}: record the same layer."
        )


def _counted_from_0(truth: Mapping[str, NDArray[Any]], outputs: int) -> None:
    """Refuse class numbers that count from 1 in all subsets together, and columns of them."""
    labels = {name: array for name, array in truth.items() if not name.startswith(GROUPS) and len(array)}
    for name, array in labels.items():
        if array.ndim == 2 and array.shape[1] == 1 and outputs > 1:
            raise UsageError(f"labels: {name}: class numbers are (n,), but the shape is {array.shape}: labels.ravel().")
    if all(array.ndim == 1 for array in labels.values()):
        least, most = min(array.min() for array in labels.values()), max(array.max() for array in labels.values())
        if least == 1 and most == outputs:
            raise UsageError(
                f"labels: the classes are 1 to {outputs}, but they count from 0 as the outputs do: subtract 1."
            )


def same_outputs(sides: Mapping[str, Answers]) -> None:
    """Refuse roles whose logits are over different numbers of classes.

    Raises:
        UsageError: They are.
    """
    outputs = {role: side["forget"].shape[2] for role, side in sides.items()}
    if len(set(outputs.values())) > 1:
        counts = ", ".join(f"{role} {count}" for role, count in outputs.items())
        raise UsageError(f"All models need the same outputs, in the same order; there are: {counts}.")


def _demand(found: Mapping[str, NDArray[Any]], role: str, track: Track) -> None:
    needed = (*NEEDED, "test-forgotten") if track == "erase" else NEEDED
    what = f"{'labels of' if role == 'labels' else 'logits on'} {', '.join(needed)} are needed"
    absent = [name for name in needed if name not in found]
    if absent:
        raise UsageError(
            f"{role}: {', '.join(absent)} missing; {what}{' on the erase track' if track == 'erase' else ''}."
        )
    empty = [name for name in needed if not found[name].size]
    if empty:
        raise UsageError(f"{role}: {', '.join(empty)} is empty; {what}.")


def _logits(values: ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise UsageError(f"{name}: real numbers expected, but the type is {array.dtype}.")
    return floats(array[None] if array.ndim == 2 else array, name, ndim=3)


def _no_mixture(labels: Mapping[str, NDArray[Any]]) -> None:
    """Refuse class numbers beside attributes, and one-hot labels, which would be read as attributes."""
    widths = {name: array.shape[1] if array.ndim == 2 else 0 for name, array in labels.items()}
    if len(set(widths.values())) > 1:
        counts = ", ".join(f"{name} {labels[name].shape}" for name in widths)
        raise UsageError(
            f"labels: class numbers (n,) or A attributes (n, A), the same in every subset; there are: {counts}."
        )
    if max(widths.values()) > 1 and all(
        (array == 1).sum(axis=1).min() == array.sum(axis=1).max() == 1 for array in labels.values() if len(array)
    ):
        raise UsageError(
            "labels: every row holds exactly one 1, which is one-hot and would be read as binary attributes: give "
            "class numbers, labels.argmax(axis=1)."
        )
