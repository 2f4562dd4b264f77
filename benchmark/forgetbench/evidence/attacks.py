"""Evidence of attacks: what models answer after an attack, with a manifest that says how they were attacked.

One folder has one population of models (an unlearned row, the originals, or one set of oracles) after one attack with
one budget: ``attack.json`` and one ``d<draw>-s<seed>.npz`` for each model. The folders of originals and oracles are
what those of a row are scored against. Local scoring reads the same files that a server would.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from forgetbench.errors import ForgetBenchError, UsageError, described_pattern, validation_message
from forgetbench.evidence.arrays import RETESTED, Logits, array_digest, read_arrays, stack
from forgetbench.evidence.reference import ReferenceBundle
from forgetbench.evidence.run import AnswersRecord, Hash, MethodName, Name, Record, Status, Text
from forgetbench.store import write_atomically

MANIFEST = "attack.json"
Population = Literal["originals", "references", "controls", "row"]
"""Which models were attacked: the reference populations of a board, or a row."""
REFERENCE_POPULATIONS: tuple[Population, ...] = ("originals", "references", "controls")


def judged_subsets(available: Collection[str], *, membership: bool) -> list[str]:
    """The subsets on which attacked models are judged, in the order of `RETESTED`.

    Args:
        available: The subsets that the task has.
        membership: Whether the attack answers with scores of membership: then only forgotten examples are judged, and
            the unseen ones that they are compared with.
    """
    unseen = "test-forgotten" if "test-forgotten" in available else "test"
    judged = ("forget", unseen) if membership else RETESTED
    return [name for name in RETESTED if name in available and name in judged]


class AttackRecord(Record):
    """The attack: name, options and source."""

    name: MethodName
    """Its name in the registry, or the name of a foreign class."""
    label: Name
    """Its name with its budget and the options that were given."""
    title: Text
    """Its title in words."""
    holds: tuple[str, ...]
    """What the attacker holds."""
    outcomes: tuple[str, ...] = ()
    """Of a membership attack: what its outputs are scores of."""
    parameters: dict[str, Any]
    """All options."""
    budget: Text = ""
    """The option that is its budget; "" if it has none."""
    fingerprint: Name
    """What identifies its behavior."""
    source: Text | None = None
    """The source text of an attack that is not part of the package."""
    link: Text | None = None
    """Paper or code."""


class AttackedModelRecord(AnswersRecord):
    """One model after the attack."""

    file: str = Field(pattern=described_pattern(r"^d\d{1,4}-s\d{1,4}\.npz$", "d<draw>-s<seed>.npz"))
    """The file with its answers in the folder."""
    model: Hash
    """SHA-256 of the model's weights before the attack."""
    notes: dict[str, float | str] = Field(default={})
    """Values that the attack reported."""


class AttackManifest(Record):
    """The manifest of one attacked population."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    protocol: int
    """Version of the protocol when it was written; scores follow the scoring code's version."""
    task: Name
    """Name of the task."""
    task_key: Hash
    """Hash of all that shapes the task's models."""
    attack: AttackRecord
    """The attack."""
    population: Population
    """Which models were attacked."""
    row: Text = ""
    """The row's name; "" for originals and oracles."""
    method_fingerprint: Text = ""
    """What identifies the behavior of the row's method; "" for originals and oracles."""
    status: Status = "ok"
    """``ok`` if there is evidence for every (draw, seed)."""
    reason: Text = ""
    """Why there is no evidence."""
    draws: int = Field(ge=1)
    """Number of forget sets."""
    seeds: int = Field(ge=1)
    """Number of models for each."""
    index_hashes: dict[str, dict[str, Hash]]
    """Draw -> subset -> SHA-256 of its row numbers."""
    shots: dict[str, tuple[int, ...]] = Field(default={})
    """Draw -> positions in the forget set of the examples that the attacker held; scores leave them out."""
    models: tuple[AttackedModelRecord, ...]
    """One for each (draw, seed)."""
    flops: float | None = Field(default=None, ge=0)
    """FLOPs of one attack, everything included; None if they were not counted."""
    environment: dict[str, str]
    """Versions, hardware and commit."""
    command: Text = ""
    """The command that repeats the attack."""
    created: str
    """Time of writing, in UTC, ISO 8601."""


@dataclass(frozen=True, eq=False)
class AttackedPopulation:
    """An attacked population on disk: its manifest and its folder."""

    folder: Path
    manifest: AttackManifest

    def answers(self) -> list[Logits]:
        """For each draw, subset -> float16 answers (S, n, outputs), each array checked against its hash.

        Raises:
            ForgetBenchError: A file is missing, damaged or not what the manifest says.
        """
        records = {(record.draw, record.seed): record for record in self.manifest.models}
        places = [[(draw, seed) for seed in range(self.manifest.seeds)] for draw in range(self.manifest.draws)]
        missing = [place for row in places for place in row if place not in records]
        if missing:
            raise ForgetBenchError(
                f"{self.folder / MANIFEST} has no answers for draw {missing[0][0]}, seed {missing[0][1]}. Repeat the "
                f"attack: {self.manifest.command}"
            )
        return [stack([self._read(records[place]) for place in row]) for row in places]

    def _read(self, record: AttackedModelRecord) -> Logits:
        shapes = {name: array.shape for name, array in record.arrays.items()}
        arrays = read_arrays(self.folder / record.file, shapes)
        for name, array in arrays.items():
            if array_digest(array) != record.arrays[name].sha256:
                raise ForgetBenchError(
                    f"{self.folder / record.file}: {name} is not the array that {MANIFEST} describes (SHA-256 "
                    f"differs). Repeat the attack: {self.manifest.command}"
                )
        return arrays


def read_attacked(folder: Path) -> AttackedPopulation:
    """Read the manifest of an attacked population; arrays are read when they are used.

    Raises:
        UsageError: There is none in that folder, or its manifest is not valid.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(f"{folder} has no {MANIFEST}: it is no result of `forgetbench attack`.")
    try:
        return AttackedPopulation(folder, AttackManifest.model_validate_json(path.read_bytes()))
    except ValidationError as error:
        raise UsageError(
            f"{path} is not a manifest of this version: {validation_message(error)}. Repeat the attack."
        ) from error


def write_attacked(folder: Path, manifest: AttackManifest, copy: Callable[[Path], None]) -> None:
    """Write an attacked population: its files by a function, then the manifest, so that a manifest means complete."""
    copy(folder)
    write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())


def check_attacked(attacked: AttackedPopulation, pack: ReferenceBundle) -> list[str]:
    """Everything that is wrong with attacked answers as evidence for a bundle's task, one sentence each.

    Args:
        attacked: The attacked population.
        pack: The reference bundle.
    """
    manifest, card = attacked.manifest, pack.card
    if (manifest.task, manifest.task_key) != (card.task, card.task_key):
        return [f"the answers are of task {manifest.task!r}, this board is another: {card.task!r}"]
    if (manifest.draws, manifest.seeds) != (card.draws, card.seeds):
        return [
            f"there are {manifest.draws} draws and {manifest.seeds} seeds, the board has {card.draws} and {card.seeds}"
        ]
    problems = []
    if manifest.index_hashes != card.index_hashes:
        problems.append("the lists of rows are not the board's")
    outputs = len(manifest.attack.outcomes) or len(card.classes)
    for record in manifest.models:
        counts: Mapping[str, int] = card.counts.get(str(record.draw), {})
        judged = judged_subsets(counts, membership=bool(manifest.attack.outcomes))
        expected = {name: (counts[name], outputs) for name in judged}
        if {name: array.shape for name, array in record.arrays.items()} != expected:
            problems.append(f"{record.file}: the arrays must be {expected}")
    if problems or manifest.status != "ok":
        return problems
    try:
        answers = attacked.answers()
    except ForgetBenchError as error:
        return [str(error)]
    if not all(np.isfinite(array).all() for draw in answers for array in draw.values()):
        problems.append("answers are NaN or infinite")
    for draw, shots in manifest.shots.items():
        rows = card.counts.get(draw, {}).get("forget", 0)
        if not all(0 <= shot < rows for shot in shots) or len(set(shots)) < len(shots):
            problems.append(f"draw {draw}: the positions of the attacker's examples are not in the forget set")
    return problems
