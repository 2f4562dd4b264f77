from __future__ import annotations

from datetime import timedelta

import pytest

from forgetbench.errors import UsageError
from forgetbench.leaderboard.admin import create_token
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.db.models import Token, utc_now

WRONG = {
    "none": None,
    "nonsense": "Bearer nonsense",
    "another scheme": "Basic abc",
    "unknown": f"Bearer fb_{'0' * 16}_{'0' * 64}",
}


@pytest.mark.parametrize("kind", WRONG)
def test_without_a_good_token_nothing_is_taken(kind, site, world, tmp_path):
    headers = {"Authorization": WRONG[kind]} if WRONG[kind] else {}
    answer = site.post(world.write_run(tmp_path / "run"), headers)
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["WWW-Authenticate"]


def test_the_right_id_with_another_secret_is_wrong(site):
    token = create_token(site.settings, "Ada", ["submit"])
    forged = token[:-1] + ("0" if token[-1] != "0" else "1")
    assert site.client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token}"}).json()["name"] == "Ada"
    assert site.client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {forged}"}).status_code == 401


def test_a_token_needs_the_scope(site, world, tmp_path):
    assert site.post(world.write_run(tmp_path / "run"), site.token("verify")).status_code == 403


def test_revoked_and_expired_tokens_are_refused(site):
    token = create_token(site.settings, "Ada", ["submit"])
    headers = {"Authorization": f"Bearer {token}"}
    with site.database.write_session() as session:
        tokens.revoke_token(session, token)
    assert site.client.get("/api/v1/whoami", headers=headers).status_code == 401
    with site.database.write_session() as session:
        old = tokens.create_token(session, "Old", ["submit"], expires_at=utc_now() - timedelta(seconds=1))
    assert site.client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {old}"}).status_code == 401


def test_only_the_hash_of_a_secret_is_stored(site):
    secret = create_token(site.settings, "Ada", ["submit"]).rpartition("_")[2]
    with site.database.read_session() as session:
        row = session.query(Token).filter(Token.name == "Ada").one()
        assert secret not in str({column.name: getattr(row, column.name) for column in Token.__table__.columns})
    for path in site.settings.server_folder.glob("leaderboard.sqlite*"):
        assert secret.encode() not in path.read_bytes()


def test_the_last_use_is_noted(site):
    headers = site.token(name="Ada")
    site.client.get("/api/v1/whoami", headers=headers)
    with site.database.read_session() as session:
        assert session.query(Token).filter(Token.name == "Ada").one().last_used_at is not None


@pytest.mark.parametrize(("name", "scopes"), [("Ada", ["root"]), ("Ada", []), ("", ["submit"]), ("<b>", ["submit"])])
def test_bad_names_and_scopes_are_refused(name, scopes, site):
    with pytest.raises(UsageError):
        create_token(site.settings, name, scopes)


def test_an_unlisted_submission_is_seen_by_its_submitter_and_moderators_only(site, world, tmp_path):
    mine, other, moderator = site.token(), site.token(name="Other"), site.token("moderate", name="Moderator")
    identity = site.post(world.write_run(tmp_path / "run"), mine).json()["id"]
    seen = {}
    for name, headers in (("mine", mine), ("other", other), ("moderator", moderator), ("nobody", {})):
        for path in (f"/api/v1/submissions/{identity}", f"/api/v1/entries/{identity}"):
            seen[(name, path.split("/")[3])] = site.client.get(path, headers=headers).status_code
    assert {key for key, status in seen.items() if status == 200} == {
        (name, kind) for name in ("mine", "moderator") for kind in ("submissions", "entries")
    }
    assert set(seen.values()) == {200, 404}
    assert site.client.get(f"/entries/{identity}", headers=mine).status_code in {200, 404}
