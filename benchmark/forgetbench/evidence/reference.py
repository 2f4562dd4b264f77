"""Packs: what every run of a task is scored against, in one folder.

``pack.json``, the labels of every list of rows, and the answers of the originals, of the reference oracles and of
the control oracles. Local scoring and the server read the same pack, and so give the same scores to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from forgetbench.errors import ForgetBenchError, UsageError, validation_message
from forgetbench.evidence.arrays import CLIP, FEATURES, Array, Logits, read_arrays, stack
from forgetbench.evidence.run import (
    SCHEMA,
    AnswersRecord,
    Hash,
    Manifest,
    Name,
    Record,
    Run,
    Text,
)
from forgetbench.store import canonical_json, digest, file_digest, write_atomically

PACK = "pack.json"
PUBLIC_FILES = re.compile(r"pack\.json|(originals|models)/[\w.-]+|(rows|index|indices)-d\d+\.npz")
"""Files of a pack that a server gives to submitters: never labels, groups, or an oracle's evidence."""
VERDICT = "audit.json"
"""What an audit found out of place; a pack holds it only where there is something, for it then is another board."""
PROBED = ("forget", "retain", "validation", "test-forgotten")
"""Subsets whose penultimate features are recorded on erase boards: what the linear probe reads."""


class ReferenceManifest(Record):
    """What a pack holds: enough to score any run of its task, without the images."""

    schema_version: Literal[1] = SCHEMA
    """Version of this format."""
    protocol: int
    """Version of the protocol."""
    task: Name
    """Name of the task."""
    task_key: Hash
    """Hash of all that shapes the task's models."""
    definition: dict[str, Any]
    """The task, whole, as its TOML file has it."""
    title: Text
    """The task in words."""
    track: Literal["match-oracle", "erase"]
    """What the task asks for."""
    scenario: Name
    """Name of the scenario."""
    attributes: bool
    """Whether labels are binary attributes (sigmoid for each) rather than classes."""
    classes: tuple[str, ...]
    """Names of the classes or attributes."""
    image_set: dict[str, str]
    """Name, title, license, homepage and SHA-256 of the image set."""
    features: int = 0
    """Penultimate features that are recorded beside the logits (erase boards); 0 where none are."""
    requests: int = 0
    """Requests of a stream, whose rows ``requests-d<draw>.npz`` numbers; 0 where the task is none."""
    draws: int
    """Number of forget sets."""
    seeds: int
    """Number of originals, of reference oracles and of control oracles."""
    counts: dict[str, dict[str, int]]
    """Draw -> subset -> number of rows."""
    index_hashes: dict[str, dict[str, Hash]]
    """Draw -> subset -> SHA-256 of its row numbers."""
    originals: tuple[Hash, ...]
    """SHA-256 of each original's weights."""
    retrain_flops: float | None = None
    """FLOPs of training one oracle."""
    environment: dict[str, str] = Field(default={})
    """Where the models were trained."""
    files: dict[str, Hash]
    """SHA-256 of every other file of the pack."""


class AuditVerdict(Record):
    """What an audit found of the metrics of a pack: those that are out of place are shown, and rank nothing."""

    schema_version: Literal[1] = SCHEMA
    """Version of this format."""
    task: Name
    """Name of the task."""
    task_key: Hash
    """Hash of all that shapes the task's models."""
    pack: Hash
    """Digest of the pack that was audited, as it is without a verdict: of no other is anything said."""
    code: Hash
    """Hash of the scoring code that audited it."""
    unfit: dict[Name, Text]
    """Ranking metric -> what was out of place, in words; empty where all of them are fit to rank."""


@dataclass(frozen=True, eq=False)
class ReferenceBundle:
    """What a task's runs are scored against."""

    folder: Path
    card: ReferenceManifest

    @property
    def digest(self) -> str:
        """SHA-256 that changes with any file of the pack."""
        return digest(self.card.model_dump(mode="json"))

    @property
    def unaudited(self) -> ReferenceBundle:
        """The same pack without a verdict: what an audit judges, so that it finds the same again."""
        files = {name: sha for name, sha in self.card.files.items() if name != VERDICT}
        return replace(self, card=self.card.model_copy(update={"files": files}))

    @cached_property
    def unfit(self) -> dict[str, str]:
        """Metrics that rank nothing here, since an audit found them out of place -> what was.

        Raises:
            ForgetBenchError: The verdict is of another pack.
        """
        if VERDICT not in self.card.files:
            return {}
        verdict = AuditVerdict.model_validate_json((self.folder / VERDICT).read_bytes())
        if verdict.pack != self.unaudited.digest:
            raise ForgetBenchError(
                f"{self.folder / VERDICT} is the audit of another pack; `forgetbench audit {self.card.task}` makes "
                "one of this."
            )
        return dict(verdict.unfit)

    @cached_property
    def labels(self) -> list[dict[str, Array]]:
        """For each draw, subset -> the labels that count there: int64 (n,) or (n, A)."""
        return self._lists("labels")

    @cached_property
    def requests(self) -> list[dict[str, Array]]:
        """Of a stream, for each draw: subset -> for each row the request that took it away, (n,)."""
        return self._lists("requests") if self.card.requests else []

    def _lists(self, name: str) -> list[dict[str, Array]]:
        found = []
        for draw in range(self.card.draws):
            with np.load(self.folder / f"{name}-d{draw}.npz", allow_pickle=False) as file:
                found.append({subset: file[subset] for subset in file.files})
        return found

    def shapes(self, draw: int) -> dict[str, tuple[int, int]]:
        """Array -> the shape that it has in every evidence file: logits, and features where they are recorded."""
        counts = self.card.counts[str(draw)]
        shapes = {name: (rows, len(self.card.classes)) for name, rows in counts.items()}
        if self.card.features:
            shapes |= {FEATURES + name: (counts[name], self.card.features) for name in PROBED if name in counts}
        return shapes

    def population(self, role: Literal["originals", "references", "controls"]) -> list[Logits]:
        """For each draw, subset -> float64 logits (S, n, K) of the originals or of one set of oracles."""
        return [
            stack([read_arrays(self.folder / role / f"d{draw}-s{seed}.npz") for seed in range(self.card.seeds)])
            for draw in range(self.card.draws)
        ]


def read_pack(folder: Path, *, verify: bool = True) -> ReferenceBundle:
    """Read a pack, and check the hash of every file in it.

    Raises:
        UsageError: There is none in that folder.
        ForgetBenchError: A file is missing or damaged.
    """
    path = folder / PACK
    if not path.is_file():
        raise UsageError(f"{folder} holds no pack: {PACK} is missing. `forgetbench pack build TASK` makes one.")
    try:
        card = ReferenceManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(f"{path} is not a pack of this version: {validation_message(error)}") from error
    if verify:
        for name, sha in card.files.items():
            if not re.fullmatch(r"([a-z]+/)?[\w.-]+", name):
                raise ForgetBenchError(f"{path} names a file outside the pack: {name!r}")
            if not (folder / name).is_file() or file_digest(folder / name) != sha:
                raise ForgetBenchError(f"{folder / name} is missing or damaged; build or fetch the pack again.")
    return ReferenceBundle(folder, card)


def write_pack(folder: Path, card: Mapping[str, Any]) -> ReferenceManifest:
    """Write ``pack.json`` for the files that already lie in the folder; ``files`` is filled in here."""
    files = {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != PACK
    }
    full = ReferenceManifest.model_validate({**card, "files": files})
    write_atomically(folder / PACK, canonical_json(full.model_dump(mode="json")))
    return full


def with_verdict(pack: ReferenceBundle, verdict: AuditVerdict | None) -> ReferenceBundle:
    """Put a verdict into a pack's folder, so that whoever scores against it knows what ranks.

    One that is of another pack, or finds nothing out of place, leaves the pack without any.
    """
    bare = pack.unaudited
    path = pack.folder / VERDICT
    if verdict is None or verdict.pack != bare.digest or not verdict.unfit:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, canonical_json(verdict.model_dump(mode="json")))
    card = write_pack(pack.folder, bare.card.model_dump(mode="json"))
    return ReferenceBundle(pack.folder, card)


def check_run(run: Run, pack: ReferenceBundle, unread: Collection[str] = ()) -> list[str]:
    """Everything that is wrong with a run as evidence for a pack's task, one sentence each; empty when all is well.

    The manifest is checked first (task, index lists, originals, one record for each draw and seed), then every file of
    unlearned models and of a method's own originals. A run of another task is asked nothing more.

    Args:
        run: The run.
        pack: The pack.
        unread: Files that are left out: what is wrong with them is known.
    """
    manifest, card = run.manifest, pack.card
    if manifest.task != card.task:
        return [f"the evidence is of task {manifest.task!r}, this board is {card.task!r}"]
    problems = _check_manifest(manifest, card)
    seen: dict[str, str] = {}
    for model in manifest.evidence:
        if model.file in unread or str(model.draw) not in card.counts:
            continue
        expected = pack.shapes(model.draw)
        if {name: array.shape for name, array in model.arrays.items()} != expected:
            problems.append(f"{model.file}: the arrays must be {expected}")
            continue
        try:
            arrays = run.answers(model)
        except ForgetBenchError as error:
            problems.append(str(error))
            continue
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
                problems.append(f"{model.file}: {name}, row {row} is not finite: the model diverged")
            elif np.abs(array).max(initial=0) > CLIP:
                problems.append(
                    f"{model.file}: {name} exceeds {CLIP:g}; write evidence with forgetbench.evidence.arrays.encode"
                )
        if model in manifest.originals:  # a method that does nothing answers as its original does
            continue
        twin = seen.setdefault(model.arrays["forget"].sha256 + model.arrays["test"].sha256, model.file)
        if twin != model.file:
            problems.append(f"{model.file} holds the same answers as {twin}: every seed needs a model of its own")
    return problems


def _check_manifest(manifest: Manifest, card: ReferenceManifest) -> list[str]:
    problems = []
    if manifest.protocol != card.protocol:
        problems.append(f"the evidence follows protocol {manifest.protocol}, this board protocol {card.protocol}")
    elif manifest.task_key != card.task_key:
        problems.append(f"the evidence is of another definition of {card.task!r} (task key {manifest.task_key[:12]}…)")
    if manifest.status != "ok":
        problems.append(f"the run did not complete ({manifest.status}): {manifest.reason}")
    for draw in range(card.draws):
        theirs, ours = manifest.index_hashes.get(str(draw), {}), card.index_hashes[str(draw)]
        different = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
        if different:
            problems.append(f"draw {draw}: other rows than this board's in {', '.join(different)}")
    problems += _check_coverage("evidence", manifest.models, card)
    if manifest.method.changes_training:
        return problems + _check_own_originals(manifest, card)
    if manifest.originals:
        problems.append("it holds originals of its own, and its method does not change original training")
    foreign = sorted(
        model.seed
        for model in manifest.models
        if model.seed < card.seeds and model.original != card.originals[model.seed]
    )
    if foreign:
        problems.append(
            f"the models of seeds {sorted(set(foreign))} were not unlearned from this board's originals; fetch "
            f"those with `forgetbench pack pull {card.task} --server URL` and run again"
        )
    return problems


def _check_own_originals(manifest: Manifest, card: ReferenceManifest) -> list[str]:
    """The originals that a method trained for itself: one for each draw and seed, and the models came from them."""
    problems = _check_coverage("the answers of an original of its own", manifest.originals, card)
    owners: dict[str, int] = {}
    for record in manifest.originals:
        if owners.setdefault(record.weights, record.seed) != record.seed:
            problems.append(f"{record.file} is the original of seed {owners[record.weights]} again")
    weights = {(record.draw, record.seed): record.weights for record in manifest.originals}
    problems += [
        f"{model.file} was not unlearned from the original of seed {model.seed} that the run holds"
        for model in manifest.models
        if weights.get((model.draw, model.seed), model.original) != model.original
    ]
    return problems


def _check_coverage(what: str, records: Sequence[AnswersRecord], card: ReferenceManifest) -> list[str]:
    wanted = {(draw, seed) for draw in range(card.draws) for seed in range(card.seeds)}
    given = [(record.draw, record.seed) for record in records]
    if len(given) == len(set(given)) and set(given) == wanted:
        return []
    return [
        f"{what} is needed for each of {card.draws} draws x {card.seeds} seeds exactly once; "
        f"missing: {sorted(wanted - set(given)) or 'none'}, not asked for: {sorted(set(given) - wanted) or 'none'}"
    ]
