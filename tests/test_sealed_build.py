"""A sealed board from training to its retired round, with models that train in a second."""

from __future__ import annotations

import json
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.leaderboard import Direct, Site

from forgetbench import evaluate
from forgetbench.cli import main
from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.reference import AuditFitness, ReferenceBundle, read_pack
from forgetbench.evidence.run import Run, read_run
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.client import http
from forgetbench.leaderboard.db.models import Board
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import downloads, reference, seals
from forgetbench.leaderboard.worker.scoring import get_scorer
from forgetbench.remote import pull
from forgetbench.remote.build import build_sealed_board
from forgetbench.remote.pull import import_originals, pull_development_bundle
from forgetbench.runner.config import RunConfig
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import run
from forgetbench.tasks import task as tasks
from forgetbench.tasks.task import NOT_THE_BOARD, Task

METHOD = "gradient-ascent"


DEFINITION = """
title = "A second of training"
seeds = 3
image_set = { name = "digits", options = { train = 200, validation = 50 } }
network = { name = "mlp", options = { hidden = [8] } }
recipe = { epochs = 3, lr = 0.1 }
scenario = { name = "random", options = { fraction = 0.2 } }
"""


@pytest.fixture(scope="module")
def task() -> Task:
    """A task whose forget set is drawn."""
    return Task.model_validate({"name": "test/mlp/random", **tomllib.loads(DEFINITION)})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A server's folder."""
    return Settings(server_folder=tmp_path_factory.mktemp("server") / "leaderboard", database_url="")


@pytest.fixture(scope="module")
def board(task: Task, settings: Settings) -> Board:
    """The sealed board."""
    return build_sealed_board(task, settings, RunConfig(device="cpu", engine="local"))


def local(home: Path) -> RunConfig:
    return RunConfig(device="cpu", engine="local", home=home)


def files(bundle: ReferenceBundle, role: str) -> set[str]:
    return {sha for name, sha in bundle.card.files.items() if name.startswith(f"{role}/")}


def test_pack_built_elsewhere_has_no_oracle_of_the_board(task, settings, board, tmp_path):
    home = evaluate([], task, config=local(tmp_path), progress=False).reference_folder
    mine, public = read_pack(home), reference.load_bundle(settings, board)
    sealed = seals.load_sealed_bundle(settings, board)
    assert mine.card.originals == public.card.originals  # the same models, which the server gives away
    assert mine.card.index_hashes == public.card.index_hashes != sealed.card.index_hashes
    for role in ("references", "controls"):
        assert len(files(mine, role) | files(public, role) | files(sealed, role)) == 9
    assert not set(sealed.card.originals) & {*public.card.originals, *mine.card.originals}
    assert board.definition == task.public()


def test_offered_development_bundle_scores_without_oracles(task, settings, board, tmp_path, monkeypatch):
    def extract(_task, _server, folder, *, pack="", kind="public"):
        with zipfile.ZipFile(downloads.public_bundle(settings, board, kind)) as archive:
            archive.extractall(folder)
        return folder

    monkeypatch.setattr(pull, "pull_bundle", extract)
    bundle = pull_development_bundle(task, "https://board.example.org", local(tmp_path))
    development = task.development().with_counts(seeds=bundle.card.seeds)
    result = evaluate(METHOD, development, config=local(tmp_path), progress=False)
    assert result.reference_folder == bundle.folder
    roles = {path.parent.name for path in bundle.folder.rglob("*.npz")}
    assert {"references", "controls"} <= roles
    models = list((tmp_path / "store").rglob("weights.safetensors"))
    assert {path.read_bytes() for path in models} == {
        path.read_bytes() for path in (bundle.folder / "models").iterdir()
    }
    assert NOT_THE_BOARD in result[METHOD].flags
    [table] = result.tables
    assert NOT_THE_BOARD in table.title
    assert NOT_THE_BOARD in table.records[0]["flags"]


@pytest.fixture(scope="module")
def runs(settings: Settings, board: Board, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A method's run on public and on sealed draws, as a runner makes them."""
    made = {}
    for draws, inputs in seals.board_draws(settings, board).items():
        config = local(tmp_path_factory.mktemp(draws))
        import_originals(inputs.task, inputs.bundle.folder, config)
        only_method = replace(config, skip_oracles=True)
        [done] = run([inputs.task], lambda one: parse_methods([METHOD], [], one.setting), only_method)
        made[draws] = read_run(done.runs[0])
    return made


@pytest.fixture(scope="module")
def entry(settings: Settings, board: Board, runs: dict[str, Run]) -> str:
    """The verified entry of that method, in a round that is over."""
    site = Site(settings, None)
    with site.client:
        answer = site.post(runs["public"].folder, site.token())
        assert answer.status_code == 202, answer.text
        entry = answer.json()["id"]
        site.work()
        folders = {draws: one.folder for draws, one in runs.items()}
        seals.receive_verified_runs(site.database, settings, entry, folders, actor="runner")
        site.work()
    site.database.close()
    admin.reveal_salt(settings, board.task)
    return entry


@pytest.mark.usefixtures("entry")
def test_sealed_score_repeats_once_the_salt_is_published(task, settings, board, runs, tmp_path):
    ranking = get_scorer(seals.sealed_folder(settings, board)).score(runs["sealed"])
    public = get_scorer(reference.bundle_folder(settings, board)).score(runs["public"])
    assert "--salt SALT" in runs["sealed"].manifest.command
    salt = admin.reveal_salt(settings, task.name).salt
    again = evaluate(METHOD, task.with_sealed_draws(salt), config=local(tmp_path / "reader"), progress=False)
    assert again[METHOD].scorecard.metrics == ranking.metrics
    assert ranking.metrics != public.metrics
    first = read_arrays(runs["public"].folder / "d0-s0.npz")["forget"]
    assert first.shape == read_arrays(runs["sealed"].folder / "d0-s0.npz")["forget"].shape
    assert (first != read_arrays(runs["sealed"].folder / "d0-s0.npz")["forget"]).any()


@pytest.fixture
def network(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Lets clients reach the server without a network; its address."""
    site, original = Site(settings, None), http.open_http
    transport = Direct(site)
    monkeypatch.setattr(http, "open_http", lambda server, headers, _: original(server, headers, transport))
    with site.client:
        yield "http://127.0.0.1:8000"
    site.database.close()


def test_reproduce_with_salt_repeats_sealed_scores(task, settings, entry, network, tmp_path, monkeypatch, capsys):
    path = tmp_path / "catalog" / f"{task.name}.toml"
    path.parent.mkdir(parents=True)
    path.write_text(DEFINITION)
    monkeypatch.setattr(tasks, "CATALOG", tmp_path / "catalog")
    monkeypatch.setenv("FORGETBENCH_HOME", str(tmp_path / "home"))
    salt = admin.reveal_salt(settings, task.name).salt

    def reproduce(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(["reproduce", task.name, *words, "--engine", "local", "--device", "cpu"])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out + said.err

    status, said = reproduce("--salt", "0" * 64, "--server", network)
    assert (status, f"Tasks with retired rounds: {task.name}" in " ".join(said.split())) == (2, True)
    assert "needs one task, --salt and --server" in " ".join(reproduce("--salt", salt)[1].split())
    unknown = reproduce("--salt", salt, "--server", network, "--method", "ssd")
    assert (unknown[0], f"Available: {METHOD}" in " ".join(unknown[1].split())) == (2, True)
    status, said = reproduce("--salt", salt, "--server", network, "--json")
    assert status == 0, said
    [found] = json.loads(said[said.index("[\n") : said.rindex("]") + 1])
    assert found["reproduced"]
    assert found["same_platform"]
    assert {difference["row"] for difference in found["differences"]} == {f"{METHOD} ({entry})"}
    assert len(found["differences"]) > 10
    assert {difference["z"] for difference in found["differences"]} == {0.0}


@pytest.mark.slow
def test_sealed_build_with_audit_tests_both_draws(tmp_path):
    task = Task.model_validate({"name": "test/mlp/random", **tomllib.loads(DEFINITION), "seeds": 6})
    settings = Settings(server_folder=tmp_path / "server", database_url="")
    board = build_sealed_board(task, settings, RunConfig(device="cpu", engine="local"), audit=True)
    bundles = (reference.load_bundle(settings, board), seals.load_sealed_bundle(settings, board))
    records = [
        AuditFitness.model_validate_json(path.read_bytes()) for path in settings.sealed_home.rglob("audits/**/*.json")
    ]
    audited = {record.pack: record.unfit for record in records}
    assert audited == {bundle.without_audit.digest: bundle.excluded_metrics for bundle in bundles}
    assert len(audited) == 2
    site = Site(settings, None)
    with site.client:
        site.work()
        shown = site.client.get(f"/api/v1/boards/{task.name}").json()
        assert not set(shown["ranking"]) & set(bundles[1].excluded_metrics)
        assert site.client.get(f"/boards/{task.name}").status_code == 200
    site.database.close()
