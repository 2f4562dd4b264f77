"""Import logits that other code computed, in any framework, from the models that it unlearned from a board's originals.

The folder contains one ``d<draw>-s<seed>.npz`` for each forget set and original: the unlearned model's logits on every
list of rows of the board, as arrays ``forget``, ``retain``, ... (the lists are ``rows-d<draw>.npz`` of the reference
bundle), and ``method.toml``, which describes the method.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from forgetbench.errors import UsageError, validation_message
from forgetbench.evidence.arrays import FEATURES, Array, encode, write_arrays
from forgetbench.evidence.environment import environment
from forgetbench.evidence.probabilities import describe_probabilities
from forgetbench.evidence.reference import ReferenceBundle
from forgetbench.evidence.run import (
    MANIFEST,
    CostRecord,
    Manifest,
    MethodName,
    MethodRecord,
    ModelRecord,
    Name,
    Record,
    Text,
    describe,
    schema_of,
    write_manifest,
)
from forgetbench.importers.npz import read_npz
from forgetbench.methods import check_own_name
from forgetbench.store import JsonObject, digest, file_digest, replace_folder
from forgetbench.user_files import read_toml

METHOD_TOML, SOURCE = "method.toml", "method.py"
EXAMPLE = 'name = "my-method", title = "...", family = "...", needs = ["forget", "retain"], [parameters], [cost]'


class MethodInfo(Record):
    """``method.toml``: how an author describes a method."""

    name: MethodName
    """The row's name."""
    title: Text = ""
    """The method in words; by default its name."""
    family: Name = "other"
    """Its family: a word to filter by."""
    needs: tuple[Literal["forget", "retain", "validation"], ...] = ("forget", "retain")
    """The data that it reads."""
    parameters: JsonObject = Field(default={})
    """Hyper-parameters, all of them."""
    link: Text | None = None
    """Paper or code."""
    bibtex: Text | None = None
    """How to cite it."""
    cost: CostRecord = CostRecord()
    """The cost of unlearning: ``flops`` and ``seconds`` of one model."""
    device: Text = ""
    """The device on which it ran."""


def is_logits_folder(folder: Path) -> bool:
    """Whether a folder contains logits, or at least the description of a method, and no run."""
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return False
    return (folder / METHOD_TOML).exists() or any(folder.glob("d*-s*.npz"))


def import_logits(folder: Path, pack: ReferenceBundle, target: Path) -> Path:
    """Write a run from saved logits; a run at ``target`` is replaced.

    Args:
        folder: Logits and ``method.toml``; a ``method.py`` in it is submitted as the method's source.
        pack: The public part of the board's reference bundle.
        target: The run's folder.

    Returns:
        The run's folder.

    Raises:
        UsageError: A file is missing, or its arrays are not those of the board; the message lists all differences.
    """
    info, card = read_info(folder), pack.card
    wanted = [(draw, seed) for draw in range(card.draws) for seed in range(card.seeds)]
    missing = [name for draw, seed in wanted if not (folder / (name := f"d{draw}-s{seed}.npz")).is_file()]
    if missing:
        raise UsageError(
            f"{folder} lacks {', '.join(missing)}: {card.task} needs {card.draws} draws x {card.seeds} seeds."
        )
    logits = {place: _read_logits(folder / f"d{place[0]}-s{place[1]}.npz", pack, place[0]) for place in wanted}
    source = folder / SOURCE
    known = source.is_file()
    manifest = Manifest(
        schema_version=schema_of(card.track),
        protocol=card.protocol,
        task=card.task,
        task_key=card.task_key,
        method=MethodRecord(
            name=info.name,
            title=info.title or info.name,
            family=info.family,
            needs=info.needs,
            parameters=info.parameters,
            observed=True,
            fingerprint=file_digest(source) if known else digest(info.model_dump(mode="json")),
            source=_source_text(source) if known else None,
            link=info.link,
            bibtex=info.bibtex,
        ),
        draws=card.draws,
        seeds=card.seeds,
        index_hashes=card.index_hashes,
        models=tuple(
            ModelRecord(
                draw=draw,
                seed=seed,
                file=f"d{draw}-s{seed}.npz",
                original=card.originals[seed],
                arrays=describe(arrays),
                seconds=info.cost.seconds,
            )
            for (draw, seed), arrays in logits.items()
        ),
        cost=info.cost.model_copy(update={"retrain_flops": card.retrain_flops}),
        environment={"device": info.device} if info.device else environment("cpu"),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )

    def fill(place: Path) -> None:
        for (draw, seed), arrays in logits.items():
            write_arrays(place / f"d{draw}-s{seed}.npz", arrays)
        write_manifest(place, manifest)

    replace_folder(target, fill, marker=MANIFEST)
    return target


def read_info(folder: Path) -> MethodInfo:
    """Read the description of the method in a folder of logits.

    Raises:
        UsageError: There is none, it is not valid, or its name is that of a method of this package.
    """
    path = folder / METHOD_TOML
    if not path.is_file():
        raise UsageError(f"{path} is missing. It describes the method, for example: {EXAMPLE}.")
    try:
        info = MethodInfo.model_validate(read_toml(path))
    except ValidationError as error:
        raise UsageError(f"{path}: {validation_message(error)}. Correct it; an example: {EXAMPLE}.") from error
    try:
        check_own_name(info.name)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return info


def _source_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not in UTF-8. Save it as UTF-8, or remove it to submit no source.") from error


def _read_logits(path: Path, pack: ReferenceBundle, draw: int) -> dict[str, Array]:
    """The logits of one model as evidence: float16, encoded by protocol section 1."""
    shapes, arrays = pack.shapes(draw), read_npz(path)
    given = {name: tuple(array.shape) for name, array in arrays.items()}
    wrong = [
        f"{name} {shapes.get(name, 'is not expected')}{f', not {given[name]}' if name in given else ''}"
        for name in sorted({*shapes, *given})
        if shapes.get(name) != given.get(name)
    ]
    if wrong:
        raise UsageError(f"{path}: {pack.card.task} needs other arrays: {'; '.join(wrong)}.")
    attributes = pack.card.attributes
    for name, array in arrays.items():
        what = "" if name.startswith(FEATURES) else describe_probabilities(array, attributes=attributes)
        if array.dtype.kind != "f" and not what:
            what = f"{array.dtype}, not finite floats. Save the outputs of the network, before any argmax"
        elif not np.isfinite(array).all():
            what = "values that are not finite floats: the model diverged. Leave it out, or report the run as failed"
        if what:
            raise UsageError(f"{path}: {name} contains {what}.")
    return {name: encode(array, attributes=attributes or name.startswith(FEATURES)) for name, array in arrays.items()}
