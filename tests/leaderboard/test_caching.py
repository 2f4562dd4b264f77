"""ETags, conditional requests, HEAD, and cursors."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from forgetbench.leaderboard.web.app import create_app

PATHS = (
    "/api/v1/boards",
    "/api/v1/boards?superseded=true",
    "/api/v1/boards/{task}",
    "/api/v1/entries/{entry}",
    "/api/v1/entries/{entry}/evidence",
    "/api/v1/submissions/{entry}",
    "/api/v1/tasks/{task}/pack",
    "/dump.jsonl",
    "/api/v1/methods",
    "/api/v1/metrics",
    "/",
    "/boards/{task}",
    "/boards/{task}.csv",
    "/entries/{entry}",
    "/methods",
    "/submit",
    "/api",
    "/feed.atom",
)


def filled(full, path):
    entry = full.client.get(f"/api/v1/boards/{full.world.task}").json()["rows"][0]["id"]
    return path.format(task=full.world.task, entry=entry)


@pytest.mark.parametrize("path", PATHS)
def test_unchanged_response_gives_304(full, path):
    path = filled(full, path)
    first = full.client.get(path)
    again = full.client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


@pytest.mark.parametrize("path", PATHS)
def test_etag_changes_with_software_and_settings(full, path, monkeypatch):
    path = filled(full, path)
    first = full.client.get(path).headers["ETag"]
    changed = full.settings.model_copy(update={"site_title": "Another", "token_help": "Write to us."})
    with TestClient(create_app(changed), base_url="http://127.0.0.1:8000") as client:
        again = client.get(path, headers={"If-None-Match": first})
    assert again.status_code == 200
    monkeypatch.setattr("forgetbench.leaderboard.web.app.version", lambda _: "99.0")
    with TestClient(create_app(full.settings), base_url="http://127.0.0.1:8000") as client:
        assert client.get(path, headers={"If-None-Match": first}).status_code == 200


def test_entry_etag_changes_with_its_history(full_site):
    entry = full_site.client.get(f"/api/v1/boards/{full_site.world.task}").json()["rows"][0]["id"]
    paths = [f"/entries/{entry}", f"/api/v1/entries/{entry}", f"/api/v1/submissions/{entry}"]
    before = {path: full_site.client.get(path).headers["ETag"] for path in paths}
    change = {"state": "flagged", "reason": "a second look"}
    moderator = full_site.token("moderate", name="Moderator")
    full_site.client.post(f"/api/v1/submissions/{entry}/state", json=change, headers=moderator)
    for path in paths:
        after = full_site.client.get(path, headers={"If-None-Match": before[path]})
        assert (after.status_code, "a second look" in after.text) == (200, True), path


@pytest.mark.parametrize("path", [*PATHS, "/badges/{entry}.svg", "/health"])
def test_head_equals_get_without_a_body(full, path):
    path = filled(full, path)
    whole, head = full.client.get(path), full.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert full.client.head("/nothing").status_code == 404


@pytest.mark.parametrize("sort", ["rank", "-rank", "method", "-cost", "-date", "gap.test", "submitter"])
def test_cursors_skip_and_repeat_no_row_between_pages(full_site, sort):
    address = f"/api/v1/boards/{full_site.world.task}?limit=1&sort={sort}"
    order = [row["id"] for row in full_site.client.get(address.replace("limit=1", "limit=9")).json()["rows"]]
    seen, cursor, moderator = [], "", full_site.token("moderate", name="Moderator")
    while cursor is not None:
        answer = full_site.client.get(f"{address}&cursor={cursor}").json()
        seen += [row["id"] for row in answer["rows"]]
        cursor = answer["next"]
        if len(seen) == 2:  # a row that was read is removed: the others must not move up
            change = {"state": "quarantined", "reason": "because"}
            done = full_site.client.post(f"/api/v1/submissions/{seen[0]}/state", json=change, headers=moderator)
            assert done.status_code == 200
    assert seen == order


@pytest.mark.parametrize("cursor", ["abc", "eyJzb3J0IjoicmFuayJ9", "W10", "%00", "bnVsbA", "x" * 500])
def test_invalid_cursor_gives_422(full, cursor):
    answer = full.client.get(f"/api/v1/boards/{full.world.task}?cursor={cursor}")
    assert (answer.status_code, "cursor" in answer.text) == (422, True)


def test_cursor_of_another_sort_gives_422(full):
    board = f"/api/v1/boards/{full.world.task}?limit=2"
    cursor = full.client.get(f"{board}&sort=method").json()["next"]
    assert full.client.get(f"{board}&sort=method&cursor={cursor}").status_code == 200
    assert full.client.get(f"{board}&sort=rank&cursor={cursor}").status_code == 422
