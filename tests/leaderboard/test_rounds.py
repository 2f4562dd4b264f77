"""Rounds, teams and invitations, and a challenge rehearsed from its first token to the restored backup."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from support.leaderboard import TASK, Site

from forgetbench.cli import main
from forgetbench.errors import UsageError
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.db.models import Board, Entry, Token, utc_now
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions.rounds import Schedule
from forgetbench.leaderboard.worker import worker as worker_module

PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def schedule(site, **changes):
    admin.schedule_round(site.settings, TASK, Schedule(**{"opens": PAST, **changes}))


def board_of(site):
    with site.database.read_session() as session:
        board = session.scalars(select(Board).where(Board.superseded_at.is_(None))).one()
        session.expunge(board)
        return board


def document(site, entry_id, headers):
    return site.client.get(f"/api/v1/submissions/{entry_id}", headers=headers).json()


@pytest.mark.parametrize("visibility", ["own", "accepted"])
def test_hidden_results_appear_with_the_reveal_only(visibility, site, world, tmp_path):
    schedule(site, visibility=visibility)
    owner, moderator = site.token(name="Ada"), site.token("moderate", name="Moderator")
    entry_id = site.post(world.write_run(tmp_path / "run", memory=0.1), owner).json()["id"]
    site.work()
    before = document(site, entry_id, owner)
    assert (before["state"], before["rank"]) == ("accepted", None)
    assert (before["distance"] is not None) == (visibility == "own")
    assert (before["verdict"] is not None) == (visibility == "own")
    entry = site.client.get(f"/api/v1/entries/{entry_id}", headers=owner)
    assert entry.status_code == (200 if visibility == "own" else 403)
    assert site.entry(entry_id, moderator)["scorecard"] is not None
    for path in (f"/api/v1/boards/{TASK}", f"/boards/{TASK}", "/methods", "/feed.atom", "/dump.jsonl"):
        assert "scrub" not in site.client.get(path).text, path
    for path in (f"/entries/{entry_id}", f"/badges/{entry_id}.svg", f"/api/v1/entries/{entry_id}"):
        assert site.client.get(path).status_code == 404
    assert site.change_state(entry_id, "listed", moderator).status_code == 409  # only the reveal lists it
    assert site.change_state(entry_id, "quarantined", moderator).status_code == 200
    assert site.change_state(entry_id, "listed", moderator).json()["state"] == "accepted"
    assert admin.reveal_round(site.settings, TASK) == (1, 0)
    site.work()
    [row] = site.client.get(f"/api/v1/boards/{TASK}").json()["rows"]
    assert (row["id"], row["rank"]["position"]) == (entry_id, 1)


def test_board_accepts_submissions_within_its_dates_only(site, world, tmp_path):
    owner, run = site.token(name="Ada"), world.write_run(tmp_path / "run")
    schedule(site, opens=FUTURE)
    assert "opens on 2099-01-01 00:00 UTC" in site.post(run, owner).text
    schedule(site, closes=PAST + timedelta(days=1))
    assert "was closed on 2020-01-02" in site.post(run, owner).text
    schedule(site)
    assert site.post(run, owner, dry_run=True).status_code == 200
    admin.close_round(site.settings, TASK)
    answer = site.post(run, owner)
    assert (answer.status_code, "accepts no submissions any more" in answer.text) == (422, True)


def test_schedule_that_is_not_possible_is_explained(site, world, tmp_path):
    for changes, words in (
        ({"closes": PAST - timedelta(1)}, "not in order"),
        ({"final_only": True, "closes": FUTURE}, "needs a sealed board"),
        ({"team_submissions": 0}, "--per-team must be at least 1"),
    ):
        with pytest.raises(UsageError, match=words):
            schedule(site, **changes)
    schedule(site, visibility="own")
    site.post(world.write_run(tmp_path / "run"), site.token())
    site.work()
    with pytest.raises(UsageError, match="1 submissions of the present round are hidden"):
        schedule(site, opens=FUTURE)
    with pytest.raises(UsageError, match="No board for task 'none'"):
        admin.close_round(site.settings, "none")


def test_team_shares_quota_and_entries(site, world, tmp_path):
    schedule(site, team_submissions=1)
    ada, mary = (bearer(admin.create_token(site.settings, name, team="Engines")) for name in ("Ada", "Mary"))
    other = bearer(admin.create_token(site.settings, "Grace"))
    entry_id = site.post(world.write_run(tmp_path / "run"), ada).json()["id"]
    more = world.write_run(tmp_path / "more", start=700)
    answer = site.post(more, mary)
    assert (answer.status_code, "Your team has made 1 of 1 submissions of this round" in answer.text) == (403, True)
    assert site.post(more, other).status_code == 202
    assert site.entry(entry_id, mary)["row"]["submitter"] == "Engines"
    assert site.client.get(f"/api/v1/entries/{entry_id}", headers=other).status_code == 404
    assert site.change_state(entry_id, "withdrawn", mary).status_code == 200
    with site.database.write_session() as session:  # the next round counts anew
        session.execute(update(Entry).values(received_at=PAST))
    schedule(site, opens=PAST + timedelta(1), team_submissions=1)
    assert site.post(world.write_run(tmp_path / "third", start=800), mary).status_code == 202


def test_daily_quota_is_that_of_the_team(site, world, tmp_path):
    tokens = [admin.create_token(site.settings, name, team="Engines", daily_submissions=1) for name in ("Ada", "Mary")]
    assert site.post(world.write_run(tmp_path / "run"), bearer(tokens[0])).status_code == 202
    answer = site.post(world.write_run(tmp_path / "more", start=700), bearer(tokens[1]))
    assert (answer.status_code, "This team has made 1 of 1 submissions" in answer.text) == (429, True)


def test_dates_reveal_results_without_the_operator(site, world, tmp_path, monkeypatch):
    schedule(site, visibility="accepted", reveals=FUTURE)
    owner = site.token(name="Ada")
    entry_id = site.post(world.write_run(tmp_path / "run"), owner).json()["id"]
    site.work()
    site.worker._look_around()
    assert document(site, entry_id, owner)["state"] == "accepted"
    monkeypatch.setattr(worker_module, "utc_now", lambda: FUTURE)
    monkeypatch.setattr(worker_module, "LOOK_SECONDS", 0.0)
    site.worker._look_around()
    assert document(site, entry_id, {})["state"] == "listed"


TEAMS = "name,team,daily,days\nAda,Engines,5,30\nMary,Engines,,\nGrace,,,\n"


def command(site, capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["admin", *map(str, words), "--data", str(site.settings.server_folder), *database_option(site)])
    said = capsys.readouterr()
    return ended.value.code, said.out, " ".join(said.err.split())


def database_option(site):
    return ["--database", site.settings.database_url] if site.settings.database_url else []


def test_tokens_of_a_file_are_made_all_or_none(site, tmp_path, capsys):
    teams = tmp_path / "teams.csv"
    teams.write_text(TEAMS)
    status, out, _ = command(site, capsys, "token", "create", "--from", teams, "--days", 60)
    made = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert [(line["team"], line["name"]) for line in made] == [("Engines", "Ada"), ("Engines", "Mary"), ("", "Grace")]
    for line in made:
        assert site.client.get("/api/v1/whoami", headers=bearer(line["token"])).json()["name"] == line["name"]
    days = [(datetime.fromisoformat(line["expires"]) - utc_now()).days for line in made]
    assert days == [29, 59, 59]
    for text, words in (
        ("name\nNew\nada\n", "line 3: the name 'ada' is taken"),
        ("name\nNew\nNew\n", "line 3: the name 'New' is taken"),
        ("name,days\nNew,soon\n", "line 2: invalid literal"),
        ("name\n\x07\n", "Invalid token name"),
        ("person\nNew\n", "has the columns person"),
    ):
        teams.write_text(text)
        status, out, said = command(site, capsys, "token", "create", "--from", teams)
        assert (status, out, words in said) == (2, "", True), said
    assert "New" not in {token.name for token in admin.list_tokens(site.settings)}
    assert command(site, capsys, "token", "create")[0] == 2


def test_invitation_makes_tokens_until_it_is_used_up(site, capsys):
    code = command(site, capsys, "token", "invite", "--team", "Engines", "--uses", 2, "--token-days", 10)[1].strip()
    made = site.client.post("/api/v1/signup", json={"code": code, "name": "Ada"})
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    assert site.client.get("/api/v1/whoami", headers=bearer(made.json()["token"])).json()["scopes"] == ["submit"]
    taken = site.client.post("/signup", data={"code": code, "name": "ADA"})
    assert (taken.status_code, "The name &#39;ADA&#39; is taken" in taken.text) == (422, True)
    own = site.client.post("/signup", data={"code": code, "name": "forgetbench"})
    assert (own.status_code, "is taken" in own.text) == (422, True)
    page = site.client.post("/signup", data={"code": code, "name": "Mary"})
    token = re.search(r"FORGETBENCH_TOKEN=(fb_\w+)", page.text)[1]
    with site.database.read_session() as session:
        rows = {row.name: row for row in session.scalars(select(Token))}
    assert {row.team for row in rows.values()} == {"Engines"}
    assert (rows["Mary"].expires_at - utc_now()).days == 9
    assert site.client.get("/api/v1/whoami", headers=bearer(token)).status_code == 200
    for wrong in (code, code[:-1] + ("0" if code[-1] != "0" else "1"), "fbi_x", ""):
        answer = site.client.post("/api/v1/signup", json={"code": wrong, "name": "Grace"})
        assert (answer.status_code, "wrong, expired or used up" in answer.text) == (422, True)
    assert 'name="code"' in site.client.get("/signup").text


def test_invitation_without_a_team_lets_people_name_theirs(site):
    code = admin.create_invitation(site.settings, uses=3)
    assert site.client.post("/api/v1/signup", json={"code": code, "name": "Ada", "team": "Engines"}).status_code == 201
    taken = site.client.post("/api/v1/signup", json={"code": code, "name": "Mary", "team": "engines"})
    assert "is taken" in taken.text  # nobody joins a team that did not invite them
    assert site.client.post("/api/v1/signup", json={"code": code, "name": "Mary"}).status_code == 201


@pytest.mark.system
def test_challenge_of_two_rounds_is_rehearsed(site, world, tmp_path, capsys):
    limits = site.client.app.state.limits
    limits.__init__(site.settings.model_copy(update={"writes_per_minute": 10**6}), site.database)  # 50 teams are here
    teams = tmp_path / "teams.csv"
    teams.write_text("name,team\n" + "".join(f"Member {number},Team {number:02}\n" for number in range(50)))
    _, out, _ = command(site, capsys, "token", "create", "--from", teams, "--days", 90)
    headers = [bearer(line["token"]) for line in csv.DictReader(io.StringIO(out))]
    assert len(headers) == 50
    submitted = []
    for number, submitting in ((1, 50), (2, 10)):
        start = utc_now().isoformat()
        words = ("round", "schedule", TASK, "--opens", start, "--show", "own" if number == 1 else "accepted")
        assert command(site, capsys, *words, "--per-team", 1)[0] == 0
        ids = []
        for team in range(submitting):
            run = world.write_run(
                tmp_path / f"{number}-{team}", f"m{team}", start=10_000 * number + 20 * team, memory=0.1 + 0.05 * team
            )
            answer = site.post(run, headers[team])
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
        assert site.post(world.write_run(tmp_path / f"{number}-again", start=90_000), headers[0]).status_code == 403
        site.work()
        assert {document(site, *pair)["state"] for pair in zip(ids, headers, strict=False)} == {"accepted"}
        assert site.client.get(f"/api/v1/boards/{TASK}").json()["total"] == len(submitted)
        assert command(site, capsys, "round", "close", TASK)[0] == 0
        late = site.post(world.write_run(tmp_path / f"{number}-late", start=91_000), headers[49])
        assert (late.status_code, "was closed" in late.text) == (422, True)
        _, out, _ = command(site, capsys, "round", "reveal", TASK)
        assert f"{submitting} submissions are listed" in out
        site.work()
        submitted += ids
        assert site.client.get(f"/api/v1/boards/{TASK}").json()["total"] == len(submitted)
    rows = site.client.get(f"/api/v1/boards/{TASK}").json()["rows"]
    ranked = [row for row in rows if row["rank"]]
    assert len(ranked) >= 50
    assert [row["distance"] for row in ranked] == sorted(row["distance"] for row in ranked)
    assert {row["submitter"] for row in rows} == {f"Team {number:02}" for number in range(50)}

    purged = ranked[0]
    assert command(site, capsys, "purge", purged["id"], "--reason", "a request")[0] == 0
    site.work()
    assert site.client.get(f"/entries/{purged['id']}").status_code == 410
    assert command(site, capsys, "backup", tmp_path / "board.tar")[0] == 0

    elsewhere = Settings(server_folder=tmp_path / "elsewhere")
    admin.restore(elsewhere, tmp_path / "board.tar")
    restored = Site(elsewhere, world)
    with restored.client:
        left, right = (place.client.get(f"/api/v1/boards/{TASK}?limit=1000").json() for place in (site, restored))
        assert left == right
        assert purged["id"] not in {row["id"] for row in right["rows"]}
        other = right["rows"][0]["id"]
        evidence = [place.client.get(f"/api/v1/entries/{other}/evidence").content for place in (site, restored)]
        assert evidence[0] == evidence[1]
        assert restored.client.get("/api/v1/whoami", headers=headers[7]).json()["name"] == "Member 7"
        assert restored.client.get(f"/entries/{purged['id']}").status_code == 410
    restored.database.close()
