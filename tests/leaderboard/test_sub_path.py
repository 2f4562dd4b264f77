"""A site in a folder of another site: redirects, behind a proxy that removes the folder from the path."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from pydantic import HttpUrl
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web.app import create_app
from forgetbench.leaderboard.web.middleware import RootPath


def location_of(target, *, root="/lab/board", path="/from"):
    """Header of a response that leads to a target, as a browser receives it."""
    app = Starlette(routes=[Route(path, lambda _request: Response("", 303, headers={"Location": target}))])
    client = TestClient(RootPath(app, root), base_url="https://example.org", follow_redirects=False)
    return client.get(path).headers["location"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/submit", "/lab/board/submit"),
        ("/boards/a%20b?sort=cost&page=2", "/lab/board/boards/a%20b?sort=cost&page=2"),
        ("/", "/lab/board/"),
        ("submit", "submit"),  # relative to the page: right in any folder
        ("https://login.example.org/authorize?state=x", "https://login.example.org/authorize?state=x"),
        ("https://example.org/realms/lab/authorize", "https://example.org/realms/lab/authorize"),  # on the same host
        ("https://example.org/from/", "/lab/board/from/"),  # the framework's own, with a slash at the end
        ("http://127.0.0.1:8000/from/?page=2", "/lab/board/from/?page=2"),  # of a proxy that changes the host
    ],
)
def test_location_leads_into_the_folder(target, expected):
    assert location_of(target) == expected


@pytest.mark.parametrize("target", ["/submit", "https://example.org/from/", "https://login.example.org/from"])
def test_location_at_the_root_of_a_host_is_unchanged(target):
    assert location_of(target, root="") == target


def test_quoted_paths_are_compared_unquoted():
    assert location_of("https://example.org/a%20b/", path="/a b") == "/lab/board/a%20b/"


def test_responses_without_location_are_unchanged():
    app = Starlette(routes=[Route("/", lambda _request: PlainTextResponse("x"))])
    answer = TestClient(RootPath(app, "/lab")).get("/")
    assert (answer.status_code, "location" in answer.headers) == (200, False)


@pytest.mark.parametrize(
    ("address", "root"),
    [
        ("https://example.org", ""),
        ("https://example.org/", ""),
        ("https://example.org/board", "/board"),
        ("https://example.org/lab/board/", "/lab/board"),
        ("https://example.org/the board", "/the%20board"),
        ("https://example.org/the%20board", "/the%20board"),
        (None, ""),
    ],
)
def test_root_path_is_that_of_the_public_address(address, root):
    assert Settings(public_url=HttpUrl(address) if address else None).root_path == root


def test_slash_at_the_end_of_a_page_is_removed_inside_the_folder(make_settings):
    settings = make_settings(public_url="https://example.org/lab/board")
    with TestClient(create_app(settings), base_url="https://example.org", follow_redirects=False) as client:
        answer = client.get("/metrics/")  # as the proxy passes it on
    assert (answer.status_code, answer.headers["location"]) == (307, "/lab/board/metrics")
