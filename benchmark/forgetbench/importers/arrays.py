"""Score logits from any source, without a trainer and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgetbench.errors import UsageError
from forgetbench.evidence.probabilities import describe_probabilities
from forgetbench.metrics._validation import FloatArray, floats, labels_of, plain_array
from forgetbench.metrics.board_rules import FEATURES, SUBSETS, TARGETS, Population
from forgetbench.metrics.registry import Track, metrics
from forgetbench.scoring.bands import reference_bands
from forgetbench.scoring.gates import gate_of
from forgetbench.scoring.per_model import per_model_values
from forgetbench.scoring.score import score
from forgetbench.scoring.scorecards import Bands, ReferenceValues, Scorecard, Value

REQUIRED = ("forget", "retain", "test")
"""Subsets that every argument needs."""
GROUPS = "groups:"
"""Prefix of group numbers next to the labels."""
BESIDES = (GROUPS, TARGETS)
"""Prefixes of what is given next to the labels, one number for each row of a subset."""

Labels = Mapping[str, NDArray[Any]]
"""Subset -> labels (n,) or (n, A)."""
Logits = Mapping[str, FloatArray]
"""Subset -> logits (S, n, K)."""


def score_arrays(
    unlearned: Mapping[str, ArrayLike],
    oracle: Mapping[str, ArrayLike],
    labels: Mapping[str, ArrayLike],
    *,
    original: Mapping[str, ArrayLike] | None = None,
    track: Track = "match-oracle",
    name: str = "unlearned",
    all_rows: bool = False,
) -> Scorecard:
    """The scorecard of unlearned models, from their logits.

    Args:
        unlearned: Subset (forget, retain, test and any other) to logits (S, n, K), or (n, K) of one model.
        oracle: The same of models that never saw the forget set. With 2 S of them the second half gives the bands;
            with fewer there are values and no bands, and further ones are not read.
        labels: Subset to labels (n,), or (n, A) of binary attributes.
        original: The same as ``unlearned`` of the S models before unlearning; without them it is unknown which metrics
            can tell unlearned from original models.
        track: match-oracle, erase (which also needs test-forgotten), or corrective.
        name: The row's name.
        all_rows: Compute metrics that never rank from all rows, and not from a fixed number of them.

    Raises:
        UsageError: A subset is missing or empty, shapes or types do not fit (the message names argument and subset), or
            the numbers of models do not fit each other.
    """
    truth = check_labels(labels, track)
    given = {"unlearned": unlearned, "oracle": oracle} | ({"original": original} if original is not None else {})
    sides = {role: check_logits(values, role, truth, track) for role, values in given.items()}
    _check_outputs(sides)
    seeds, available = (len(sides[role]["forget"]) for role in ("unlearned", "oracle"))
    if available < seeds:
        raise UsageError(f"{_counted(seeds, 'unlearned model')} need at least as many oracles; there are {available}.")
    before: Population | None = [sides["original"]] if original is not None else None
    if before is not None and len(before[0]["forget"]) != seeds:
        raise UsageError(
            f"original: {len(before[0]['forget'])} models, but {seeds} were unlearned: give the model that each of "
            "those started from, in the same order."
        )
    oracles = [sides["oracle"]]
    references = _slice(oracles, slice(0, seeds))
    if available >= 2 * seeds:
        controls = _slice(oracles, slice(seeds, 2 * seeds))
        bands = reference_bands([truth], references, controls, before, track, all_rows=all_rows)
    else:
        bands = _without_bands([truth], references, before, track, (seeds, available), all_rows=all_rows)
    card = score([sides["unlearned"]], name=name, references=references, labels=[truth], bands=bands, originals=before)
    return _with_reasons(card, truth, originals=before is not None)


def check_labels(labels: Mapping[str, ArrayLike], track: Track) -> dict[str, NDArray[Any]]:
    """The labels (n,) or (n, A) of every subset; groups and targets (n,) if given.

    Raises:
        UsageError: A subset is unknown, missing or empty, labels are not whole numbers or are one-hot, or groups do not
            fit.
    """
    arrays = {name: plain_array(values, f"labels: {name}") for name, values in labels.items()}
    known = {*SUBSETS, *(prefix + subset for prefix in BESIDES for subset in SUBSETS)}
    if set(arrays) - known:
        raise UsageError(f"labels: the subsets are {', '.join(SUBSETS)}, not {', '.join(sorted(set(arrays) - known))}.")
    _require_subsets(arrays, "labels", track)
    for name, array in arrays.items():
        if array.dtype.kind not in "iub":
            whole = array.dtype.kind == "f" and bool((array == np.round(array)).all())
            fix = ": convert with .astype(int)" if whole else ""
            raise UsageError(f"labels: {name}: whole numbers expected, but the type is {array.dtype}{fix}.")
        if array.ndim != 1 and (array.ndim != 2 or name.startswith(BESIDES)):
            raise UsageError(
                f"labels: {name}: (n,) class numbers or (n, A) attributes, but the shape is {array.shape}."
            )
    for name in [name for name in arrays if name.startswith(BESIDES)]:
        subset = name.partition(":")[2]
        rows = len(arrays[subset]) if subset in arrays else 0
        if len(arrays[name]) != rows:
            raise UsageError(f"labels: {name} has {len(arrays[name])} rows, but {subset} has {rows}.")
    _check_label_kinds({name: array for name, array in arrays.items() if not name.startswith(BESIDES)})
    return arrays


def check_logits(values: Mapping[str, ArrayLike], role: str, labels: Labels, track: Track) -> Logits:
    """Logits (S, n, K) of every subset that has labels; (n, K) of one model is read as S = 1.

    Args:
        values: What was given.
        role: Name of the argument, for messages.
        labels: What `check_labels` returned.
        track: The track.

    Raises:
        UsageError: A subset is unknown or missing, or an array is not one of finite real numbers that fits the labels.
    """
    if extra := set(values) - set(SUBSETS) - {FEATURES + subset for subset in SUBSETS}:
        raise UsageError(f"{role}: the subsets are {', '.join(SUBSETS)}, not {', '.join(sorted(extra))}.")
    arrays = {name: _real_numbers(array, f"{role}: {name}") for name, array in values.items()}
    _require_subsets(arrays, role, track)
    missing = [name for name in labels if not name.startswith(BESIDES) and name not in arrays]
    if missing:
        raise UsageError(f"{role}: no logits on {', '.join(missing)}, which have labels: add them, or omit the labels.")
    models, outputs = len(arrays["forget"]), arrays["forget"].shape[2]
    _check_zero_based(labels, outputs)
    for name, array in arrays.items():
        if len(array) != models:
            raise UsageError(f"{role}: {name} has {len(array)} models, but forget has {models}.")
        if name.startswith(FEATURES):
            _check_features(arrays, name, role, labels)
            continue
        if array.shape[2] != outputs:
            raise UsageError(f"{role}: {name} has {array.shape[2]} outputs, but forget has {outputs}.")
        if name in labels:
            if array.shape[1] != len(labels[name]):
                raise UsageError(
                    f"{role}: {name} has the shape {array.shape}, {array.shape[1]} examples, but there are "
                    f"{len(labels[name])} labels. Expected is (models, examples, classes)."
                )
            labels_of(labels[name], array, f"labels: {name}")
        attributes = labels["forget"].ndim == 2
        if what := next(filter(None, (describe_probabilities(rows, attributes=attributes) for rows in array)), ""):
            raise UsageError(f"{role}: {name} contains {what}.")
    return arrays


def _require_subsets(arrays: Labels, role: str, track: Track) -> None:
    required = (*REQUIRED, "test-forgotten") if track == "erase" else REQUIRED
    rule = f"{'labels of' if role == 'labels' else 'logits on'} {', '.join(required)} are needed"
    if missing := [name for name in required if name not in arrays]:
        on_track = " on the erase track" if track == "erase" else ""
        raise UsageError(f"{role}: {', '.join(missing)} missing; {rule}{on_track}.")
    if empty := [name for name in required if not arrays[name].size]:
        raise UsageError(f"{role}: {', '.join(empty)} is empty; {rule}.")


def _real_numbers(values: ArrayLike, name: str) -> FloatArray:
    array = plain_array(values, name)
    if array.dtype.kind != "f":
        what = (
            " Whole numbers are answers or ranks: save the outputs of the network." if array.dtype.kind in "iub" else ""
        )
        raise UsageError(f"{name}: real numbers expected, but the type is {array.dtype}.{what}")
    return floats(array[None] if array.ndim == 2 else array, name, ndim=3)


def _check_features(arrays: Logits, name: str, role: str, labels: Labels) -> None:
    """Refuse features of another number of rows than the subset's, or of another width than the first features."""
    subset = name.removeprefix(FEATURES)
    rows, width = arrays[name].shape[1:]
    if subset in labels and rows != len(labels[subset]):
        raise UsageError(f"{role}: {name} has {rows} rows, but there are {len(labels[subset])} labels of {subset}.")
    first = next(other for other in arrays if other.startswith(FEATURES))
    if width != arrays[first].shape[2]:
        raise UsageError(
            f"{role}: {name} has {width} features, but {first} has {arrays[first].shape[2]}: record the same layer."
        )


def _check_zero_based(labels: Labels, outputs: int) -> None:
    """Refuse class numbers that count from 1 in all subsets together, and class numbers in a column."""
    classes = {name: array for name, array in labels.items() if not name.startswith(BESIDES) and len(array)}
    for name, array in classes.items():
        if array.ndim == 2 and array.shape[1] == 1 and outputs > 1:
            raise UsageError(f"labels: {name}: class numbers are (n,), but the shape is {array.shape}: labels.ravel().")
    if all(array.ndim == 1 for array in classes.values()):
        lowest, highest = (
            min(array.min() for array in classes.values()),
            max(array.max() for array in classes.values()),
        )
        if lowest == 1 and highest == outputs:
            raise UsageError(
                f"labels: the classes are 1 to {outputs}, but they count from 0 as the outputs do: subtract 1."
            )


def _check_label_kinds(labels: Labels) -> None:
    """Refuse a mixture of class numbers and attributes, and one-hot labels, which would be read as attributes."""
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
            "labels: every row has exactly one 1, which is one-hot and would be read as binary attributes: give class "
            "numbers, labels.argmax(axis=1)."
        )


def _check_outputs(sides: Mapping[str, Logits]) -> None:
    """Refuse arguments whose logits have different numbers of classes."""
    outputs = {role: side["forget"].shape[2] for role, side in sides.items()}
    if len(set(outputs.values())) > 1:
        counts = ", ".join(f"{role} {count}" for role, count in outputs.items())
        raise UsageError(f"All models need the same outputs, in the same order; there are: {counts}.")


def _with_reasons(card: Scorecard, labels: Labels, *, originals: bool) -> Scorecard:
    """The scorecard with a reason for every metric of a board that these arrays cannot give."""
    given = {name for name, rows in labels.items() if len(rows)} | ({"originals"} if originals else set())
    values = dict(card.metrics)
    for spec in (metrics.get(name) for name in metrics.names()):
        if spec.on_boards and spec.name not in values:
            missing = [name for name in spec.requires if name not in given]
            values[spec.name] = Value(reason=f"not computable: needs {', '.join(missing or spec.requires)}")
    return card.model_copy(update={"metrics": {name: values[name] for name in sorted(values)}})


def _without_bands(
    labels: list[dict[str, NDArray[Any]]],
    references: Population,
    originals: Population | None,
    track: Track,
    models: tuple[int, int],
    *,
    all_rows: bool,
) -> Bands:
    """Bands without any band: values can be computed, and nothing ranks. Models: unlearned ones, oracles."""
    seeds, available = models
    of_oracles, _ = per_model_values(references, labels, all_rows=all_rows)
    of_originals, _ = per_model_values(originals, labels, all_rows=all_rows) if originals is not None else ({}, {})
    return Bands(
        track=track,
        seeds=seeds,
        draws=1,
        split_halves=0,
        all_rows=all_rows,
        bands={},
        references={},
        ranking=(),
        family_limit=None,
        gate=gate_of(None, [references], labels),
        per_model={
            name: ReferenceValues(
                references=tuple(tuple(row) for row in values.tolist()),
                originals=tuple(tuple(row) for row in of_originals[name].tolist()) if name in of_originals else (),
            )
            for name, values in of_oracles.items()
        },
        unranked_reason=f"{_counted(available, 'oracle')} for {_counted(seeds, 'unlearned model')}: bands need "
        f"twice as many oracles as unlearned models, {2 * seeds}",
    )


def _slice(population: Population, models: slice) -> Population:
    return [{subset: array[models] for subset, array in logits.items()} for logits in population]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
