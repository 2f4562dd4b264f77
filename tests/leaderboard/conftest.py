"""A tiny task, made of numbers: three classes, six seeds, and methods that are mixtures of originals and oracles."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from forgetbench.evidence.arrays import encode, index_digest, write_arrays
from forgetbench.evidence.reference import ReferenceBundle, read_pack, write_pack
from forgetbench.evidence.run import (
    MANIFEST,
    CostRecord,
    Manifest,
    MethodRecord,
    ModelRecord,
    OriginalRecord,
    describe,
    read_manifest,
    write_manifest,
)
from forgetbench.leaderboard.admin import create_token, install_bundle
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web.app import create_app
from forgetbench.leaderboard.worker.worker import Worker
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
                "image_set": {"name": "tiny", "title": "Tiny shapes", "license": "CC0-1.0"},
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
        """A run; ``start``, ``memory``, ``damage``: what its models are; ``own``: number of its first own original."""
        folder.mkdir(parents=True)
        start, memory, damage = (
            changes.pop(key, value) for key, value in (("start", 300), ("memory", 0.0), ("damage", 0.0))
        )
        own = changes.pop("own", None)
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
        originals = [self.write_original(folder, own + seed, seed) for seed in range(SEEDS)] if own else []
        if own:
            models = [
                model.model_copy(update={"original": record.weights})
                for model, record in zip(models, originals, strict=True)
            ]
        method = {
            "name": name,
            "changes_training": bool(own),
            "title": f"{name.title()} unlearning",
            "family": "teacher",
            "needs": ("forget", "retain"),
            "parameters": {"epochs": 5, "lr": 0.01},
            "fingerprint": digest({"source": name}),
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
        """An original that a method trained for itself."""
        arrays, file = self.model(number, memory=2.0), f"originals/d0-s{seed}.npz"
        (folder / "originals").mkdir(exist_ok=True)
        write_arrays(folder / file, arrays)
        return OriginalRecord(draw=0, seed=seed, file=file, weights=digest({"own": number}), arrays=describe(arrays))


def zip_of(folder: Path) -> bytes:
    """The body of a submission."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(folder).as_posix())
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
def tiny_pack(world: World, tmp_path_factory: pytest.TempPathFactory) -> ReferenceBundle:
    return read_pack(world.write_pack(tmp_path_factory.mktemp("packs") / "tiny"))


class Cluster:
    """A PostgreSQL server of our own, in a temporary folder; as root it runs as the user postgres."""

    def __init__(self) -> None:
        self.programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
        self.user = "postgres" if os.geteuid() == 0 else None
        memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes the folder private, and a socket's path must be short
        self.folder = Path(tempfile.mkdtemp(prefix="forgetbench-pg-", dir=memory if memory.is_dir() else None))
        if self.user:
            shutil.chown(self.folder, self.user)

    def start(self) -> Cluster:
        data = self.folder / "data"
        self._call("initdb", "-D", str(data), "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        self._run()
        return self

    def restart(self, pause: float) -> None:
        """End the server as a failure would, and start it again after some seconds."""
        self._call("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        time.sleep(pause)
        self._run()

    def _run(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=300"
        data, log = str(self.folder / "data"), str(self.folder / "log")
        self._call("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, template: str = "template1") -> str:
        """A new database, a copy of another; returns its URL."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(f"host={self.folder} user=tester dbname=postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        return f"postgresql+psycopg://tester@/{name}?host={self.folder}"

    def _call(self, program: str, *words: str) -> None:
        subprocess.run([str(self.programs / program), *words], user=self.user, check=True, stdout=subprocess.DEVNULL)


class Databases:
    """Fresh databases and copies of them: SQLite files, or databases of a PostgreSQL server."""

    def __init__(self, cluster: Cluster | None) -> None:
        self.cluster = cluster

    def fresh(self) -> str:
        return self.cluster.create() if self.cluster else ""

    def copy(self, settings: Settings, folder: Path) -> Settings:
        """A copy of a whole server: its folder and its database."""
        shutil.copytree(settings.server_folder, folder)
        url = self.cluster.create(str(make_url(settings.database_url).database)) if self.cluster else ""
        return Settings(server_folder=folder, database_url=url)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """SQLite, or with FORGETBENCH_TEST_DATABASE=postgresql a PostgreSQL server that is started here."""
    if os.environ.get("FORGETBENCH_TEST_DATABASE", "sqlite") == "sqlite":
        yield Databases(None)
        return
    cluster = Cluster().start()
    yield Databases(cluster)
    cluster.stop()


@pytest.fixture
def new_cluster() -> Callable[[], AbstractContextManager[Cluster]]:
    """A PostgreSQL server for one test alone, whatever database the others use."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("PostgreSQL is not installed")

    @contextmanager
    def make() -> Iterator[Cluster]:
        cluster = Cluster().start()
        try:
            yield cluster
        finally:
            cluster.stop()

    return make


def settled(settings: Settings, world: World, fill: Callable[[Site], None] | None = None) -> Settings:
    """A server on which everything is scored, closed again."""
    site = Site(settings, world)
    if fill is not None:
        with site.client:
            fill(site)
    site.work()
    site.database.close()
    return settings


@pytest.fixture(scope="session")
def prepared(
    world: World, tiny_pack: ReferenceBundle, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """A server with the tiny board and its reference rows scored: made once, copied for each test."""
    settings = Settings(server_folder=tmp_path_factory.mktemp("prepared") / "server", database_url=databases.fresh())
    install_bundle(settings, tiny_pack.folder)
    return settled(settings, world)


FULL = {
    "alpha": {
        "memory": 0.1,
        "method": {"family": "ascent", "needs": ("retain",), "parameters": {"epochs": 0, "lr": 0.01}},
    },
    "beta": {"memory": 0.05, "method": {"family": "teacher", "needs": ("forget",)}},
    "gamma": {"memory": 2.0, "method": {"family": "ascent", "needs": ("retain",)}},
    "delta": {"memory": 0.2, "damage": 4.0, "method": {"family": "teacher", "needs": ("forget",)}},
    "=HYPERLINK(1)|x_$": {
        "memory": 0.5,
        "cost": CostRecord(),
        "method": {"name": "live+1", "label": "=HYPERLINK(1)|x_$", "family": "=SUM(1)", "needs": ("retain",)},
    },
}
"""Rows of the full board: two good ones, one far off, one collapsed, one without a cost and with a live name."""


@pytest.fixture(scope="session")
def prepared_full(
    prepared: Settings, world: World, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    def fill(site: Site) -> None:
        headers = site.token()
        for place, (name, changes) in enumerate(FULL.items()):
            cost = CostRecord(flops=(place + 1) * 1e10, retrain_flops=1e12)
            folder = world.write_run(runs / str(place), name, start=300 + 20 * place, **{"cost": cost, **changes})
            assert site.post(folder, headers).status_code == 202

    runs = tmp_path_factory.mktemp("full")
    return settled(databases.copy(prepared, runs / "server"), world, fill)


@pytest.fixture
def make_settings(tmp_path: Path, databases: Databases) -> Callable[..., Settings]:
    """Settings of an empty server."""

    def make(**changes: Any) -> Settings:
        return Settings(server_folder=tmp_path / "server", database_url=databases.fresh(), **changes)

    return make


def opened(settings: Settings, world: World) -> Iterator[Site]:
    found = Site(settings, world)
    with found.client:
        yield found
    found.database.close()


@pytest.fixture
def site(databases: Databases, world: World, prepared: Settings, tmp_path: Path) -> Iterator[Site]:
    """A server with the tiny board, its reference rows scored; each test has its own."""
    yield from opened(databases.copy(prepared, tmp_path / "server"), world)


@pytest.fixture
def full_site(databases: Databases, world: World, prepared_full: Settings, tmp_path: Path) -> Iterator[Site]:
    """A server with a full board; each test has its own."""
    yield from opened(databases.copy(prepared_full, tmp_path / "server"), world)


@pytest.fixture(scope="module")
def full(
    databases: Databases, world: World, prepared_full: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A server with a full board, for tests that only read."""
    yield from opened(databases.copy(prepared_full, tmp_path_factory.mktemp("reading") / "server"), world)


@pytest.fixture
def over(request: pytest.FixtureRequest) -> httpx2.BaseTransport:
    """The network: straight into the application of the test's server."""
    name = "full_site" if "full_site" in request.fixturenames else "site"
    found: Site = request.getfixturevalue(name)

    class Straight(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return found.client._transport.handle_request(request)  # type: ignore[return-value, arg-type]

    return Straight()


@pytest.fixture
def change_manifest() -> Callable[[Path, Callable[[dict[str, Any]], None]], Path]:
    def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        edit(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))
        return folder

    return change


__all__ = ["World", "read_manifest"]
