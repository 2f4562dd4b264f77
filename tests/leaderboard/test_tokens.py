"""Bearer tokens: which requests they authenticate, and what is stored of them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from forgetbench.errors import UsageError
from forgetbench.leaderboard.admin import create_token
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.db.models import Token, utc_now

INVALID_HEADERS = {
    "none": None,
    "nonsense": "Bearer nonsense",
    "another scheme": "Basic abc",
    "unknown": f"Bearer fb_{'0' * 16}_{'0' * 64}",
}


def whoami(site, token):
    return site.client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("kind", INVALID_HEADERS)
def test_submit_without_valid_token_is_refused(kind, site, world, tmp_path):
    headers = {"Authorization": INVALID_HEADERS[kind]} if INVALID_HEADERS[kind] else {}
    answer = site.post(world.write_run(tmp_path / "run"), headers)
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["WWW-Authenticate"]


def test_token_with_another_secret_is_refused(site):
    token = create_token(site.settings, "Ada", ["submit"])
    forged = token[:-1] + ("0" if token[-1] != "0" else "1")
    assert whoami(site, token).json()["name"] == "Ada"
    assert whoami(site, forged).status_code == 401


def test_submit_without_the_scope_is_refused(site, world, tmp_path):
    assert site.post(world.write_run(tmp_path / "run"), site.token("verify")).status_code == 403


def test_revoked_and_expired_tokens_are_refused(site):
    token = create_token(site.settings, "Ada", ["submit"])
    with site.database.write_session() as session:
        tokens.revoke_token(session, token)
    assert whoami(site, token).status_code == 401
    with site.database.write_session() as session:
        expired = tokens.create_token(session, "Old", ["submit"], expires_at=utc_now() - timedelta(seconds=1))
    assert whoami(site, expired).status_code == 401


def test_create_token_stores_only_the_hash(site):
    secret = create_token(site.settings, "Ada", ["submit"]).rpartition("_")[2]
    with site.database.read_session() as session:
        row = session.scalars(select(Token).where(Token.name == "Ada")).one()
        assert secret not in str({column.name: getattr(row, column.name) for column in Token.__table__.columns})
    for path in site.settings.server_folder.glob("leaderboard.sqlite*"):
        assert secret.encode() not in path.read_bytes()


def test_token_use_updates_last_used_at(site):
    site.client.get("/api/v1/whoami", headers=site.token(name="Ada"))
    with site.database.read_session() as session:
        assert session.scalars(select(Token).where(Token.name == "Ada")).one().last_used_at is not None


@pytest.mark.parametrize(("name", "scopes"), [("Ada", ["root"]), ("Ada", []), ("", ["submit"]), ("<b>", ["submit"])])
def test_create_token_with_bad_name_or_scope_is_refused(name, scopes, site):
    with pytest.raises(UsageError):
        create_token(site.settings, name, scopes)
