"""Answers after recalibration on a server: validated like all others, scored by the same code, and shown."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sqlalchemy import inspect, select
from support.leaderboard import Site, edit_manifest

from forgetbench.evidence.arrays import RECALIBRATED, read_arrays, write_arrays
from forgetbench.evidence.reference import check_run, read_pack
from forgetbench.evidence.run import describe, read_run
from forgetbench.leaderboard.admin import install_bundle
from forgetbench.leaderboard.db.models import Entry
from forgetbench.leaderboard.settings import Settings
from forgetbench.metrics import metrics
from forgetbench.scoring.scorer import Scorer


@pytest.fixture(scope="module")
def board(world, databases, tmp_path_factory):
    """A server whose board has answers after recalibration, and the bundle's folder."""
    folder = tmp_path_factory.mktemp("recalibrated")
    pack = world.write_pack(folder / "pack", recalibrated=True)
    settings = Settings(server_folder=folder / "server", database_url=databases.new_url())
    install_bundle(settings, pack)
    site = Site(settings, world)
    with site.client:
        site.work()
        yield site, pack
    site.database.close()


def submit(site, run):
    answer = site.post(run, site.token())
    assert answer.status_code == 202, answer.text
    site.work()
    return answer.json()["id"]


def text_of(site, identity):
    page = site.client.get(f"/entries/{identity}").text
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index('id="recalibration"') :].split("</section>")[0]).split())


def test_entry_shows_what_comes_back(board, world, tmp_path):
    """The server's scorecard is the local one; page, table and document have before and after."""
    site, pack = board
    run = world.write_run(tmp_path / "run", "hides", memory=0.0, after=2.0, start=320)
    identity = submit(site, run)
    entry = site.client.get(f"/api/v1/entries/{identity}").json()
    local = Scorer(read_pack(pack)).score(read_run(run))
    assert entry["scorecard"]["recalibration"] == local.recalibration.model_dump(mode="json")
    assert "recoverable" in entry["row"]["flags"]
    before, after = (
        np.mean([(read_arrays(run / f"d0-s{seed}.npz")[name].argmax(1) == world.labels["forget"]) for seed in range(6)])
        for name in ("forget", RECALIBRATED + "forget")
    )
    shown = text_of(site, identity)
    assert f"Accuracy on the forget set {100 * before:.1f} % {100 * after:.1f} %" in shown
    assert "Recoverable :" in shown
    table = site.client.get(f"/entries/{identity}.json").json()["tables"]["After recalibration"]
    assert [line["share"] for line in table] == ["Accuracy on the forget set", "Accuracy on test", "Forgotten"]
    assert table[0]["as_it_is"] == pytest.approx(before)
    assert table[2]["after_recalibration"] == pytest.approx(local.recalibration.after.value)
    assert {line["recoverable"] for line in table} == {True}


def test_entry_without_answers_is_not_tested(board, world, tmp_path):
    """Imported logits, and evidence of version 1: accepted, and never called not recoverable."""
    site, _ = board
    run = world.write_run(tmp_path / "run", "plain", start=340)
    edit_manifest(run, lambda manifest: manifest.update(schema_version=1))
    identity = submit(site, run)
    recalibration = site.client.get(f"/api/v1/entries/{identity}").json()["scorecard"]["recalibration"]
    assert recalibration["recoverable"] is None
    assert "Not tested : this row has no answers after recalibration" in text_of(site, identity)


def test_reference_rows_are_not_recoverable(board, world):
    site, _ = board
    rows = site.client.get(f"/api/v1/boards/{world.task}").json()["references"]
    shown = {row["label"]: text_of(site, row["id"]) for row in rows}
    assert "Not recoverable :" in shown["Retrain"]
    assert "Not recoverable :" in shown["No unlearning"]
    assert "Nothing had been forgotten." in shown["No unlearning"]


def change_arrays(run, seed, change):
    """Change the arrays of one file, and its record in the manifest."""
    path = run / f"d0-s{seed}.npz"
    arrays = change(read_arrays(path))
    write_arrays(path, arrays)
    described = {name: record.model_dump(mode="json") for name, record in describe(arrays).items()}
    edit_manifest(run, lambda manifest: manifest["models"][seed].update(arrays=described))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: {name: one for name, one in arrays.items() if name != RECALIBRATED + "test"}, "or into none"),
        (lambda arrays: {name: one for name, one in arrays.items() if ":" not in name}, "or into none"),
        (lambda arrays: arrays | {RECALIBRATED + "retain": arrays["retain"]}, "the arrays must be"),
        (lambda arrays: arrays | {RECALIBRATED + "test": arrays["test"][:-1]}, "the arrays must be"),
        (lambda arrays: arrays | {RECALIBRATED + "forget": arrays["forget"] * np.float16(np.nan)}, "is not finite"),
    ],
    ids=["subset", "file", "unknown", "shape", "nan"],
)
def test_partial_or_wrong_answers_are_refused(board, world, tmp_path, change, message):
    """In one file of six; by the server and by the check that runs before."""
    site, pack = board
    run = world.write_run(tmp_path / "run", "partial", start=360, after=0.0)
    change_arrays(run, 2, change)
    answer = site.post(run, site.token())
    assert answer.status_code == 422
    errors = {error["field"]: error["message"] for error in answer.json()["errors"]}
    assert list(errors) == ["d0-s2.npz"]
    assert message in errors["d0-s2.npz"]
    assert any(
        problem.startswith("d0-s2.npz") and message in problem for problem in check_run(read_run(run), read_pack(pack))
    )


def test_copied_oracle_is_found_without_its_retest(board, world, tmp_path):
    """Leaving out, or changing, the answers after recalibration does not make another model of it."""
    site, pack = board
    run = world.write_run(tmp_path / "run", "copied", start=380)
    change_arrays(
        run, 1, lambda _: {n: a for n, a in read_arrays(pack / "references/d0-s4.npz").items() if ":" not in n}
    )
    answer = site.post(run, site.token())
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "d0-s1.npz", "message": "holds the answers of one of this board's oracles"}
    ]


def test_board_of_an_earlier_version_is_not_tested(world, tmp_path):
    """A bundle of version 1 scores a run of version 2; so does one of a network without batch-norm."""
    run = read_run(world.write_run(tmp_path / "run", after=2.0))
    for version, reason in ((1, "earlier version"), (2, "no batch-norm")):
        pack = read_pack(world.write_pack(tmp_path / f"pack{version}", schema_version=version))
        assert check_run(run, pack) == []
        card = Scorer(pack).score(run)
        assert reason in card.recalibration.reason
        assert card.recalibration.recoverable is None


def test_upgrade_from_0014_reads_outcomes_of_stored_cards(board, world, tmp_path):
    """Each row has what its scorecard says, as if it were scored anew; SQLite finds it before the large manifest."""
    site, _ = board
    submit(site, world.write_run(tmp_path / "run", "hides-too", memory=0.1, after=1.8, start=900))

    def read():
        with site.database.read_session() as session:
            return {row.id: row.outcome for row in session.execute(select(Entry.id, Entry.outcome))}

    before = read()
    assert any(outcome["recoverable"] and outcome["recovered"] > 0.5 for outcome in before.values())
    assert all(outcome["decided_by"] in metrics for outcome in before.values())
    site.database.downgrade("0014")
    assert "outcome" not in {column["name"] for column in inspect(site.database.engine).get_columns("entries")}
    site.database.upgrade()
    site.database.check()
    assert read() == before
    columns = [column["name"] for column in inspect(site.database.engine).get_columns("entries")]
    assert columns[-1] == ("outcome" if site.database.engine.dialect.name == "postgresql" else "manifest")
