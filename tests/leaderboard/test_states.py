from __future__ import annotations

import io
import itertools
import json
import re
import zipfile

import pytest
from fastapi.testclient import TestClient

from forgetbench.errors import UsageError
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import verification
from forgetbench.leaderboard.submissions.verification import compare_scorecards
from forgetbench.leaderboard.web.app import create_app


@pytest.fixture
def listed(site, world, tmp_path):
    """One listed submission: (id, its submitter's headers)."""
    headers = site.token(name="Ada")
    identity = site.post(world.write_run(tmp_path / "run", memory=0.1), headers).json()["id"]
    site.work()
    return identity, headers


def body_of(folder):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return stream.getvalue()


def verify(site, identity, folder, headers):
    typed = {"Content-Type": "application/zip", **headers}
    return site.client.post(f"/api/v1/submissions/{identity}/verifications", content=body_of(folder), headers=typed)


def move(site, identity, state, headers, reason="because"):
    path = f"/api/v1/submissions/{identity}/state"
    return site.client.post(path, json={"state": state, "reason": reason}, headers=headers)


def entry(site, identity, headers=None):
    return site.client.get(f"/api/v1/entries/{identity}", headers=headers or {}).json()


def test_a_second_record_that_agrees_makes_a_row_reproduced(site, world, listed, tmp_path):
    identity, _ = listed
    second = world.write_run(tmp_path / "second", memory=0.1, start=700)
    assert verify(site, identity, second, site.token("verify", name="Grace")).status_code == 202
    site.work()
    found = entry(site, identity)
    assert found["row"]["tier"] == "reproduced", found["verifications"]
    assert found["verifications"][0]["verifier"] == "Grace"
    assert all(item["agrees"] for item in found["verifications"][0]["comparison"].values())
    only = site.client.get(f"/api/v1/boards/{world.task}?tier=reproduced").json()
    assert [row["rank"]["low"] for row in only["rows"]] == [1]
    assert "Verifications" in site.client.get(f"/entries/{identity}").text


def test_a_second_record_that_differs_flags_the_row_and_shows_both(site, world, listed, tmp_path):
    identity, _ = listed
    second = world.write_run(tmp_path / "second", memory=2.0, start=700)
    verify(site, identity, second, site.token("verify", name="Grace"))
    site.work()
    found = entry(site, identity)
    assert (found["row"]["tier"], found["row"]["state"]) == ("recomputed", "flagged")
    assert "lira.forget" in found["history"][-1]["reason"]
    assert "under review" in site.client.get(f"/boards/{world.task}").text


def test_nobody_verifies_their_own_or_another_method(site, world, listed, tmp_path):
    identity, headers = listed
    second = world.write_run(tmp_path / "second", start=700)
    other = world.write_run(tmp_path / "other", "another", start=800)
    assert verify(site, identity, second, headers).status_code == 403  # no scope
    grace = site.token("verify", name="Grace")
    refused = verify(site, identity, other, grace)
    assert (refused.status_code, "method.name" in refused.text) == (422, True)
    assert verify(site, "nobody", second, grace).status_code == 404
    both = site.token("verify", "submit", name="Both")
    own = site.post(world.write_run(tmp_path / "own", start=900), both).json()["id"]
    site.work()
    assert verify(site, own, world.write_run(tmp_path / "again", start=950), both).status_code == 403


def test_a_submitter_withdraws_and_a_tombstone_stays(site, world, listed):
    identity, headers = listed
    assert move(site, identity, "withdrawn", site.token(name="Other")).status_code == 403
    assert move(site, identity, "withdrawn", headers, "a bug in my method").json()["state"] == "withdrawn"
    site.work()
    gone = site.client.get(f"/entries/{identity}", headers={"Accept": "text/html"})
    assert (gone.status_code, "a bug in my method" in gone.text) == (410, True)
    assert site.client.get(f"/api/v1/boards/{world.task}").json()["rows"] == []
    assert "1 withdrawn" in site.client.get("/submitters/Ada").text
    assert entry(site, identity, headers)["row"]["state"] == "withdrawn"
    assert move(site, identity, "listed", site.token("moderate")).status_code == 409


def test_a_moderator_quarantines_and_restores_with_a_reason(site, world, listed):
    identity, headers = listed
    moderator = site.token("moderate", name="Moderator")
    assert move(site, identity, "quarantined", headers).status_code == 403
    assert move(site, identity, "quarantined", moderator, "looks copied").status_code == 200
    assert site.client.get(f"/entries/{identity}").status_code == 404
    assert move(site, identity, "listed", moderator, "explained").status_code == 200
    site.work()
    found = entry(site, identity)
    assert [(event["after"], event["actor"]) for event in found["history"][-2:]] == [
        ("quarantined", "Moderator"),
        ("listed", "Moderator"),
    ]
    assert found["row"]["rank"]["low"] == 1


@pytest.mark.parametrize(
    "body", [{}, {"state": "listed"}, {"state": "listed", "reason": " "}, {"state": "gone", "reason": "x"}]
)
def test_a_change_of_state_needs_a_known_state_and_a_reason(body, site, listed):
    moderator = site.token("moderate")
    answer = site.client.post(f"/api/v1/submissions/{listed[0]}/state", json=body, headers=moderator)
    assert answer.status_code == 422


def test_the_reference_rows_stay(site, world):
    retrain = site.client.get(f"/api/v1/boards/{world.task}").json()["references"][0]["id"]
    assert move(site, retrain, "quarantined", site.token("moderate")).status_code == 409
    assert site.client.get(f"/api/v1/entries/{retrain}/evidence").status_code == 404


def test_evidence_is_handed_out_as_it_came(site, world, listed, tmp_path):
    answer = site.client.get(f"/api/v1/entries/{listed[0]}/evidence")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        for name in archive.namelist():
            assert archive.read(name) == (tmp_path / "run" / name).read_bytes()
    assert not list(site.settings.incoming.iterdir())


def test_a_packs_secrets_stay_on_the_server(site, world):
    answer = site.client.get(f"/api/v1/tasks/{world.task}/pack")
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert "pack.json" in names
    assert {name.partition("/")[0] for name in names} == {"pack.json", "originals"}


def test_every_route_with_every_role(site, world, listed, tmp_path):
    """Who may do what, as one table."""
    identity, owner = listed
    second = body_of(world.write_run(tmp_path / "second", start=700))
    typed = {"Content-Type": "application/zip"}
    roles = {"nobody": {}, "owner": owner, **{scope: site.token(scope, name=scope) for scope in ("verify", "moderate")}}
    routes = {
        "whoami": lambda headers: site.client.get("/api/v1/whoami", headers=headers),
        "submit": lambda headers: site.post(b"", headers),
        "verify": lambda headers: site.client.post(
            f"/api/v1/submissions/{identity}/verifications", content=second[:50], headers={**typed, **headers}
        ),
        "flag": lambda headers: move(site, identity, "rejected", headers),
        "read": lambda headers: site.client.get(f"/api/v1/entries/{identity}", headers=headers),
    }
    expected = {
        "whoami": {"nobody": 401, "owner": 200, "verify": 200, "moderate": 200},
        "submit": {"nobody": 401, "owner": 400, "verify": 403, "moderate": 403},
        "verify": {"nobody": 401, "owner": 403, "verify": 400, "moderate": 403},
        "flag": {"nobody": 401, "owner": 403, "verify": 403, "moderate": 409},
        "read": {"nobody": 200, "owner": 200, "verify": 200, "moderate": 200},
    }
    for (name, route), role in itertools.product(routes.items(), roles):
        assert route(roles[role]).status_code == expected[name][role], (name, role)


def test_too_many_requests_are_told_when_to_come_back(site, make_settings, world, databases, tmp_path):
    from forgetbench.leaderboard.auth.rate_limit import RateLimits

    slow = Settings(**{**site.settings.model_dump(), "reads_per_minute": 3, "writes_per_minute": 2})
    site.client.app.state.limits.__init__(slow, site.database)
    headers = site.token()
    assert [site.post(b"", headers).status_code for _ in range(3)] == [400, 400, 429]
    site.client.app.state.limits.__init__(slow, site.database)
    answers = [site.client.get("/") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 61
    assert site.client.get("/health").status_code == 200
    assert isinstance(site.client.app.state.limits, RateLimits)


def test_the_database_counts_as_the_memory_does(site):
    from limits import RateLimitItemPerMinute
    from limits.strategies import FixedWindowRateLimiter

    from forgetbench.leaderboard.auth.rate_limit import DatabaseStorage

    storage = DatabaseStorage(site.database)
    limiter, item = FixedWindowRateLimiter(storage), RateLimitItemPerMinute(2)
    assert [limiter.hit(item, "a"), limiter.hit(item, "a"), limiter.hit(item, "a"), limiter.hit(item, "b")] == [
        True,
        True,
        False,
        True,
    ]
    assert storage.check()
    storage.reset()
    assert limiter.hit(item, "a")


def test_an_operator_sees_tokens_and_the_queue_and_moderates(site, listed):
    identity, _ = listed
    names = {line.name: line for line in admin.list_tokens(site.settings)}
    assert names["Ada"].scopes == ("submit",)
    assert admin.revoke_token(site.settings, names["Ada"].id) == "Ada"
    with pytest.raises(UsageError, match="Unknown token"):
        admin.revoke_token(site.settings, "nope")
    assert admin.moderation_queue(site.settings) == []
    assert admin.change_state(site.settings, identity, "quarantined", "a look").label == "scrub"
    assert [(line.id, line.state, line.reason) for line in admin.moderation_queue(site.settings)] == [
        (identity, "quarantined", "a look")
    ]
    with pytest.raises(UsageError, match="cannot become"):
        admin.change_state(site.settings, identity, "flagged", "no")


def test_a_recount_scores_again_what_older_code_scored(site, world, listed):
    from sqlalchemy import update

    from forgetbench.leaderboard.db.models import Score

    assert admin.rescore(site.settings) == 0
    before = entry(site, listed[0])
    with site.database.write_session() as session:
        session.execute(update(Score).values(software={"code": "old"}))
    assert admin.rescore(site.settings, world.task) == 3
    assert site.work() == 3 + 1
    after = entry(site, listed[0])
    assert after["scorecard"] == before["scorecard"]
    assert after["software"]["code"] != "old"
    assert "scored again" in after["history"][-1]["reason"]


def test_a_backup_gives_the_same_server(site, world, listed, tmp_path):
    if site.settings.database_url:
        with pytest.raises(UsageError, match="pg_dump"):
            admin.backup(site.settings, tmp_path / "x.tar")
        return
    target = admin.backup(site.settings, tmp_path / "server.tar")
    with pytest.raises(UsageError, match="already exists"):
        admin.backup(site.settings, target)
    other = Settings(server_folder=tmp_path / "restored")
    admin.restore(other, target)
    with pytest.raises(UsageError, match="not empty"):
        admin.restore(other, target)
    again = type(site)(other, world)
    with again.client:
        assert entry(again, listed[0]) == entry(site, listed[0])
        assert again.client.get(f"/api/v1/entries/{listed[0]}/evidence").status_code == 200
    again.database.close()


def test_a_token_reads_no_more_from_many_addresses(site):
    slow = Settings(**{**site.settings.model_dump(), "reads_per_minute": 3})
    headers = site.token()
    counts = []
    with TestClient(create_app(slow)) as client:
        for number in range(5):
            client._transport.client = (f"10.0.0.{number}", 1)
            counts.append(client.get("/api/v1/whoami", headers=headers).status_code)
        client._transport.client = ("10.0.0.9", 1)
        assert client.get("/api/v1/whoami", headers=site.token(name="Other")).status_code == 200
    assert counts == [200, 200, 200, 429, 429]


def test_a_dump_and_a_static_export_outlive_the_server(full, tmp_path):
    assert admin.write_dump(full.settings, tmp_path / "all.jsonl") == 7
    head, *lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert (head["license"], head["protocols"], set(head)) == ("CC-BY-4.0", [1], set(head) | {"version", "date"})
    assert {line["row"]["method"] for line in lines} >= {"alpha", "retrain", "none"}
    paths = admin.export_static(full.settings, tmp_path / "static", "https://board.example.org")
    assert {path.suffix for path in paths} == {".html", ".csv", ".json", ".md", ".tex"}
    page = (tmp_path / "static" / "tiny--cnn--random-10.html").read_text()
    assert "alpha" in page
    assert 'href="/' not in page
    row = next(line["row"] for line in lines if line["row"]["method"] == "alpha")
    assert f'href="entries/{row["id"]}.html"' in page
    entry = (tmp_path / "static" / "entries" / f"{row['id']}.html").read_text()
    assert "Provenance" in entry
    assert '="/' not in entry
    for address in re.findall(r'(?:href|src)="(\.\./[^"]+)"', entry):
        assert (tmp_path / "static" / "entries" / address).resolve().is_file(), address
    answer = full.client.get("/dump.jsonl")
    told, *same = [json.loads(line) for line in answer.text.splitlines()]
    assert same == lines
    assert {**told, "date": head["date"]} == head
    assert 'href="/dump.jsonl"' in full.client.get("/").text


def test_a_metric_that_both_records_lack_cannot_tell():
    there = {"value": 1.0, "pseudo_values": [1.0, 1.1, 0.9]}
    lacks = {"value": 1.0, "pseudo_values": []}
    first = {"ranking": ["a", "b", "c"], "metrics": {"a": there, "b": lacks, "c": there}}
    second = {"ranking": ["a", "b", "c"], "metrics": {"a": there, "b": lacks, "c": lacks}}
    found = compare_scorecards(first, second)
    assert {name: item["agrees"] for name, item in found.items()} == {"a": True, "b": None, "c": False}


def test_a_verification_that_cannot_tell_leaves_the_row_as_it_was(site, world, listed, tmp_path, monkeypatch):
    identity, _ = listed
    monkeypatch.setattr(verification, "difference", lambda *_: None)
    cards = verification.compare_scorecards

    def without_pseudo_values(first, second):
        for card in (first, second):
            for name in card["ranking"]:
                card["metrics"][name]["pseudo_values"] = []
        return cards(first, second)

    monkeypatch.setattr(verification, "compare_scorecards", without_pseudo_values)
    run = world.write_run(tmp_path / "second", memory=0.1, start=700)
    verify(site, identity, run, site.token("verify", name="Grace"))
    site.work()
    found = entry(site, identity)
    assert (found["row"]["state"], found["row"]["tier"]) == ("listed", "recomputed")
    assert found["verifications"][0]["verdict"] == "failed"
    assert "inconclusive" in found["history"][-1]["reason"]
    assert "inconclusive" in site.client.get(f"/entries/{identity}").text
