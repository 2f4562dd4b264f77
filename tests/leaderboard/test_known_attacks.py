"""Attacks on entries: evidence by anybody, checked, scored and shown as claimed; flags by the runner only."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.leaderboard import ZIP, Site, zip_of

from forgetbench.evidence.arrays import RETESTED, write_arrays
from forgetbench.evidence.attacks import (
    MANIFEST,
    AttackedModelRecord,
    AttackManifest,
    AttackRecord,
    read_attacked,
    write_attacked,
)
from forgetbench.evidence.run import describe, read_run
from forgetbench.leaderboard.client.submit import post_attack
from forgetbench.leaderboard.db.models import Entry, KnownAttack
from forgetbench.leaderboard.submissions import attacks
from forgetbench.store import digest

MEMORIES = {"originals": 2.0, "references": 0.0, "controls": 0.0}


def write_attack(site: Site, folder: Path, run: Path, *, found: float, label: str = "dig:steps=5") -> Path:
    """Write an attack as a body has it; afterwards the row remembers the forget set by `found`."""
    world, manifest = site.world, read_run(run).manifest
    for place, (name, memory) in enumerate({**MEMORIES, "row": found}.items()):
        records = []
        (folder / name).mkdir(parents=True)
        for seed in range(world.seeds):
            answers = world.model(1000 + 100 * place + seed, memory=memory)
            arrays = {subset: array for subset, array in answers.items() if subset in RETESTED}
            write_arrays(folder / name / f"d0-s{seed}.npz", arrays)
            weights = world.original(seed) if name == "originals" else digest([name, seed])
            records.append(
                AttackedModelRecord(draw=0, seed=seed, file=f"d0-s{seed}.npz", arrays=describe(arrays), model=weights)
            )
        attacked = AttackManifest(
            protocol=2,
            task=manifest.task,
            task_key=manifest.task_key,
            attack=AttackRecord(
                name="dig", label=label, title="Digs", holds=("model",), parameters={"steps": 5}, budget="steps",
                fingerprint="dig-1",
            ),
            population=name,
            row=manifest.row if name == "row" else "",
            method_fingerprint=manifest.method.fingerprint if name == "row" else "",
            draws=1,
            seeds=world.seeds,
            index_hashes=manifest.index_hashes,
            models=tuple(records),
            flops=3e9,
            environment={"torch": "2.15.0"},
            command="forgetbench attack",
            created="2026-11-20T10:00:00+00:00",
        )  # fmt: skip
        write_attacked(folder / name, attacked, lambda _: None)
    return folder


def post(site: Site, entry: str, body: bytes, headers: dict[str, str]):
    return site.client.post(f"/api/v1/submissions/{entry}/attacks", content=body, headers=ZIP | headers)


@pytest.fixture
def listed(site: Site, world, tmp_path: Path) -> tuple[Site, str, Path]:
    """A server with a listed entry that seems to have forgotten, its id and its run."""
    run = world.write_run(tmp_path / "run", "hides", memory=0.0)
    identity = site.post(run, site.token()).json()["id"]
    site.work()
    return site, identity, run


def section(site: Site, identity: str) -> str:
    page = site.client.get(f"/entries/{identity}").text
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index('id="attacks"') :].split("</section>")[0]).split())


def test_claimed_attack_is_shown_and_sets_no_flag(listed, tmp_path: Path) -> None:
    site, identity, run = listed
    before = site.entry(identity)["row"]
    assert "No further attack on this row was posted" in section(site, identity)
    body = zip_of(write_attack(site, tmp_path / "attack", run, found=2.0))
    answer = post(site, identity, body, site.token("verify", name="Grace Hopper"))
    assert answer.status_code == 202, answer.text
    assert "being scored" in section(site, identity)
    site.work()
    [record] = site.entry(identity)["attacks"]
    assert (record["state"], record["author"], record["label"]) == ("claimed", "Grace Hopper", "dig:steps=5")
    assert record["outside"] is True
    assert record["recoverable"] is True
    assert record["card"]["score"]["statistic"]["value"] > 0.5
    shown = section(site, identity)
    assert "Worst known attack: dig:steps=5 , 3e+09 FLOPs for each model" in shown
    assert "outside the band of retrained models" in shown
    assert "as claimed by Grace Hopper" in shown
    after = site.entry(identity)["row"]
    assert "recoverable" not in after["flags"]
    assert (after["distance"], after["verdict"]) == (before["distance"], before["verdict"])
    again = post(site, identity, body, site.token("verify", name="Grace Hopper"))
    assert again.json()["id"] == record["id"]


def test_repeated_attack_flags_and_sorts(listed, tmp_path: Path) -> None:
    """The runner's record has the flag and the verdict that follows, and leaves the distance as it is."""
    site, identity, run = listed
    folder = write_attack(site, tmp_path / "attack", run, found=2.0)
    before = site.entry(identity)["row"]
    assert before["verdict"] == "reaches retraining"
    with site.database.read_session() as session:
        entry = session.get_one(Entry, identity)
        session.expunge_all()
    populations = {name: read_attacked(folder / name) for name in attacks.POPULATIONS}
    attacks.store_attack(site.database, site.settings, entry, populations, "0" * 64, folder, None, author="runner")
    site.work()
    after = site.entry(identity)["row"]
    assert "recoverable" in after["flags"]
    assert after["verdict"] != "reaches retraining"
    assert after["distance"] == before["distance"]
    assert "repeated by this board's runner" in section(site, identity)
    rows = site.client.get(f"/api/v1/boards/{site.world.task}", params={"sort": "-attack"}).json()["rows"]
    assert rows[0]["id"] == identity


def test_attack_that_finds_nothing_is_inside(listed, tmp_path: Path) -> None:
    site, identity, run = listed
    post(site, identity, zip_of(write_attack(site, tmp_path / "attack", run, found=0.0)), site.token())
    site.work()
    [record] = site.entry(identity)["attacks"]
    assert (record["outside"], record["recoverable"]) == (False, False)
    assert "inside the band of retrained models" in section(site, identity)


def edited(folder: Path, name: str, **changes) -> bytes:
    path = folder / name / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))
    return zip_of(folder)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("row", {"method_fingerprint": "other"}, "is of another method than this entry"),
        ("references", {"population": "controls"}, "is of controls"),
        ("controls", {"shots": {"0": [1]}}, "has another attack, budget or examples than row"),
        ("originals", {"task": "another"}, "are of task 'another'"),
        ("row", {"models": []}, "does not have exactly the files that its manifest names"),
        ("row", {"command": "evil \u202e"}, "changes the direction of text"),
        ("row", {"unknown": 1}, "row/attack.json is not a manifest of this version"),
    ],
)
def test_wrong_evidence_is_refused_by_name(listed, tmp_path: Path, name, changes, message) -> None:
    site, identity, run = listed
    body = edited(write_attack(site, tmp_path / "attack", run, found=2.0), name, **changes)
    answer = post(site, identity, body, site.token())
    assert answer.status_code == 422
    assert message in answer.text
    with site.database.read_session() as session:
        assert session.query(KnownAttack).count() == 0
    assert not list(site.settings.incoming.iterdir())


def test_oracles_of_one_population_twice_are_refused(listed, tmp_path: Path) -> None:
    site, identity, run = listed
    folder = write_attack(site, tmp_path / "attack", run, found=2.0)
    for path in (folder / "references").glob("*.npz"):
        (folder / "controls" / path.name).write_bytes(path.read_bytes())
    models = json.loads((folder / "references" / MANIFEST).read_bytes())["models"]
    answer = post(site, identity, edited(folder, "controls", models=models), site.token())
    assert "has answers of another population, bit by bit" in answer.text


def test_attacks_need_a_token_and_a_listed_entry(listed, tmp_path: Path) -> None:
    site, identity, run = listed
    body = zip_of(write_attack(site, tmp_path / "attack", run, found=2.0))
    assert post(site, identity, body, {}).status_code == 401
    assert post(site, "nothing", body, site.token()).status_code == 404
    assert post(site, identity, b"no zip", site.token()).status_code == 400


def test_client_posts_a_folder_of_attack(listed, transport, tmp_path: Path) -> None:
    site, identity, run = listed
    folder = write_attack(site, tmp_path / "attack", run, found=2.0)
    (folder / "rows").mkdir()
    row = (folder / "row").rename(folder / "rows" / "hides")
    token = site.token()["Authorization"].removeprefix("Bearer ")
    record = post_attack(identity, folder, row, "http://127.0.0.1:8000", token, transport=transport)
    site.work()
    assert [one["id"] for one in site.entry(identity)["attacks"]] == [record]


def test_purge_erases_attacks(listed, tmp_path: Path) -> None:
    site, identity, run = listed
    post(site, identity, zip_of(write_attack(site, tmp_path / "attack", run, found=2.0)), site.token())
    site.work()
    [record] = site.entry(identity)["attacks"]
    assert (site.settings.evidence / record["id"]).is_dir()
    path = f"/api/v1/submissions/{identity}/purge"
    site.client.post(path, json={"reason": "private"}, headers=site.token("moderate"))
    assert not (site.settings.evidence / record["id"]).exists()
    with site.database.read_session() as session:
        assert session.query(KnownAttack).count() == 0
