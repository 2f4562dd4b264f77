"""Fixtures of the leaderboard's tests: databases, servers with a tiny board, and their network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select
from support import skip
from support.databases import POSTGRESQL_PROGRAMS, Databases, PostgresServer
from support.leaderboard import Direct, Site, World, score_everything

from forgetbench.evidence.reference import ReferenceBundle, read_pack
from forgetbench.evidence.run import CostRecord
from forgetbench.leaderboard.admin import install_bundle
from forgetbench.leaderboard.db.models import Entry
from forgetbench.leaderboard.settings import Settings
from forgetbench.tasks import task as tasks


@pytest.fixture(scope="session")
def world() -> World:
    """The tiny task."""
    return World()


@pytest.fixture(scope="session")
def tiny_pack(world: World, tmp_path_factory: pytest.TempPathFactory) -> ReferenceBundle:
    """The reference bundle of the tiny task."""
    return read_pack(world.write_pack(tmp_path_factory.mktemp("packs") / "tiny"))


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """SQLite, or with FORGETBENCH_TEST_DATABASE=postgresql a PostgreSQL server that is started here."""
    if os.environ.get("FORGETBENCH_TEST_DATABASE", "sqlite") == "sqlite":
        yield Databases(None)
        return
    server = PostgresServer()
    server.start()
    yield Databases(server)
    server.remove()


@pytest.fixture(autouse=True)
def _few_databases(databases: Databases) -> Iterator[None]:
    """The databases of a test go with it; those of fixtures with a wider scope are older, and stay."""
    with databases.dropped_after():
        yield


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for one test, whatever database the others use."""
    if POSTGRESQL_PROGRAMS is None:
        skip("PostgreSQL is not installed")
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def prepared(
    world: World, tiny_pack: ReferenceBundle, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """A server with the tiny board and its reference rows scored: made once, copied for each test."""
    folder = tmp_path_factory.mktemp("prepared") / "server"
    settings = Settings(server_folder=folder, database_url=databases.new_url())
    install_bundle(settings, tiny_pack.folder)
    return score_everything(settings, world)


FULL_BOARD: dict[str, dict[str, Any]] = {
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
"""Rows of the full board: two good ones, a distant one, a collapsed one, and one without cost and with a formula as
its name."""


@pytest.fixture(scope="session")
def prepared_full(
    prepared: Settings, world: World, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """A server with the rows of `FULL_BOARD`, scored: made once, copied for each test."""

    def fill(site: Site) -> None:
        headers = site.token()
        for place, (name, changes) in enumerate(FULL_BOARD.items()):
            cost = CostRecord(flops=(place + 1) * 1e10, retrain_flops=1e12)
            folder = world.write_run(runs / str(place), name, start=300 + 20 * place, **{"cost": cost, **changes})
            assert site.post(folder, headers).status_code == 202

    runs = tmp_path_factory.mktemp("full")
    return score_everything(databases.copy(prepared, runs / "server"), world, fill)


@pytest.fixture
def make_settings(tmp_path: Path, databases: Databases) -> Callable[..., Settings]:
    """Makes settings of an empty server."""

    def make(**changes: Any) -> Settings:
        return Settings(server_folder=tmp_path / "server", database_url=databases.new_url(), **changes)

    return make


@pytest.fixture
def install_task(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], Settings]:
    """Adds a task, given as TOML, to the catalog; commands use a home and an empty server of the test's own."""

    def install(name: str, text: str) -> Settings:
        path = tmp_path / "catalog" / f"{name}.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        settings = make_settings()
        monkeypatch.setattr(tasks, "CATALOG", tmp_path / "catalog")
        monkeypatch.setenv("FORGETBENCH_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("FORGETBENCH_SERVER_FOLDER", str(settings.server_folder))
        monkeypatch.setenv("FORGETBENCH_DATABASE_URL", settings.database_url)
        return settings

    return install


def run_site(settings: Settings, world: World) -> Iterator[Site]:
    """A running site, closed after the test."""
    site = Site(settings, world)
    with site.client:
        yield site
    site.database.close()


@pytest.fixture
def site(databases: Databases, world: World, prepared: Settings, tmp_path: Path) -> Iterator[Site]:
    """A server with the tiny board and its reference rows scored, for one test."""
    yield from run_site(databases.copy(prepared, tmp_path / "server"), world)


@pytest.fixture
def full_site(databases: Databases, world: World, prepared_full: Settings, tmp_path: Path) -> Iterator[Site]:
    """A server with a full board, for one test."""
    yield from run_site(databases.copy(prepared_full, tmp_path / "server"), world)


@pytest.fixture(scope="module")
def full(
    databases: Databases, world: World, prepared_full: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A server with a full board, shared by tests that only read."""
    yield from run_site(databases.copy(prepared_full, tmp_path_factory.mktemp("reading") / "server"), world)


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> httpx2.BaseTransport:
    """A network that leads directly into the application of the test's site."""
    return Direct(request.getfixturevalue("full_site" if "full_site" in request.fixturenames else "site"))


@pytest.fixture
def assert_nothing_stored(site: Site) -> Callable[[], None]:
    """Asserts that the site has its two reference rows and nothing else."""

    def check() -> None:
        with site.database.read_session() as session:
            assert session.scalar(select(func.count()).select_from(Entry)) == 2
        assert not list(site.settings.evidence.iterdir())
        assert not list(site.settings.incoming.iterdir())

    return check
