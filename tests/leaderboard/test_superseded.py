"""Boards that a newer bundle superseded: still readable, linked and up to date."""

from __future__ import annotations

import json

import pytest

from forgetbench.evidence.reference import read_pack
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.admin import install_bundle
from forgetbench.leaderboard.client.submit import pull_bundle


@pytest.fixture
def superseded(full_site, tmp_path):
    """A server whose full board was superseded, and the beginning of the old bundle's hash."""
    old = full_site.client.get(f"/api/v1/boards/{full_site.world.task}").json()["pack"][:12]
    install_bundle(full_site.settings, full_site.world.write_pack(tmp_path / "new", title="Once more"))
    full_site.work()
    return full_site, old


def rows(site, old):
    listed = site.client.get(f"/api/v1/boards/{site.world.task}?pack={old}").json()["rows"]
    return {row["label"]: row["id"] for row in listed}


def test_quarantined_entry_of_an_old_board_leaves_all_pages(superseded):
    site, old = superseded
    ids = rows(site, old)
    pages = [
        f"/compare?ids={ids['alpha']},{ids['beta']}",
        "/methods/alpha",
        f"/methods/alpha.csv?x={old}",
        "/submitters/Ada Lovelace",
    ]
    before = {page: site.client.get(page) for page in pages}
    assert all(answer.status_code == 200 for answer in before.values())
    moderator = site.token("moderate", name="Moderator")
    change = {"state": "quarantined", "reason": "averages of oracles"}
    answer = site.client.post(f"/api/v1/submissions/{ids['alpha']}/state", json=change, headers=moderator)
    assert answer.status_code == 200, answer.text
    for page in pages:
        after = site.client.get(page, headers={"If-None-Match": before[page].headers["ETag"]})
        assert after.status_code in {200, 404}, page
        assert ids["alpha"] not in after.text, page
    assert site.client.get(pages[0]).status_code == 404
    assert "1 quarantined" in site.client.get(pages[3]).text


def test_received_submission_is_counted_at_once(full_site, world, tmp_path):
    page = full_site.client.get("/submitters/Ada Lovelace")
    assert "1 received" not in page.text
    full_site.post(world.write_run(tmp_path / "run", "zeta", start=900), full_site.token())
    assert "1 received" in full_site.client.get("/submitters/Ada Lovelace").text


def test_board_and_task_link_their_earlier_versions(superseded):
    site, old = superseded
    task = site.world.task
    for kind in ("boards", "tasks"):
        page = site.client.get(f"/{kind}/{task}").text
        assert "Earlier versions" in page
        assert f'href="/{kind}/{task}?pack={old}"' in page
        earlier = site.client.get(f"/{kind}/{task}?pack={old}").text
        assert "superseded on" in earlier
        assert f'href="/{kind}/{task}"' in earlier
    assert old in site.client.get(f"/tasks/{task}?pack={old}").text
    assert f"--pack {old}" in site.client.get(f"/tasks/{task}?pack={old}").text
    assert site.client.get(f"/tasks/{task}?pack={'0' * 12}").status_code == 404


def test_api_lists_superseded_boards_on_request(superseded):
    site, old = superseded
    assert [board["superseded"] for board in site.client.get("/api/v1/boards").json()] == [False]
    boards = site.client.get("/api/v1/boards?superseded=true").json()
    assert [(board["superseded"], board["pack"].startswith(old)) for board in boards] == [(False, False), (True, True)]
    assert boards[1]["entries"] == 5


def test_pull_bundle_fetches_the_bundle_of_an_old_board(superseded, tmp_path, transport):
    site, old = superseded
    address = "http://127.0.0.1:8000"
    there = pull_bundle(site.world.task, address, tmp_path / "old", pack=old, transport=transport)
    assert read_pack(there, verify=False).card.title == "A made-up task of three classes"
    now = pull_bundle(site.world.task, address, tmp_path / "now", transport=transport)
    assert read_pack(now, verify=False).card.title == "Once more"


def test_static_export_has_every_version(superseded, tmp_path):
    site, old = superseded
    admin.export_static(site.settings, tmp_path / "static", "https://board.example.org")
    index = (tmp_path / "static" / "index.html").read_text()
    name = site.world.task.replace("/", "--")
    for page, words in ((f"{name}.html", "Once more"), (f"{name}--{old}.html", "superseded on")):
        assert f'href="{page}"' in index
        assert words in (tmp_path / "static" / page).read_text()
    alpha = rows(site, old)["alpha"]
    assert f'href="../{name}--{old}.html"' in (tmp_path / "static" / "entries" / f"{alpha}.html").read_text()
    address = f"https://board.example.org/boards/{site.world.task}?pack={old}"
    assert json.loads((tmp_path / "static" / f"{name}--{old}.json").read_text())["url"] == address
