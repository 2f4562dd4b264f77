from __future__ import annotations

import io
import json
import logging
import re

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from support.concurrency import LIMIT

from forgetbench.leaderboard.logging import configure, remove_secrets
from forgetbench.leaderboard.web.routes import pages, submissions

SECRET = "fb_0123456789abcdef_" + "7" * 64


@pytest.fixture
def lines(site):
    """Reads the log: its records as objects, and its text; restores the loggers afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure("debug", stream)

    def read():
        return [json.loads(line) for line in stream.getvalue().splitlines()], stream.getvalue()

    yield read
    root.handlers[:], root.level = before, level


def test_request_is_logged_under_the_id_of_its_response(site, lines):
    answer = site.client.get("/boards/none/such?q=what+I+look+for")
    line = next(line for line in lines()[0] if line["logger"] == "forgetbench.access")
    assert line["request"] == answer.headers["X-Request-Id"]
    assert (line["method"], line["path"], line["status"], line["level"]) == ("GET", "/boards/none/such", 404, "info")
    assert 0 <= line["seconds"] < LIMIT
    assert "look" not in json.dumps(line)


def test_log_contains_no_token_header_or_body(site, lines, world, tmp_path):
    headers = site.token("submit", "verify", "moderate")
    token = headers["Authorization"].removeprefix("Bearer ")
    run = world.write_run(tmp_path / "run", command="XYZZY-in-the-body", method={"source": "XYZZY-in-the-source"})
    identity = site.post(run, headers).json()["id"]
    site.work()
    site.post(b"XYZZY-no-zip", headers)
    site.client.post(
        f"/api/v1/submissions/{identity}/state",
        json={"state": "quarantined", "reason": "XYZZY-in-a-reason"},
        headers=headers,
    )
    site.client.get("/api/v1/whoami", headers=headers)
    site.client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {SECRET}"})
    site.client.get(f"/boards/{token}?q={token}")
    records, log = lines()
    assert len([record for record in records if record["logger"] == "forgetbench.access"]) == 6
    assert token.rpartition("_")[2] not in log
    assert SECRET.rpartition("_")[2] not in log
    assert "XYZZY" not in log
    assert "Bearer" not in log


def test_exception_is_logged_under_the_id_of_the_response(site, lines, world, tmp_path, monkeypatch):
    headers = site.token()
    token = headers["Authorization"].removeprefix("Bearer ")

    def broken(*_arguments, **_options):
        raise RuntimeError(f"Authorization: Bearer {token} at postgresql://ada:hunter2@host/name")

    monkeypatch.setattr(submissions.receive, "receive_submission", broken)
    answer = site.post(world.write_run(tmp_path / "run"), headers)
    assert answer.status_code == 500
    assert answer.headers["Content-Security-Policy"]
    records, log = lines()
    [line] = [record for record in records if "error" in record]
    assert line["request"] in answer.json()["detail"]
    assert "RuntimeError" in line["error"]
    assert token.rpartition("_")[2] not in log
    assert "hunter2" not in log
    monkeypatch.setattr(pages, "front_page", broken)
    page = site.client.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 500
    assert "Internal server error" in page.text


def test_database_error_has_no_parameter_values(site):
    with pytest.raises(SQLAlchemyError) as error, site.database.read_session() as session:
        session.execute(text("SELECT * FROM nothing WHERE name = :name"), {"name": "XYZZY"})
    assert "XYZZY" not in str(error.value)


@pytest.mark.parametrize(
    "secret",
    [
        SECRET,
        f"Authorization: Bearer {SECRET}",
        f"{{'authorization': 'Bearer {SECRET}'}}",
        f"(b'authorization', b'Bearer {SECRET}')",
        "authorization=Basic aHVudGVyMg==",
        "postgresql+psycopg://ada:hunter2@host/name",
    ],
)
def test_remove_secrets_replaces_all_forms(secret):
    clean = remove_secrets(f"before {secret} after")
    assert not re.search(r"7{8}|hunter2|aHVudGVyMg", clean)
    assert clean.startswith("before ")
    assert clean.endswith("after")


def test_log_has_no_terminal_escape(lines):
    logging.getLogger("forgetbench.test").info("of %s", "\x1b[2J\x9b31m\u202e")
    [record], log = lines()
    assert record["message"] == "of \x1b[2J\x9b31m\u202e"  # the same JSON text
    assert log.strip().isascii()
