"""A tiny task made of random numbers, and a leaderboard in the test's process.

The task has three classes and six seeds; its methods are mixtures of originals and oracles.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from fastapi.testclient import TestClient

from forgetbench.evidence.arrays import RECALIBRATED, RETESTED, encode, index_digest, write_arrays
from forgetbench.evidence.reference import write_pack
from forgetbench.evidence.run import (
    MANIFEST,
    CostRecord,
    Manifest,
    MethodRecord,
    ModelRecord,
    OriginalRecord,
    describe,
    write_manifest,
)
from forgetbench.fingerprints import recorded_method
from forgetbench.leaderboard.admin import create_token
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web.app import create_app
from forgetbench.leaderboard.worker.worker import Worker
from forgetbench.store import digest

TRACE = 0.7
"""Share of an original's own noise in models that were unlearned from it; the rest, sqrt(1 - TRACE**2), is theirs."""
SEEDS, CLASSES = 6, 3
COUNTS = {"forget": 60, "retain": 80, "validation": 40, "test": 90}
TASK = "tiny/cnn/random-10"
ZIP = {"Content-Type": "application/zip"}


class World:
    """Logits of a synthetic task: models share the difficulty of each example, and differ by noise."""

    def __init__(
        self,
        task: str = TASK,
        seed: int = 7,
        *,
        counts: dict[str, int] = COUNTS,
        classes: int = CLASSES,
        seeds: int = SEEDS,
    ) -> None:
        generator = np.random.default_rng(seed)
        self.task, self.seed, self.counts, self.classes, self.seeds = task, seed, counts, classes, seeds
        self.labels = {name: generator.integers(0, classes, count) for name, count in counts.items()}
        self.ease = {name: generator.normal(1.2, 1.0, count) for name, count in counts.items()}

    def model(
        self,
        number: int,
        *,
        memory: float = 0.0,
        damage: float = 0.0,
        after: float | None = None,
        origin: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Evidence of a model.

        Args:
            number: Seed of its noise.
            memory: Added to the true logit of forgotten examples.
            damage: Subtracted from the true logit of test and validation examples.
            after: The memory after recalibration; None if there are no answers after it.
            origin: Number of the original that it was unlearned from; None for a model that was trained.
        """
        changed = {} if after is None else self.model(number, memory=after, damage=damage, origin=origin)
        generator = np.random.default_rng([self.seed, number])
        traces = np.random.default_rng([self.seed, origin]) if origin is not None else None
        evidence = {}
        for name, labels in self.labels.items():
            logits = generator.normal(0, 0.7, (len(labels), self.classes))
            if traces is not None:
                logits = np.sqrt(1 - TRACE**2) * logits + TRACE * traces.normal(0, 0.7, logits.shape)
            shift = memory if name == "forget" else 2.0 if name == "retain" else -damage
            logits[np.arange(len(labels)), labels] += self.ease[name] + shift
            evidence[name] = encode(logits, attributes=False)
        return evidence | {RECALIBRATED + name: changed[name] for name in RETESTED if name in changed}

    def original(self, seed: int) -> str:
        """Hash of the weights of an original."""
        return digest({"original": [self.task, seed]})

    def index_hashes(self) -> dict[str, dict[str, str]]:
        """Hashes of the row numbers of each subset."""
        return {"0": {name: index_digest(np.arange(count)) for name, count in self.counts.items()}}

    def write_pack(self, folder: Path, *, recalibrated: bool = False, **changes: Any) -> Path:
        """Write the reference bundle, with some fields of its manifest changed."""
        folder.mkdir(parents=True)
        np.savez(folder / "labels-d0.npz", **self.labels)
        for start, role, memory in ((0, "originals", 2.0), (100, "references", 0.0), (200, "controls", 0.0)):
            (folder / role).mkdir()
            for seed in range(self.seeds):
                arrays = self.model(start + seed, memory=memory, after=memory if recalibrated else None)
                write_arrays(folder / role / f"d0-s{seed}.npz", arrays)
        write_pack(
            folder,
            {
                "protocol": 1,
                "task": self.task,
                "task_key": digest({"task": self.task}),
                "definition": {"title": "A made-up task"},
                "title": "A made-up task of three classes",
                "track": "match-oracle",
                "scenario": "random",
                "attributes": False,
                "classes": ["circle", "square", "triangle"] if self.classes == 3 else [*map(str, range(self.classes))],
                "image_set": {"name": "tiny", "title": "Tiny shapes", "license": "CC0-1.0"},
                "draws": 1,
                "seeds": self.seeds,
                "counts": {"0": self.counts},
                "index_hashes": self.index_hashes(),
                "originals": [self.original(seed) for seed in range(self.seeds)],
                "retrain_flops": 1e12,
                "environment": {"torch": "2.15.0"},
                **changes,
            },
        )
        return folder

    def write_run(
        self,
        folder: Path,
        name: str = "scrub",
        *,
        start: int = 300,
        memory: float = 0.0,
        damage: float = 0.0,
        after: float | None = None,
        own: int | None = None,
        trained: bool = False,
        method: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        """Write a run.

        Args:
            folder: Folder to create.
            name: Name of the method.
            start: Number of the first model.
            memory: See `model`.
            damage: See `model`.
            after: See `model`.
            own: Number of the first original that the method trained itself; None if it uses the board's.
            trained: Whether its models are new ones, and not unlearned from the originals.
            method: Changed fields of the method's record.
            changes: Changed fields of the manifest.
        """
        folder.mkdir(parents=True)
        models = []
        for seed in range(self.seeds):
            origin = None if trained else (own or 0) + seed
            arrays = self.model(start + seed, memory=memory, damage=damage, after=after, origin=origin)
            write_arrays(folder / f"d0-s{seed}.npz", arrays)
            models.append(
                ModelRecord(
                    draw=0,
                    seed=seed,
                    file=f"d0-s{seed}.npz",
                    original=self.original(seed),
                    arrays=describe(arrays),
                    seconds=1.5,
                    share_changed=1.0,
                )
            )
        originals = [self.write_original(folder, own + seed, seed) for seed in range(self.seeds)] if own else []
        if own:
            models = [
                model.model_copy(update={"original": record.weights})
                for model, record in zip(models, originals, strict=True)
            ]
        record: dict[str, Any] = {
            "name": name,
            "changes_training": bool(own),
            "title": f"{name.title()} unlearning",
            "family": "teacher",
            "needs": ("forget", "retain"),
            "parameters": {"epochs": 5, "lr": 0.01},
            "fingerprint": recorded_method(name) or digest({"source": name}),
            **(method or {}),
        }
        fields: dict[str, Any] = {
            "protocol": 1,
            "task": self.task,
            "task_key": digest({"task": self.task}),
            "method": MethodRecord(**record),
            "draws": 1,
            "seeds": self.seeds,
            "index_hashes": self.index_hashes(),
            "models": tuple(models),
            "originals": tuple(originals),
            "cost": CostRecord(flops=4e10, retrain_flops=1e12, seconds=1.5, retrain_seconds=60.0),
            "environment": {"torch": "2.15.0", "python": "3.11.7", "commit": "0123abc"},
            "command": f"forgetbench run {self.task} --method {name}",
            "created": "2026-11-20T10:00:00+00:00",
            **changes,
        }
        write_manifest(folder, Manifest(**fields))
        return folder

    def write_original(self, folder: Path, number: int, seed: int) -> OriginalRecord:
        """Write an original that a method trained itself."""
        arrays, file = self.model(number, memory=2.0), f"originals/d0-s{seed}.npz"
        (folder / "originals").mkdir(exist_ok=True)
        write_arrays(folder / file, arrays)
        return OriginalRecord(draw=0, seed=seed, file=file, weights=digest({"own": number}), arrays=describe(arrays))


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Change the JSON of a run's manifest in place; returns the run's folder."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    edit(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def write_fake_run(
    world: World, folder: Path, logits_of: Callable[[int, str], np.ndarray], name: str = "scrub", **changes: Any
) -> Path:
    """Write a run whose models answer ``logits_of(seed, subset)``."""
    world.write_run(folder, name, **changes)

    def replace_logits(manifest: dict[str, Any]) -> None:
        for model in manifest["models"]:
            arrays = {subset: encode(logits_of(model["seed"], subset), attributes=False) for subset in world.labels}
            write_arrays(folder / model["file"], arrays)
            model["arrays"] = {subset: record.model_dump(mode="json") for subset, record in describe(arrays).items()}

    return edit_manifest(folder, replace_logits)


def zip_of(folder: Path) -> bytes:
    """Body of a submission: all files of a folder, uncompressed."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(folder).as_posix())
    return body.getvalue()


class Site:
    """A server in this process, with a worker that runs when the test says so."""

    def __init__(self, settings: Settings, world: World | None) -> None:
        self.settings, self.world = settings, world
        self.database = Database(settings.database)
        self.worker = Worker(settings, self.database)
        self.client: TestClient = TestClient(create_app(settings), base_url="http://127.0.0.1:8000")

    def token(self, *scopes: str, name: str = "Ada Lovelace") -> dict[str, str]:
        """Headers with a new token."""
        return {"Authorization": f"Bearer {create_token(self.settings, name, scopes or ('submit',))}"}

    def post(self, body: bytes | Path, headers: dict[str, str], **params: Any) -> Any:
        """Submit a folder or a body."""
        content = zip_of(body) if isinstance(body, Path) else body
        return self.client.post("/api/v1/submissions", content=content, headers=ZIP | headers, params=params)

    def verify(self, entry_id: str, folder: Path, headers: dict[str, str]) -> Any:
        """Post a second run of an entry."""
        path = f"/api/v1/submissions/{entry_id}/verifications"
        return self.client.post(path, content=zip_of(folder), headers=ZIP | headers)

    def change_state(self, entry_id: str, state: str, headers: dict[str, str], reason: str = "because") -> Any:
        """Change the state of an entry."""
        path = f"/api/v1/submissions/{entry_id}/state"
        return self.client.post(path, json={"state": state, "reason": reason}, headers=headers)

    def entry(self, entry_id: str, headers: dict[str, str] | None = None) -> Any:
        """The document of an entry."""
        return self.client.get(f"/api/v1/entries/{entry_id}", headers=headers or {}).json()

    def work(self) -> int:
        """Run all waiting jobs; returns their number."""
        return self.worker.drain()


class Direct(httpx2.BaseTransport):
    """A network that leads directly into a site."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The site's answer."""
        return self.site.client._transport.handle_request(request)  # type: ignore[return-value, arg-type]


def score_everything(settings: Settings, world: World, fill: Callable[[Site], None] | None = None) -> Settings:
    """Fill a server and score everything on it."""
    site = Site(settings, world)
    if fill is not None:
        with site.client:
            fill(site)
    site.work()
    site.database.close()
    return settings
