"""A run from logits that were made elsewhere: by the method's own code, in any framework, from a board's originals.

The folder holds one ``d<draw>-s<seed>.npz`` for each forget set and original: the unlearned model's logits on every
list of rows of the board, as arrays ``forget``, ``retain``, ... (the lists are ``rows-d<draw>.npz`` of the pack).
Beside them lies ``method.toml``, which says what the method is.
"""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from forgetbench.errors import UsageError, validation_message
from forgetbench.evidence.arrays import FEATURES, Array, encode, write_arrays
from forgetbench.evidence.environment import environment
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
    write_manifest,
)
from forgetbench.store import digest, file_digest, replace_folder

SHEET, SOURCE = "method.toml", "method.py"
EXAMPLE = 'name = "my-method", title = "...", family = "...", needs = ["forget", "retain"], [parameters], [cost]'


class MethodInfo(Record):
    """``method.toml``: what an author says of a method."""

    name: MethodName
    """The row's name."""
    title: Text = ""
    """The method in words; its name where nothing is said."""
    family: Name = "other"
    """What it is like: a word to filter by."""
    needs: tuple[Literal["forget", "retain", "validation"], ...] = ("forget", "retain")
    """What it reads."""
    parameters: dict[str, Any] = Field(default={})
    """Hyper-parameters, all of them."""
    link: Text | None = None
    """Paper or code."""
    bibtex: Text | None = None
    """How to cite it."""
    cost: CostRecord = CostRecord()
    """What unlearning cost: ``flops`` and ``seconds`` of one model."""
    device: Text = ""
    """Where it ran."""


def is_elsewhere(folder: Path) -> bool:
    """Whether a folder holds logits, and no run yet."""
    return folder.is_dir() and not (folder / MANIFEST).exists() and any(folder.glob("d*-s*.npz"))


def make_run(folder: Path, pack: ReferenceBundle, target: Path) -> Path:
    """Make a run of saved logits; what lay at ``target`` is replaced.

    Args:
        folder: Logits and ``method.toml``; a ``method.py`` beside them is submitted as the method's source.
        pack: The board's pack, its public part.
        target: The run's folder.

    Raises:
        UsageError: A file is missing, or holds other arrays than the board asks for; the message lists all of it.
    """
    sheet, card = _read_sheet(folder / SHEET), pack.card
    wanted = [(draw, seed) for draw in range(card.draws) for seed in range(card.seeds)]
    missing = [name for draw, seed in wanted if not (folder / (name := f"d{draw}-s{seed}.npz")).is_file()]
    if missing:
        raise UsageError(
            f"{folder} lacks {', '.join(missing)}: {card.task} asks for {card.draws} draws x {card.seeds} seeds."
        )
    answers = {place: _read_logits(folder / f"d{place[0]}-s{place[1]}.npz", pack, place[0]) for place in wanted}
    source = folder / SOURCE
    known = source.is_file()
    manifest = Manifest(
        protocol=card.protocol,
        task=card.task,
        task_key=card.task_key,
        method=MethodRecord(
            name=sheet.name,
            title=sheet.title or sheet.name,
            family=sheet.family,
            needs=sheet.needs,
            parameters=sheet.parameters,
            observed=True,
            source_sha256=file_digest(source) if known else digest(sheet.model_dump(mode="json")),
            source=source.read_text(encoding="utf-8") if known else None,
            link=sheet.link,
            bibtex=sheet.bibtex,
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
                seconds=sheet.cost.seconds,
            )
            for (draw, seed), arrays in answers.items()
        ),
        cost=sheet.cost.model_copy(update={"retrain_flops": card.retrain_flops}),
        environment={"device": sheet.device} if sheet.device else environment("cpu"),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )

    def fill(place: Path) -> None:
        for (draw, seed), arrays in answers.items():
            write_arrays(place / f"d{draw}-s{seed}.npz", arrays)
        write_manifest(place, manifest)

    replace_folder(target, fill)
    return target


def _read_sheet(path: Path) -> MethodInfo:
    if not path.is_file():
        raise UsageError(f"{path} is missing: it says what the method is, such as {EXAMPLE}.")
    try:
        return MethodInfo.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        raise UsageError(f"{path}: {validation_message(error)}") from error


def _read_logits(path: Path, pack: ReferenceBundle, draw: int) -> dict[str, Array]:
    """The answers of one model as evidence: float16, encoded as protocol section 1 says."""
    shapes = pack.shapes(draw)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} is no .npz of arrays: {error}") from error
    found = {name: tuple(array.shape) for name, array in arrays.items()}
    wrong = [
        f"{name} {shapes.get(name, 'is not asked for')}{f', not {found[name]}' if name in found else ''}"
        for name in sorted({*shapes, *found})
        if shapes.get(name) != found.get(name)
    ]
    if wrong:
        raise UsageError(f"{path}: {pack.card.task} asks for other arrays: {'; '.join(wrong)}")
    kinds = [name for name, array in arrays.items() if array.dtype.kind != "f" or not np.isfinite(array).all()]
    if kinds:
        raise UsageError(f"{path}: {', '.join(kinds)} must be finite floats: logits, before any softmax")
    attributes = pack.card.attributes
    return {name: encode(array, attributes=attributes or name.startswith(FEATURES)) for name, array in arrays.items()}
