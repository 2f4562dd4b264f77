"""Every route with every role: who may read and change which submission."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient
from starlette.routing import Route
from support.leaderboard import ZIP

from forgetbench.leaderboard.web.app import create_app

NAME = "not-yet-listed"
VIEWERS = {"owner", "moderator"}


@pytest.fixture
def waiting(full_site, world, tmp_path):
    """An unscored submission, and the headers of every role."""
    owner = full_site.token("submit", name="Owner")
    identity = full_site.post(world.write_run(tmp_path / "run", NAME, start=800), owner).json()["id"]
    roles = {
        "anonymous": {},
        "wrong": {"Authorization": f"Bearer fb_{'0' * 16}_{'0' * 64}"},
        "owner": owner,
        "submitter": full_site.token("submit", name="Other"),
        "verifier": full_site.token("verify", name="Verifier"),
        "moderator": full_site.token("moderate", name="Moderator"),
    }
    return full_site, identity, roles


def routes(site):
    def walk(parents):
        for route in parents:
            inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
            if isinstance(route, Route):
                yield route
            elif inner:
                yield from walk(inner)

    return [
        (method, route.path) for route in walk(site.client.app.routes) for method in sorted(route.methods - {"HEAD"})
    ]


def filled(path, identity, task):
    values = {"entry_id": identity, "task": task, "name": NAME, "ending": "csv", "pack": "0" * 12}
    filled_path = re.sub(r"\{(\w+)(?::path)?\}", lambda part: values[part[1]], path)
    return filled_path + (f"?ids={identity},{identity}x" if "/compare" in path else "")


def test_unlisted_submission_is_read_by_owner_and_moderator(waiting, world):
    site, identity, roles = waiting
    visible, count = set(), 0
    for method, path in routes(site):
        if method != "GET":
            continue
        count += 1
        for role, headers in roles.items():
            answer = site.client.get(filled(path, identity, world.task), headers=headers)
            assert answer.status_code < 500, (path, role)
            if answer.status_code == 200 and NAME in answer.text.replace(f"/methods/{NAME}", ""):
                visible.add((path, role))
            if role == "wrong" and "/api/v1/" in path and ("entries" in path or "submissions" in path):
                assert answer.status_code == 401, path
    assert count >= 28
    assert {role for _, role in visible} == VIEWERS
    expected = {"/api/v1/entries/{entry_id}", "/api/v1/entries/{entry_id}/evidence", "/api/v1/submissions/{entry_id}"}
    assert {path for path, _ in visible} == expected
    for role, headers in roles.items():
        status = site.client.get(f"/api/v1/entries/{identity}/evidence", headers=headers).status_code
        assert status == (200 if role in VIEWERS else 401 if role == "wrong" else 404), role


def test_every_write_route_requires_its_scope(waiting):
    site, identity, roles = waiting
    zipped = {"Content-Type": "application/zip"}
    change, sign_up = {"state": "quarantined", "reason": "because"}, {"code": "x", "name": "y"}
    posts = {
        "/api/v1/submissions": lambda path, headers: site.client.post(path, content=b"x", headers=headers | zipped),
        "/api/v1/submissions/method": lambda path, headers: site.client.post(path, json={}, headers=headers),
        "/api/v1/submissions/{entry_id}/verifications": lambda path, headers: site.client.post(
            path, content=b"x", headers=headers | zipped
        ),
        "/api/v1/submissions/{entry_id}/attacks": lambda path, headers: site.client.post(
            path, content=b"x", headers=headers | zipped
        ),
        "/api/v1/submissions/{entry_id}/state": lambda path, headers: site.client.post(
            path, json=change, headers=headers
        ),
        "/api/v1/submissions/{entry_id}/acknowledge": lambda path, headers: site.client.post(
            path, json={"reason": "because"}, headers=headers
        ),
        "/api/v1/submissions/{entry_id}/purge": lambda path, headers: site.client.post(
            path, json={"reason": "because"}, headers=headers
        ),
        "/api/v1/signup": lambda path, headers: site.client.post(
            path, json={"code": "x", "name": "y"}, headers=headers
        ),
        "/signup": lambda path, headers: site.client.post(path, data=sign_up, headers=headers),
        "/signin/token": lambda path, headers: site.client.post(path, data={"ticket": "x"}, headers=headers),
    }
    assert {path for method, path in routes(site) if method != "GET"} == set(posts)
    answered = {
        (path.removeprefix("/api/v1/").rpartition("}/")[2], role): send(filled(path, identity, ""), headers).status_code
        for path, send in posts.items()
        for role, headers in roles.items()
    }
    denied = {"anonymous": 401, "wrong": 401}
    expected = {
        "submissions": denied | {"owner": 400, "submitter": 400, "verifier": 403, "moderator": 403},
        "submissions/method": denied | {"owner": 422, "submitter": 422, "verifier": 403, "moderator": 403},
        "verifications": denied | {"owner": 403, "submitter": 403, "verifier": 400, "moderator": 403},
        "attacks": denied | {"owner": 404, "submitter": 404, "verifier": 404, "moderator": 404},  # not listed yet
        # others cannot see it, its owner may only withdraw it, and an unscored submission cannot be quarantined
        "state": denied | {"owner": 403, "submitter": 404, "verifier": 404, "moderator": 409},
        "acknowledge": denied | {"owner": 403, "submitter": 403, "verifier": 403, "moderator": 409},
        "purge": denied | {"owner": 403, "submitter": 403, "verifier": 403, "moderator": 204},
        **dict.fromkeys(("signup", "/signup"), dict.fromkeys(roles, 422)),  # the invitation code is what counts
        "/signin/token": dict.fromkeys(roles, 404),  # this site has no identity provider
    }
    assert answered == {(path, role): status for path, roles in expected.items() for role, status in roles.items()}


def test_actions_on_a_listed_submission_require_their_scope(site, world, tmp_path):
    owner = site.token(name="Ada")
    identity = site.post(world.write_run(tmp_path / "run", memory=0.1), owner).json()["id"]
    site.work()
    roles = {
        "anonymous": {},
        "owner": owner,
        **{scope: site.token(scope, name=scope) for scope in ("verify", "moderate")},
    }
    verifications = f"/api/v1/submissions/{identity}/verifications"
    actions = {
        "whoami": lambda headers: site.client.get("/api/v1/whoami", headers=headers),
        "submit": lambda headers: site.post(b"", headers),
        "verify": lambda headers: site.client.post(verifications, content=b"PK", headers=ZIP | headers),
        "reject": lambda headers: site.change_state(identity, "rejected", headers),
        "read": lambda headers: site.client.get(f"/api/v1/entries/{identity}", headers=headers),
    }
    expected = {
        "whoami": {"anonymous": 401, "owner": 200, "verify": 200, "moderate": 200},
        "submit": {"anonymous": 401, "owner": 400, "verify": 403, "moderate": 403},
        "verify": {"anonymous": 401, "owner": 403, "verify": 400, "moderate": 403},
        "reject": {"anonymous": 401, "owner": 403, "verify": 403, "moderate": 409},
        "read": {"anonymous": 200, "owner": 200, "verify": 200, "moderate": 200},
    }
    answered = {
        name: {role: act(headers).status_code for role, headers in roles.items()} for name, act in actions.items()
    }
    assert answered == expected


def test_unlisted_submission_is_hidden_from_other_submitters(site, world, tmp_path):
    owner, other, moderator = site.token(), site.token(name="Other"), site.token("moderate", name="Moderator")
    identity = site.post(world.write_run(tmp_path / "run"), owner).json()["id"]
    statuses = {
        (role, kind): site.client.get(f"/api/v1/{kind}/{identity}", headers=headers).status_code
        for role, headers in (("owner", owner), ("other", other), ("moderator", moderator), ("anonymous", {}))
        for kind in ("submissions", "entries")
    }
    assert {role for (role, _), status in statuses.items() if status == 200} == VIEWERS
    assert len([status for status in statuses.values() if status == 200]) == 4
    assert set(statuses.values()) == {200, 404}
    assert site.client.get(f"/entries/{identity}", headers=owner).status_code in {200, 404}


def test_request_for_another_host_is_refused(make_settings):
    app = create_app(make_settings(public_url="https://board.example.org/"))
    with TestClient(app) as client:
        status = {
            host: client.get("/api/v1/boards", headers={"Host": host}).status_code
            for host in (
                "board.example.org",
                "board.example.org:443",
                "BOARD.example.org",
                "127.0.0.1:8000",
                "[::1]:80",
            )
        }
        assert set(status.values()) == {200}, status
        for host in ("evil.example.org", "board.example.org.evil.org", "[", "", "board.example.org@evil.org:1"):
            answer = client.get("/api/v1/boards", headers={"Host": host})
            assert (answer.status_code, "evil" in answer.text) == (421, False), host
        assert client.get("/health", headers={"Host": "10.0.0.7"}).status_code == 200  # a load balancer
