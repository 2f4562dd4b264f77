"""A tiny task, made of numbers: three classes, six seeds, and methods that are mixtures of originals and oracles."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from forgetbench.evidence import (
    MANIFEST,
    CostRecord,
    Manifest,
    MethodRecord,
    ModelRecord,
    describe,
    encode,
    index_digest,
    read_manifest,
    write_arrays,
    write_manifest,
)
from forgetbench.leaderboard.app import create_app
from forgetbench.leaderboard.database import Database
from forgetbench.leaderboard.server import create_token, install_pack
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.worker import Worker
from forgetbench.packs import Pack, read_pack, write_pack
from forgetbench.store import digest

SEEDS, CLASSES = 6, 3
COUNTS = {"forget": 60, "retain": 80, "validation": 40, "test": 90}
TASK = "tiny/cnn/random-10"


class World:
    """Logits of a made-up task: models share what is hard about an example, and differ by noise."""

    def __init__(self, task: str = TASK, seed: int = 7) -> None:
        generator = np.random.default_rng(seed)
        self.task, self.seed = task, seed
        self.labels = {name: generator.integers(0, CLASSES, count) for name, count in COUNTS.items()}
        self.ease = {name: generator.normal(1.2, 1.0, count) for name, count in COUNTS.items()}

    def model(self, number: int, *, memory: float = 0.0, damage: float = 0.0) -> dict[str, np.ndarray]:
        """Evidence of one model: ``memory`` adds to the right logit of forgotten rows, ``damage`` takes from test."""
        generator = np.random.default_rng([self.seed, number])
        found = {}
        for name, labels in self.labels.items():
            logits = generator.normal(0, 0.7, (len(labels), CLASSES))
            shift = memory if name == "forget" else 2.0 if name == "retain" else -damage
            logits[np.arange(len(labels)), labels] += self.ease[name] + shift
            found[name] = encode(logits, attributes=False)
        return found

    def original(self, seed: int) -> str:
        return digest({"original": [self.task, seed]})

    def index_hashes(self) -> dict[str, dict[str, str]]:
        return {"0": {name: index_digest(np.arange(count)) for name, count in COUNTS.items()}}

    def write_pack(self, folder: Path, **changes: Any) -> Path:
        folder.mkdir(parents=True)
        np.savez(folder / "labels-d0.npz", **self.labels)
        for start, role, memory in ((0, "originals", 2.0), (100, "references", 0.0), (200, "controls", 0.0)):
            (folder / role).mkdir()
            for seed in range(SEEDS):
                write_arrays(folder / role / f"d0-s{seed}.npz", self.model(start + seed, memory=memory))
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
                "classes": ["circle", "square", "triangle"],
                "image_set": {"name": "tiny", "title": "Tiny shapes", "licence": "CC0-1.0"},
                "draws": 1,
                "seeds": SEEDS,
                "counts": {"0": COUNTS},
                "index_hashes": self.index_hashes(),
                "originals": [self.original(seed) for seed in range(SEEDS)],
                "retrain_flops": 1e12,
                "environment": {"torch": "2.15.0"},
                **changes,
            },
        )
        return folder

    def write_run(self, folder: Path, name: str = "scrub", **changes: Any) -> Path:
        """A run of a method; ``start``, ``memory`` and ``damage`` say what its models are like."""
        folder.mkdir(parents=True)
        start, memory, damage = (
            changes.pop(key, value) for key, value in (("start", 300), ("memory", 0.0), ("damage", 0.0))
        )
        models = []
        for seed in range(SEEDS):
            arrays = self.model(start + seed, memory=memory, damage=damage)
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
        method = {
            "name": name,
            "title": f"{name.title()} unlearning",
            "family": "teacher",
            "needs": ("forget", "retain"),
            "parameters": {"epochs": 5, "lr": 0.01},
            "source_sha256": digest({"source": name}),
            **changes.pop("method", {}),
        }
        fields: dict[str, Any] = {
            "protocol": 1,
            "task": self.task,
            "task_key": digest({"task": self.task}),
            "method": MethodRecord(**method),
            "draws": 1,
            "seeds": SEEDS,
            "index_hashes": self.index_hashes(),
            "models": tuple(models),
            "cost": CostRecord(flops=4e10, retrain_flops=1e12, seconds=1.5, retrain_seconds=60.0),
            "environment": {"torch": "2.15.0", "python": "3.11.7", "commit": "0123abc"},
            "command": f"forgetbench run {self.task} --method {name}",
            "created": "2026-11-20T10:00:00+00:00",
            **changes,
        }
        write_manifest(folder, Manifest(**fields))
        return folder


def zip_of(folder: Path) -> bytes:
    """The body of a submission."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return body.getvalue()


class Site:
    """A server in this process, with its worker at hand."""

    def __init__(self, settings: Settings, world: World) -> None:
        self.settings, self.world = settings, world
        self.database = Database(settings.database)
        self.worker = Worker(settings, self.database)
        self.client: TestClient = TestClient(create_app(settings), base_url="http://127.0.0.1:8000")

    def token(self, *scopes: str, name: str = "Ada Lovelace") -> dict[str, str]:
        """Headers that bear a fresh token."""
        return {"Authorization": f"Bearer {create_token(self.settings, name, scopes or ('submit',))}"}

    def post(self, body: bytes | Path, headers: dict[str, str], **params: Any) -> Any:
        """Submit a folder or a body."""
        content = zip_of(body) if isinstance(body, Path) else body
        typed = {"Content-Type": "application/zip", **headers}
        return self.client.post("/api/v1/submissions", content=content, headers=typed, params=params)

    def work(self) -> int:
        """Let the worker do all that waits."""
        return self.worker.drain()


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def tiny_pack(world: World, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return read_pack(world.write_pack(tmp_path_factory.mktemp("packs") / "tiny"))


@pytest.fixture(scope="session")
def prepared(world: World, tiny_pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's folder with the tiny board and its reference rows scored: made once, copied for each test."""
    folder = tmp_path_factory.mktemp("prepared") / "server"
    settings = Settings(server_folder=folder)
    install_pack(settings, tiny_pack.folder)
    site = Site(settings, world)
    site.work()
    site.database.close()
    return folder


@pytest.fixture
def make_settings(tmp_path: Path, database_url: str) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        return Settings(server_folder=tmp_path / "server", database_url=database_url, **changes)

    return make


@pytest.fixture
def database_url() -> str:
    """Empty: a SQLite file in the server's folder."""
    return ""


@pytest.fixture
def site(make_settings: Callable[..., Settings], world: World, tiny_pack: Pack, prepared: Path) -> Iterator[Site]:
    """A server with the tiny board, its reference rows scored."""
    settings = make_settings()
    if settings.database_url:
        shutil.copytree(prepared / "packs", settings.packs)  # with the bands, which take longest
        install_pack(settings, tiny_pack.folder)
    else:
        shutil.copytree(prepared, settings.server_folder)
    found = Site(settings, world)
    with found.client:
        found.work()
        yield found
    found.database.close()


@pytest.fixture
def change_manifest() -> Callable[[Path, Callable[[dict[str, Any]], None]], Path]:
    def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        edit(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))
        return folder

    return change


__all__ = ["World", "read_manifest"]
