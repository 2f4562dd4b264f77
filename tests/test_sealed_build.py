"""A sealed board from training to its retired round, with models that train in a second."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from forgetbench import evaluate
from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.reference import ReferenceBundle, read_pack
from forgetbench.evidence.run import read_run
from forgetbench.leaderboard import admin
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
from forgetbench.tasks.task import NOT_THE_BOARD, Task

METHOD = "gradient-ascent"


@pytest.fixture(scope="module")
def task() -> Task:
    """A task whose forget set is drawn."""
    content = {
        "name": "test/mlp/random",
        "title": "A second of training",
        "seeds": 3,
        "image_set": {"name": "digits", "options": {"train": 200, "validation": 50}},
        "network": {"name": "mlp", "options": {"hidden": [8]}},
        "recipe": {"epochs": 3, "lr": 0.1},
        "scenario": {"name": "random", "options": {"fraction": 0.2}},
    }
    return Task.model_validate(content)


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


def test_sealed_score_repeats_once_the_salt_is_published(task, settings, board, tmp_path):
    runs = {}
    for draws, inputs in seals.board_draws(settings, board).items():
        config = local(tmp_path / "runner" / draws)
        import_originals(inputs.task, inputs.bundle.folder, config)
        only_method = RunConfig(device="cpu", engine="local", home=config.home, skip_oracles=True)
        [done] = run([inputs.task], lambda one: parse_methods([METHOD], [], one.setting), only_method)
        runs[draws] = read_run(done.runs[0])
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
