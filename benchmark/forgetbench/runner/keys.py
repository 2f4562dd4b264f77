"""Cache keys: everything that shapes an artifact, whose hash is its address in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

from forgetbench.evidence.arrays import index_digest
from forgetbench.evidence.reference import PROBED
from forgetbench.fingerprints import fingerprint, module_fingerprint
from forgetbench.runner.attack_spec import AttackSpec
from forgetbench.runner.data import TaskData
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.store import JsonObject

Role = Literal["original", "reference", "control", "partial", "audit"]
"""What a model is trained for: to unlearn from, or one of separate sets of oracles.

Reference, control and audit oracles are trained on the retain set. Partial ones, which only tasks of correction have,
are trained without the part of the harmful rows that was found: on what methods receive as retained.
"""
CacheKey = JsonObject
"""All that shapes an artifact, ready for JSON."""


class CacheKeys:
    """The cache keys of a task's artifacts.

    A trained model depends on the training images and the training code alone; predictions and unlearned models depend
    on all images and on the prediction code too.
    """

    def __init__(self, data: TaskData) -> None:
        self._data = data

    def model(self, role: Role, draw: int, seed: int, trainer: MethodSpec | None = None) -> CacheKey:
        """The key of an original or an oracle; originals are the same for all draws.

        Args:
            role: What the model is trained for.
            draw: The forget set that an oracle is trained without.
            seed: Position in the population.
            trainer: The method whose loss trains its own originals; None is the ordinary loss.
        """
        data = self._data
        facts: JsonObject = {
            "role": role,
            "seed": seed,
            "labels": data.labels_hash(draw),
            "network": {**asdict(data.network_spec), **data.task.network.shaping()},
        }
        if role != "original":
            facts |= {"draw": draw, "retain": index_digest(data.oracle_rows(role, draw))}
            if (seal := data.task.seal) is not None:
                facts["seal"] = [seal.draws, seal.fingerprint]
        if trainer is not None:
            facts["loss"] = trainer.training_identity()
        return self._key("model", facts)

    def predictions(self, weights: str, draw: int) -> CacheKey:
        """The key of the predictions of an original or an oracle, whose weights have this SHA-256."""
        return self._key("predictions", {"weights": weights, "query": self.query_spec(draw)})

    def imported(self, weights: str, original: str, draw: int) -> CacheKey:
        """The key of the predictions of a checkpoint that was unlearned elsewhere."""
        facts = {"weights": weights, "original": original, "draw": draw, "query": self.query_spec(draw)}
        return self._key("imported", facts)

    def unlearned(
        self,
        spec: MethodSpec,
        original: str,
        draw: int,
        seed: int,
        previous: Sequence[str],
        source: str | None,
        *,
        recalibrated: bool = True,
    ) -> CacheKey:
        """The key of an unlearned model and its predictions.

        Args:
            spec: The method.
            original: SHA-256 of the original's weights.
            draw: The forget set.
            seed: The original's position.
            previous: Keys of the models after the earlier requests of a stream.
            source: SHA-256 of the weights that the last of them left; None for the first request.
            recalibrated: False is the key of earlier versions, which recorded no answers after recalibration.
        """
        data = self._data
        facts: JsonObject = {"original": original, "method": spec.identity(), "draw": draw, "seed": seed}
        requests = len(data.steps(draw))
        if data.task.method_seeds:
            facts["method_seeds"] = data.task.method_seeds
        if requests > 1:
            facts["after"] = list(previous)
        if source is not None:
            facts["from"] = source
        last = len(previous) == requests - 1
        facts |= {
            "split": data.split(draw).sha256,
            "query": self.query_spec(draw, last=last, recalibrated=recalibrated),
        }
        return self._key("unlearned", facts)

    def labels(self, draw: int) -> CacheKey:
        """The key of the labels and row numbers of a draw."""
        return self._key("labels", {"rows": self._data.row_hashes(draw), "labels": self._data.labels_hash(draw)})

    def flops(self, facts: Mapping[str, Any]) -> CacheKey:
        """The key of a count of floating-point operations."""
        return self._key("flops", {**facts, "retain": self._data.row_hashes(0)["retain"]})

    def attacked(self, spec: AttackSpec, weights: str, original: str, draw: int, seed: int) -> CacheKey:
        """The key of a model's answers after an attack.

        Args:
            spec: The attack.
            weights: SHA-256 of the model's weights.
            original: SHA-256 of the weights of the original that it was unlearned from.
            draw: The forget set.
            seed: The original's position.
        """
        facts: JsonObject = {"attack": spec.identity(), "weights": weights, "seed": seed, "draw": draw}
        if "original" in spec.kind.card.holds:
            facts["original"] = original
        rows, split = self._data.row_hashes(draw), self._data.split(draw)
        return self._key("attacked", {**facts, "rows": rows, "split": split.sha256})

    def study(self) -> CacheKey:
        """What of a task shapes a study of hyper-parameters."""
        return self._key("study", {})

    def query_spec(self, draw: int, *, last: bool = True, recalibrated: bool = True) -> JsonObject:
        """What a model is evaluated on: rows, and the subsets of which features or answers after a change are recorded.

        Args:
            draw: Whose rows.
            last: False for a model of a stream before the last request, which answers only once and without features.
            recalibrated: False is what earlier versions recorded.
        """
        query: JsonObject = {
            "rows": self._data.row_hashes(draw),
            "features": list(PROBED) if last and self._data.probed else [],
            "attributes": self._data.attributes,
        }
        if last and recalibrated and self._data.has_batch_norm:
            # the whole retain set, of which the rows have a sample
            query["recalibrated"] = {
                "subsets": self._data.retested(draw),
                "on": index_digest(self._data.split(draw).given),
            }
        return query

    def _key(self, kind: str, facts: Mapping[str, Any]) -> CacheKey:
        data, only_training = self._data, kind == "model"
        return {
            "kind": kind,
            "task": data.task.key,
            "name": data.task.name,
            "images": data.partition.train.sha256 if only_training else data.partition.sha256,
            "device": data.device.type,
            "precision": data.precision,
            "torch": library_version("torch"),
            "timm": library_version("timm"),
            "components": self._components(predicts=not only_training),
            **facts,
        }

    def _components(self, *, predicts: bool) -> dict[str, str]:
        from forgetbench.networks.base import source_modules

        network = self._data.task.network
        prints = {name: fingerprint(name) for name in ("training", *(("prediction",) if predicts else ()))}
        if self._data.attributes:
            prints["attributes"] = "mean"  # the loss was their sum once; tasks with classes keep their keys
        return prints | {name: module_fingerprint(name) for name in source_modules(network.name, network.options)}


@cache
def library_version(library: str) -> str:
    """A library's version without how it was built; from its metadata, since importing it takes seconds."""
    return version(library).split("+")[0]
