"""Every route of the application with every role: who is answered what about a submission that is not listed."""

from __future__ import annotations

import re

import pytest
from starlette.routing import Route

NAME = "not-yet-listed"
SEES = {"owner", "moderator"}


@pytest.fixture
def waiting(full_site, world, tmp_path):
    """A submission that nobody has scored yet, and everybody who may ask for it."""
    owner = full_site.token("submit", name="Owner")
    identity = full_site.post(world.write_run(tmp_path / "run", NAME, start=800), owner).json()["id"]
    roles = {
        "nobody": {},
        "wrong": {"Authorization": f"Bearer fb_{'0' * 16}_{'0' * 64}"},
        "owner": owner,
        "submitter": full_site.token("submit", name="Other"),
        "verifier": full_site.token("verify", name="Verifier"),
        "moderator": full_site.token("moderate", name="Moderator"),
    }
    return full_site, identity, roles


def routes(site):
    def walk(found):
        for route in found:
            inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
            if isinstance(route, Route):
                yield route
            elif inner:
                yield from walk(inner)

    return [
        (method, route.path) for route in walk(site.client.app.routes) for method in sorted(route.methods - {"HEAD"})
    ]


def filled(path, identity, task):
    values = {"identity": identity, "task": task, "name": NAME, "ending": "csv"}
    whole = re.sub(r"\{(\w+)(?::path)?\}", lambda part: values[part[1]], path)
    return whole + (f"?ids={identity},{identity}x" if "/compare" in path else "")


def test_reading_tells_only_its_submitter_and_moderators(waiting, world):
    site, identity, roles = waiting
    told, read = set(), 0
    for method, path in routes(site):
        if method != "GET":
            continue
        read += 1
        for role, headers in roles.items():
            answer = site.client.get(filled(path, identity, world.task), headers=headers)
            assert answer.status_code < 500, (path, role)
            if answer.status_code == 200 and NAME in answer.text.replace(f"/methods/{NAME}", ""):
                told.add((path, role))
            if role == "wrong" and "/api/v1/" in path and ("entries" in path or "submissions" in path):
                assert answer.status_code == 401, path
    assert read >= 28
    assert {role for _, role in told} == SEES
    whole = {"/api/v1/entries/{identity}", "/api/v1/entries/{identity}/evidence", "/api/v1/submissions/{identity}"}
    assert {path for path, _ in told} == whole
    for role, headers in roles.items():
        status = site.client.get(f"/api/v1/entries/{identity}/evidence", headers=headers).status_code
        assert status == (200 if role in SEES else 401 if role == "wrong" else 404), role


def test_writing_needs_the_scope(waiting):
    site, identity, roles = waiting
    zipped = {"Content-Type": "application/zip"}
    change = {"state": "quarantined", "reason": "because"}
    posts = {
        "/api/v1/submissions": lambda path, headers: site.client.post(path, content=b"x", headers=headers | zipped),
        "/api/v1/submissions/{identity}/verifications": lambda path, headers: site.client.post(
            path, content=b"x", headers=headers | zipped
        ),
        "/api/v1/submissions/{identity}/state": lambda path, headers: site.client.post(
            path, json=change, headers=headers
        ),
    }
    assert {path for method, path in routes(site) if method != "GET"} == set(posts)
    answered = {
        (path.rpartition("/")[2], role): send(filled(path, identity, ""), headers).status_code
        for path, send in posts.items()
        for role, headers in roles.items()
    }
    denied = {"nobody": 401, "wrong": 401}
    expected = {
        "submissions": denied | {"owner": 400, "submitter": 400, "verifier": 403, "moderator": 403},
        "verifications": denied | {"owner": 403, "submitter": 403, "verifier": 400, "moderator": 403},
        # a stranger learns nothing of it, its owner may only withdraw it, and it is not yet there to be quarantined
        "state": denied | {"owner": 403, "submitter": 404, "verifier": 404, "moderator": 409},
    }
    assert answered == {(path, role): status for path, roles in expected.items() for role, status in roles.items()}
