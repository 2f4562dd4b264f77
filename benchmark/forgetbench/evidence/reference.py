"""The reference bundle ("pack"): what every run of a task is scored against, in one folder.

It contains ``pack.json``, the labels of every list of rows, and the predictions of the originals, the reference oracles
and the control oracles. Local scoring and the server read the same bundle, and so compute the same scores, bit by bit.
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
from forgetbench.evidence.arrays import (
    CLIP,
    FEATURES,
    RECALIBRATED,
    RETESTED,
    UNREADABLE,
    Array,
    Logits,
    first_line,
    load_arrays,
    read_arrays,
    retested,
    stack,
)
from forgetbench.evidence.display import DISPLAY
from forgetbench.evidence.probabilities import describe_evidence
from forgetbench.evidence.run import (
    EARLIER_SCHEMA,
    AnswersRecord,
    Hash,
    Manifest,
    Name,
    Record,
    Run,
    Schema,
    Text,
)
from forgetbench.store import canonical_json, digest, file_digest, write_atomically

PACK = "pack.json"
PUBLIC_FILES = re.compile(r"pack\.json|(originals|models)/[\w.-]+|(rows|index|indices)-d\d+\.npz")
"""Files of a pack that a server gives to submitters: never labels, groups, or an oracle's evidence."""
AUDIT = "audit.json"
"""The result of an audit. It is part of the bundle only if metrics failed, since that makes another board."""
BUNDLE_FILES = re.compile(
    r"pack\.json|audit\.json|(originals|references|controls|partials|models)/[\w.-]+"
    r"|(rows|requests|labels)-d\d+\.npz"
)
"""All files of a bundle, which a server gives away of a development bundle."""
BundleKind = Literal["local", "public", "sealed", "development"]
"""What a bundle is for.

``local``: made on this machine, from seeds that derive from the task's public name. A server's sealed board has three
others: ``public`` draws with hidden oracles, ``sealed`` draws of which everything is hidden, and a ``development``
bundle with seeds of its own, of which everything is public.
"""
_BUILD_AGAIN = "Build or fetch the bundle again."
PROBED = ("forget", "retain", "validation", "test-forgotten")
"""Subsets whose penultimate features are recorded on erase boards, for the linear probe."""


TRIGGERED = "test-triggered"
"""Subset of test images on which harmful training data shows: they bear the trigger of a poison, or are of classes that
are confused. Only tasks of correction have it."""
TARGETS = "targets:"
"""Prefix of the array, next to the labels, with the classes that harmful data makes models answer on a subset."""
PopulationRole = Literal["originals", "references", "controls", "partials"]
"""A set of models in a bundle. Partial oracles are trained without the part of harmful rows that was found."""


class ReferenceManifest(Record):
    """The manifest of a reference bundle: enough to score any run of its task, without the images."""

    schema_version: Schema = EARLIER_SCHEMA
    """Version of this format."""
    protocol: int
    """Version of the protocol when it was written; scores follow the scoring code's version."""
    kind: BundleKind = "local"
    """What the bundle is for."""
    task: Name
    """Name of the task."""
    task_key: Hash
    """Hash of all that shapes the task's models."""
    definition: dict[str, Any]
    """The full definition of the task, as in its TOML file."""
    title: Text
    """The task in words."""
    track: Literal["match-oracle", "erase", "corrective"]
    """What a good method does."""
    scenario: Name
    """Name of the scenario."""
    attributes: bool
    """Whether labels are binary attributes (sigmoid for each) rather than classes."""
    classes: tuple[str, ...]
    """Names of the classes or attributes."""
    image_set: dict[str, str]
    """Name, title, license, homepage and SHA-256 of the image set."""
    features: int = 0
    """Number of penultimate features that are recorded with the logits (erase boards); 0 if none are."""
    requests: int = 0
    """Number of requests of a stream, whose rows ``requests-d<draw>.npz`` numbers; 0 if the task is no stream."""
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
    """The environment in which the models were trained."""
    files: dict[str, Hash]
    """SHA-256 of every other file of the bundle; of those that a server offers, if it came from there."""

    @property
    def digest(self) -> str:
        """SHA-256 that changes with any file of the bundle."""
        content = self.model_dump(mode="json")
        if self.kind == "local":
            del content["kind"]  # bundles of earlier versions keep their digest
        return digest(content)

    @property
    def offered_files(self) -> dict[str, Hash]:
        """The files that a server gives to submitters: all of a development bundle; else no label and no oracle."""
        if self.kind == "development":
            return dict(self.files)
        if self.kind == "sealed":
            return {}
        return {name: sha for name, sha in self.files.items() if PUBLIC_FILES.fullmatch(name)}

    def as_offered(self) -> ReferenceManifest:
        """The manifest that a server gives to submitters: it names no hidden file and no hash of one."""
        return self.model_copy(update={"files": self.offered_files})


class AuditFitness(Record):
    """The fitness of a bundle's metrics by an audit: those that failed are shown and not used for ranking."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    task: Name
    """Name of the task."""
    task_key: Hash
    """Hash of all that shapes the task's models."""
    pack: Hash
    """Digest of the audited bundle, without an audit's result; the result applies to no other bundle."""
    code: Hash
    """Fingerprint of the scoring code that audited it."""
    unfit: dict[Name, Text]
    """Ranking metric -> why it failed, in words; empty if all passed."""


@dataclass(frozen=True, eq=False)
class ReferenceBundle:
    """A reference bundle on disk."""

    folder: Path
    card: ReferenceManifest

    @property
    def digest(self) -> str:
        """SHA-256 that changes with any file of the bundle."""
        return self.card.digest

    @property
    def without_audit(self) -> ReferenceBundle:
        """The same bundle without an audit's result: an audit judges it, so that a second audit has the same result."""
        files = {name: sha for name, sha in self.card.files.items() if name != AUDIT}
        return replace(self, card=self.card.model_copy(update={"files": files}))

    @cached_property
    def excluded_metrics(self) -> dict[str, str]:
        """Metrics that are not used for ranking because they failed an audit -> why.

        Raises:
            ForgetBenchError: The audit's result belongs to another bundle.
        """
        if AUDIT not in self.card.files:
            return {}
        try:
            fitness = AuditFitness.model_validate_json((self.folder / AUDIT).read_bytes())
        except (OSError, ValidationError) as error:
            raise ForgetBenchError(f"{self.folder / AUDIT} is missing or damaged. {_BUILD_AGAIN}") from error
        if fitness.pack != self.without_audit.digest:
            raise ForgetBenchError(
                f"{self.folder / AUDIT} is the audit of another bundle. Run `forgetbench audit "
                f"{self.card.task}` to audit this one."
            )
        return dict(fitness.unfit)

    @cached_property
    def labels(self) -> list[dict[str, Array]]:
        """For each draw, subset -> labels, int64 (n,) or (n, A)."""
        return self._lists("labels")

    @cached_property
    def requests(self) -> list[dict[str, Array]]:
        """For a stream and each draw: subset -> for each row the request that removed it, (n,)."""
        return self._lists("requests") if self.card.requests else []

    def _lists(self, name: str) -> list[dict[str, Array]]:
        return [self._read_lists(self.folder / f"{name}-d{draw}.npz") for draw in range(self.card.draws)]

    def _read_lists(self, path: Path) -> dict[str, Array]:
        try:
            return load_arrays(path)
        except UNREADABLE as error:
            raise ForgetBenchError(f"{path} is missing or damaged ({first_line(error)}). {_BUILD_AGAIN}") from error

    def shapes(self, draw: int) -> dict[str, tuple[int, int]]:
        """Array -> its shape in every evidence file: logits, and features if they are recorded.

        Files may also have the arrays of `retested_shapes`.

        Raises:
            ForgetBenchError: The manifest lacks the draw.
        """
        if str(draw) not in self.card.counts:
            raise ForgetBenchError(f"{self.folder / PACK} lacks the counts of draw {draw}. {_BUILD_AGAIN}")
        counts = self.card.counts[str(draw)]
        shapes = {name: (rows, len(self.card.classes)) for name, rows in counts.items()}
        if self.card.features:
            shapes |= {FEATURES + name: (counts[name], self.card.features) for name in PROBED if name in counts}
        return shapes

    def retested_shapes(self, draw: int) -> dict[str, tuple[int, int]]:
        """Array -> its shape in evidence of models that also answered after recalibration: all of them, or none."""
        counts, outputs = self.card.counts[str(draw)], len(self.card.classes)
        return {RECALIBRATED + name: (counts[name], outputs) for name in (*RETESTED, TRIGGERED) if name in counts}

    @property
    def has_partials(self) -> bool:
        """Whether there are oracles trained without the found part of harmful rows."""
        return self.card.track == "corrective"

    def population(self, role: PopulationRole) -> list[Logits]:
        """For each draw, subset -> float16 logits (S, n, K) of the originals or of one set of oracles."""
        return [
            stack([read_arrays(self.folder / role / f"d{draw}-s{seed}.npz") for seed in range(self.card.seeds)])
            for draw in range(self.card.draws)
        ]


def read_pack(folder: Path, *, verify: bool = True) -> ReferenceBundle:
    """Read a bundle and check the hash of every file in it.

    Raises:
        UsageError: The folder contains no bundle.
        ForgetBenchError: A file is missing or damaged.
    """
    path = folder / PACK
    if not path.is_file():
        raise UsageError(
            f"{folder} is not a reference bundle: {PACK} is missing. Build one with `forgetbench pack build TASK`."
        )
    try:
        card = ReferenceManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(
            f"{path} is not a reference bundle of this version: {validation_message(error)}. {_BUILD_AGAIN}"
        ) from error
    if verify:
        for name, sha in card.files.items():
            if not re.fullmatch(r"([a-z]+/)?[\w.-]+", name):
                raise ForgetBenchError(f"{path} names a file outside the bundle: {name!r}. {_BUILD_AGAIN}")
            if not (folder / name).is_file() or file_digest(folder / name) != sha:
                raise ForgetBenchError(f"{folder / name} is missing or damaged. {_BUILD_AGAIN}")
    return ReferenceBundle(folder, card)


def write_pack(folder: Path, card: Mapping[str, Any]) -> ReferenceManifest:
    """Write ``pack.json`` for the files that are already in the folder; ``files`` is computed here."""
    files = {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {PACK, DISPLAY}
    }
    full = ReferenceManifest.model_validate({**card, "files": files})
    write_atomically(folder / PACK, canonical_json(full.model_dump(mode="json")))
    return full


def with_fitness(pack: ReferenceBundle, fitness: AuditFitness | None) -> ReferenceBundle:
    """Write an audit's result into a bundle's folder, so that all who score against it rank by the same metrics.

    The result for another bundle, or one in which all metrics passed, leaves the bundle without one.
    """
    bare = pack.without_audit
    path = pack.folder / AUDIT
    if fitness is None or fitness.pack != bare.digest or not fitness.unfit:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, canonical_json(fitness.model_dump(mode="json")))
    card = write_pack(pack.folder, bare.card.model_dump(mode="json"))
    return ReferenceBundle(pack.folder, card)


_PARTIAL = "; the answers after recalibration belong into all files of a run with all subsets, or into none"


def check_run(run: Run, pack: ReferenceBundle, unread: Collection[str] = ()) -> list[str]:
    """Everything that is wrong with a run as evidence for a bundle's task, one sentence each; empty if it is valid.

    The manifest is checked first (task, index lists, originals, one record for each draw and seed), then every file of
    unlearned models and of a method's own originals. A run of another task is not checked further.

    Args:
        run: The run.
        pack: The reference bundle.
        unread: Files to skip, because their faults are known.
    """
    manifest, card = run.manifest, pack.card
    if manifest.task != card.task:
        return [f"the evidence is of task {manifest.task!r}, this board is {card.task!r}"]
    problems = _check_manifest(manifest, card)
    recalibrated = any(retested(model.arrays) for model in manifest.evidence)
    seen: dict[str, str] = {}
    kinds: list[str] = []
    for model in manifest.evidence:
        if model.file in unread or str(model.draw) not in card.counts:
            continue
        expected = pack.shapes(model.draw) | (pack.retested_shapes(model.draw) if recalibrated else {})
        if {name: array.shape for name, array in model.arrays.items()} != expected:
            problems.append(f"{model.file}: the arrays must be {expected}{_PARTIAL if recalibrated else ''}")
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
        if model in manifest.originals:  # the predictions of a method that does nothing equal those of its original
            continue
        logits = [array for name, array in arrays.items() if not name.startswith(FEATURES)]
        finite = all(np.isfinite(array).all() for array in logits)
        kinds.append(describe_evidence(logits, attributes=card.attributes) if finite else "")
        twin = seen.setdefault(model.arrays["forget"].sha256 + model.arrays["test"].sha256, model.file)
        if twin != model.file:
            problems.append(f"{model.file} contains the same predictions as {twin}: every seed needs its own model")
    if kinds and all(kinds):
        problems.append(f"the evidence contains {kinds[0]}, and make the run again")
    return problems


def _check_manifest(manifest: Manifest, card: ReferenceManifest) -> list[str]:
    problems = []
    if manifest.task_key != card.task_key:
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
        problems.append("it contains its own originals, but its method does not change original training")
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
    """Check a method's own originals: one for each draw and seed, and the models were unlearned from them."""
    problems = _check_coverage("the predictions of its own original", manifest.originals, card)
    owners: dict[str, int] = {}
    for record in manifest.originals:
        if owners.setdefault(record.weights, record.seed) != record.seed:
            problems.append(f"{record.file} repeats the original of seed {owners[record.weights]}")
    weights = {(record.draw, record.seed): record.weights for record in manifest.originals}
    problems += [
        f"{model.file} was not unlearned from the original of seed {model.seed} in the run"
        for model in manifest.models
        if weights.get((model.draw, model.seed), model.original) != model.original
    ]
    return problems


def _check_coverage(subject: str, records: Sequence[AnswersRecord], card: ReferenceManifest) -> list[str]:
    expected = {(draw, seed) for draw in range(card.draws) for seed in range(card.seeds)}
    given = [(record.draw, record.seed) for record in records]
    if len(given) == len(set(given)) and set(given) == expected:
        return []
    return [
        f"{subject} is needed for each of {card.draws} draws x {card.seeds} seeds exactly once; "
        f"missing: {sorted(expected - set(given)) or 'none'}, not expected: {sorted(set(given) - expected) or 'none'}"
    ]
