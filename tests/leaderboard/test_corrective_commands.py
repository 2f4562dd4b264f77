"""Every command on a task of correction, at tiny size: each works, or refuses in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.leaderboard import Site

from forgetbench.cli import main
from forgetbench.leaderboard.admin import install_bundle
from forgetbench.scoring.vocabulary import PARTIAL

TASK = "test/mlp/poisoned-found-50"
SMALL = """
title = "Seconds"
seeds = 6
image_set = { name = "digits", options = { train = 300, validation = 60 } }
network = { name = "mlp", options = { hidden = [32] } }
recipe = { epochs = 12, lr = 0.1 }
[scenario]
name = "poisoned"
options = { trigger = "patch", size = 2, target = "0", rate = 0.1, found = 0.5 }
"""
WORDS = ("--engine", "local", "--device", "cpu")


@pytest.mark.slow
def test_commands_on_a_task_of_correction(install_task, tmp_path: Path, capsys) -> None:
    settings = install_task(TASK, SMALL)

    def call(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        said = capsys.readouterr()
        return int(left.value.code or 0), " ".join((said.out + said.err).split())

    status, said = call("pack", "build", TASK, *WORDS)
    assert status == 0, said
    [pack] = [path.parent for path in (tmp_path / "home/packs").rglob("pack.json")]
    install_bundle(settings, pack)
    status, said = call("run", TASK, "--method", "random-label:epochs=1", *WORDS)
    assert status == 0, said
    assert PARTIAL in said
    [run] = (tmp_path / "home/runs" / TASK).iterdir()
    site = Site(settings, None)
    with site.client:
        entry = site.post(run, site.token()).json()["id"]
        site.work()
        assert site.entry(entry)["row"]["state"] == "listed"
        page = site.client.get(f"/boards/{TASK}", headers={"Accept": "text/html"}).text
        assert "Two goals." in page
        assert PARTIAL in page
    site.database.close()

    for selector in ("oracle-free", "oracle"):
        status, said = call("tune", TASK, "--method", "random-label", "--trials", 1, "--selector", selector, *WORDS)
        assert status == 0, said
    status, said = call("audit", TASK, *WORDS)
    assert status == 0, said  # the ranking metrics are far inside of what is fit
    assert "gap.attack-success" in said
    assert re.search(r"third", said)
    status, said = call("reproduce", TASK, *WORDS)
    assert status == 2
    assert said.count(".") <= 6, said
