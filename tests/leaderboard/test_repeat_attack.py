"""An attack from post to flag on a real, tiny board: claimed by anybody, repeated by the operator with real models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.leaderboard import Direct, Site

from forgetbench.api.attacks import attack, attacked_row
from forgetbench.cli import main
from forgetbench.leaderboard.admin import install_bundle
from forgetbench.leaderboard.client.submit import post_attack
from forgetbench.runner.config import RunConfig

TASK = "test/mlp/class"
SMALL = """
title = "Seconds"
seeds = 6
image_set = { name = "digits", options = { train = 200, validation = 50 } }
network = { name = "mlp", options = { hidden = [32] } }
recipe = { epochs = 8, lr = 0.1 }
scenario = { name = "class", options = { classes = [3] } }
"""
HIDDEN, FORGOTTEN = "finetune:epochs=1", "random-label:epochs=1"
"""Of these, a few forgotten images bring back the class in the first alone."""
WORDS = ("--engine", "local", "--device", "cpu")


def call(*words: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert int(left.value.code or 0) == 0


@pytest.mark.slow
def test_posted_attack_is_repeated_by_the_operator(install_task, tmp_path: Path, capsys) -> None:
    """The claim has its author and sets no flag; the runner's record does, and the board sorts by it."""
    settings = install_task(TASK, SMALL)
    config = RunConfig(home=tmp_path / "home", device="cpu", engine="local")
    found = attack("prototype:shots=5", [HIDDEN, FORGOTTEN], TASK, config=config, progress=False)
    assert {row: found[row].recoverable for row in (HIDDEN, FORGOTTEN)} == {HIDDEN: True, FORGOTTEN: False}
    local = found[HIDDEN].scores[0]
    install_bundle(settings, found.scorer.bundle.folder)
    site = Site(settings, None)
    with site.client:
        ids = {row: site.post(found.rows[row], site.token()).json()["id"] for row in (HIDDEN, FORGOTTEN)}
        site.work()
        before = site.entry(ids[HIDDEN])["row"]
        token = site.token("verify", name="Grace Hopper")["Authorization"].removeprefix("Bearer ")
        [folder] = found.folders
        place = attacked_row(folder, HIDDEN)
        record = post_attack(ids[HIDDEN], folder, place, "http://127.0.0.1:8000", token, transport=Direct(site))
        site.work()
        [claimed] = site.entry(ids[HIDDEN])["attacks"]
        assert (claimed["id"], claimed["state"], claimed["author"]) == (record, "claimed", "Grace Hopper")
        assert "recoverable" not in site.entry(ids[HIDDEN])["row"]["flags"]
        page = site.client.get(f"/entries/{ids[HIDDEN]}", headers={"Accept": "text/html"}).text
        assert "as claimed by Grace Hopper" in page

        capsys.readouterr()
        call("admin", "repeat-attack", record, *WORDS)
        [repeated_id] = re.findall(r"attack (\w+) is being scored", capsys.readouterr().out)
        site.work()
        records = {one["id"]: one for one in site.entry(ids[HIDDEN])["attacks"]}
        repeated, after = records[repeated_id], site.entry(ids[HIDDEN])["row"]
        assert (repeated["state"], repeated["author"]) == ("repeated", "runner")
        assert repeated["card"]["score"]["statistic"]["value"] == pytest.approx(local.statistic.value)
        assert repeated["outside"] is True
        assert repeated["recoverable"] is True
        assert "recoverable" in after["flags"]
        assert after["distance"] == before["distance"]
        rows = site.client.get(f"/api/v1/boards/{TASK}", params={"sort": "-attack"}).json()["rows"]
        assert next(row["id"] for row in rows if row["id"] in ids.values()) == ids[HIDDEN]
        assert not list(settings.incoming.iterdir())
    site.database.close()
