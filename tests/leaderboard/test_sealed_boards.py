"""Sealed boards of a tiny task: what is offered, what is hidden, and which rows rank."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from datetime import UTC, datetime

import pytest
from sqlalchemy import select
from support.leaderboard import TASK, Site, World, edit_manifest, score_everything

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.reference import read_pack
from forgetbench.evidence.run import describe
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.boards import queries
from forgetbench.leaderboard.db.models import Board, Entry, Job
from forgetbench.leaderboard.db.session import open_database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import reference, rounds, seals
from forgetbench.leaderboard.submissions.seals import (
    RoundSeal,
    install_sealed_board,
    receive_verified_runs,
    server_salt,
)

SALT = "5a" * 32
HIDDEN = ("labels", "references", "controls", "sealed")


@pytest.fixture(scope="session")
def sealed_world():
    """The sealed draws of the tiny task: other forgotten rows, originals and oracles."""
    return World(f"{TASK}/sealed-0123456789ab", seed=11)


@pytest.fixture(scope="session")
def sealed_packs(world, sealed_world, tmp_path_factory):
    """The three bundles of a sealed board."""
    folder, development = tmp_path_factory.mktemp("sealed"), World(f"{TASK}/development", seed=13)
    made = {"public": world, "sealed": sealed_world, "development": development}
    return {kind: maker.write_pack(folder / kind, kind=kind) for kind, maker in made.items()}


@pytest.fixture(scope="session")
def prepared_sealed(sealed_packs, world, databases, tmp_path_factory):
    """A server with a sealed board whose baselines are scored: made once, copied for each test."""
    folder = tmp_path_factory.mktemp("prepared-sealed") / "server"
    settings = Settings(server_folder=folder, database_url=databases.new_url())
    with open_database(settings) as database:
        install_sealed_board(database, settings, sealed_packs, RoundSeal(round=1, salt=SALT))
    return score_everything(settings, world)


@pytest.fixture
def sealed(prepared_sealed, databases, world, tmp_path):
    """A site whose board is sealed."""
    site = Site(databases.copy(prepared_sealed, tmp_path / "server"), world)
    with site.client, site.database.read_session() as session:
        site.board = queries.get_board(session, TASK)
        session.expunge_all()
        yield site
    site.database.close()


@pytest.fixture
def verified(sealed, world, sealed_world, tmp_path):
    """Makes an entry that the runner has run: ``memory`` on public and on sealed draws."""

    def make(name, memory, start, *, scopes=("submit",), sealed_memory=None):
        claim = world.write_run(tmp_path / name, name, memory=memory, start=start)
        entry = sealed.post(claim, sealed.token(*scopes, name=f"Author of {name}")).json()["id"]
        sealed.work()
        runs = {
            "public": world.write_run(tmp_path / f"{name}-p", name, memory=memory, start=start),
            "sealed": sealed_world.write_run(
                tmp_path / f"{name}-s", name, memory=memory if sealed_memory is None else sealed_memory, start=start
            ),
        }
        receive_verified_runs(sealed.database, sealed.settings, entry, runs, actor="runner 1")
        sealed.work()
        return entry

    return make


def offered(site, **params):
    """Names and contents of the files that a server gives away of its board."""
    answer = site.client.get(f"/api/v1/tasks/{TASK}/pack", params=params)
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_public_card_names_no_hidden_file_and_no_hash(sealed, sealed_packs):
    files = offered(sealed)
    card = json.loads(files["pack.json"])
    assert set(card["files"]) == set(files) - {"pack.json"}
    assert not [name for name in files if name.startswith(HIDDEN)]
    hidden = [
        sha
        for kind in ("public", "sealed")
        for name, sha in read_pack(sealed_packs[kind]).card.files.items()
        if name not in files or kind == "sealed"
    ]
    assert hidden
    assert not [sha for sha in hidden if sha in files["pack.json"].decode()]


def test_local_board_offers_no_hash_of_a_hidden_file(site, tiny_pack):
    card = json.loads(offered(site)["pack.json"])
    assert sorted(card["files"]) == sorted(tiny_pack.card.offered_files)
    assert not [name for name in card["files"] if name.startswith(HIDDEN)]
    assert site.client.get(f"/api/v1/tasks/{TASK}/pack?kind=development").status_code == 404


def test_development_bundle_is_offered_as_a_whole(sealed, sealed_packs):
    files = offered(sealed, kind="development")
    card = read_pack(sealed_packs["development"]).card
    assert set(files) == {*card.files, "pack.json"}
    assert json.loads(files["pack.json"])["kind"] == "development"


def test_development_run_is_refused_with_its_reason(sealed, tmp_path):
    run = World(f"{TASK}/development", seed=13).write_run(tmp_path / "run")
    refused = sealed.post(run, sealed.token())
    assert (refused.status_code, "development bundle: not the board" in refused.text) == (422, True)
    page = sealed.client.get("/submit").text
    assert (f"pack pull {TASK}" in page, f"run {TASK}/development --seeds 6" in page) == (True, True)


def test_salt_is_private_and_on_no_page(sealed):
    salt = server_salt(sealed.settings)
    folder = reference.board_folder(sealed.settings, sealed.board)
    for path in (sealed.settings.salt, folder / seals.SEAL):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert server_salt(sealed.settings) == salt
    for address in (f"/boards/{TASK}", f"/api/v1/boards/{TASK}", f"/tasks/{TASK}", "/dump.jsonl"):
        text = sealed.client.get(address).text
        assert (SALT in text, salt in text) == (False, False)


@pytest.mark.parametrize(("content", "mode", "words"), [("ab" * 32, 0o644, "chmod 600"), ("secret", 0o600, "backup")])
def test_salt_that_others_read_or_is_damaged_is_refused(make_settings, content, mode, words):
    settings = make_settings()
    settings.server_folder.mkdir()
    settings.salt.write_text(content)
    settings.salt.chmod(mode)
    with pytest.raises(UsageError, match=words):
        server_salt(settings)


def test_backup_contains_the_salts(sealed, tmp_path):
    if sealed.settings.database_url:
        pytest.skip("backups are for SQLite")
    salt = server_salt(sealed.settings)
    admin.backup(sealed.settings, tmp_path / "board.tar")
    restored = sealed.settings.model_copy(update={"server_folder": tmp_path / "restored", "database_url": ""})
    admin.restore(restored, tmp_path / "board.tar")
    assert (server_salt(restored), seals.read_seal(restored, sealed.board).salt) == (salt, SALT)
    assert stat.S_IMODE(restored.salt.stat().st_mode) == 0o600


def test_claimed_row_is_never_above_a_verified_one(sealed, verified, world, tmp_path):
    close = sealed.post(world.write_run(tmp_path / "close", "close", start=900), sealed.token(name="Eve")).json()["id"]
    sealed.work()
    far = verified("far", 0.4, 300)
    assert sealed.entry(close)["row"]["distance"] < sealed.entry(far)["row"]["distance"]
    for sort in ("rank", "distance", "-distance", "method", "-method", "date", "-date", "cost", "lira.forget", "tier"):
        rows = sealed.client.get(f"/api/v1/boards/{TASK}", params={"sort": sort}).json()["rows"]
        assert [row["id"] for row in rows] == [far, close], sort
        assert [row["rank"]["scope"] for row in rows] == ["ranked", "claimed"]
    page = sealed.client.get(f"/boards/{TASK}?sort=distance").text
    assert page.index(f'href="/entries/{far}"') < page.index(f'href="/entries/{close}"')
    assert "Claimed: scored from uploaded evidence" in page


def test_verified_row_ranks_by_its_score_on_sealed_draws(sealed, verified):
    honest, lucky = verified("honest", 0.1, 300), verified("lucky", 0.0, 400, sealed_memory=1.5)
    entries = [sealed.entry(entry) for entry in (honest, lucky)]
    public = [entry["public_scorecard"]["distance"]["value"] for entry in entries]
    ranking = [entry["row"]["distance"] for entry in entries]
    assert ranking[0] < ranking[1]
    assert [entry["row"]["tier"] for entry in entries] == ["verified"] * 2
    assert [entry["row"]["rank"]["position"] for entry in entries] == [1, 2]
    assert public[1] < ranking[1]
    assert entries[0]["scorecard"]["class_accuracy"] == {}  # which classes the sealed draws forget
    assert entries[0]["public_scorecard"]["class_accuracy"]
    page = sealed.client.get(f"/entries/{lucky}").text
    assert ("On public draws" in page, "can be repeated when" in page) == (True, True)
    assert "tier: verified" in json.dumps(entries[0]["history"])


def test_evidence_on_sealed_draws_is_never_served(sealed, verified, sealed_world):
    entry = verified("honest", 0.1, 300)
    answer = sealed.client.get(f"/api/v1/entries/{entry}/evidence")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert manifest["task"] == TASK
    assert sealed_world.task not in json.dumps(sealed.entry(entry))


def test_runs_on_other_draws_are_not_accepted(sealed, world, tmp_path):
    entry = sealed.post(world.write_run(tmp_path / "run"), sealed.token()).json()["id"]
    sealed.work()
    runs = dict.fromkeys(("public", "sealed"), tmp_path / "run")
    with pytest.raises(ForgetBenchError, match=r"run on sealed draws is not valid evidence.*sealed-0123456789ab"):
        receive_verified_runs(sealed.database, sealed.settings, entry, runs, actor="runner 1")
    assert sealed.entry(entry)["row"]["tier"] == "claimed"


def test_operators_run_becomes_a_reference_row(sealed, verified, world, tmp_path):
    entry = verified("ours", 0.1, 300, scopes=("submit", "run"))
    assert (sealed.entry(entry)["row"]["tier"], sealed.entry(entry)["row"]["baseline"]) == ("reference", False)
    upload = sealed.post(world.write_run(tmp_path / "up", "up", start=800), sealed.token("submit", "run", name="Op"))
    sealed.work()
    assert sealed.entry(upload.json()["id"])["row"]["tier"] == "claimed"  # a sealed board believes its runner only


def test_operators_run_ranks_on_a_board_without_seal(site, world, tmp_path):
    ours = site.post(world.write_run(tmp_path / "ours", "ours", memory=0.4), site.token("submit", "run")).json()["id"]
    theirs = site.post(world.write_run(tmp_path / "t", "theirs", start=700), site.token(name="Eve")).json()["id"]
    site.work()
    rows = site.client.get(f"/api/v1/boards/{TASK}").json()["rows"]
    assert [(row["id"], row["tier"]) for row in rows] == [(ours, "reference"), (theirs, "claimed")]
    assert "This board is not sealed" in site.client.get(f"/boards/{TASK}").text


def test_dry_run_is_no_oracle_of_hidden_oracles(sealed, world, sealed_packs, tmp_path):
    honest, copied = world.write_run(tmp_path / "honest"), world.write_run(tmp_path / "copied", "copied")

    def copy(manifest):
        for model in manifest["models"]:
            source = sealed_packs["public"] / "references" / model["file"]
            (copied / model["file"]).write_bytes(source.read_bytes())
            model["arrays"] = {name: item.model_dump() for name, item in describe(read_arrays(source)).items()}

    edit_manifest(copied, copy)
    headers = sealed.token()
    answers = [sealed.post(run, headers, dry_run=True) for run in (honest, copied)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()  # it says nothing about oracles, and has no score
    assert not [key for key in answers[0].json() if key in {"rank", "distance", "scorecard"}]
    assert sealed.post(copied, headers).status_code == 422


def test_best_of_many_self_made_oracles_stays_a_claim(sealed, verified, world, tmp_path):
    far = verified("far", 0.4, 300)
    best = world.write_run(tmp_path / "best", "best", start=1200)  # as good as oracles: another set of them
    entry = sealed.post(best, sealed.token(name="Eve")).json()["id"]
    sealed.work()
    row = sealed.entry(entry)["row"]
    assert (row["tier"], row["rank"]["scope"]) == ("claimed", "claimed")
    cells = sealed.client.get("/boards.json").json()["tables"]["Methods by tasks"]
    assert {cell["id"]: cell["ranking"] for cell in cells if cell["id"]} == {far: "ranked", entry: "claimed"}


def test_reveal_retires_the_round_and_shows_the_salt(sealed, world, sealed_packs, tmp_path):
    done = admin.reveal_salt(sealed.settings, TASK)
    assert done == admin.reveal_salt(sealed.settings, TASK) == (1, SALT)
    page = sealed.client.get(f"/boards/{TASK}").text
    assert ("Retired round 1" in page, f"--salt {SALT}" in page) == (True, True)
    assert sealed.client.get(f"/api/v1/boards/{TASK}").json()["salt"] == SALT
    refused = sealed.post(world.write_run(tmp_path / "late"), sealed.token())
    assert (refused.status_code, "its salt is public" in refused.text) == (422, True)
    with sealed.database.read_session() as session:
        assert seals.next_round(session, TASK) == 2
    second = World(TASK, seed=21).write_pack(tmp_path / "second", kind="public")
    install_sealed_board(
        sealed.database, sealed.settings, {**sealed_packs, "public": second}, RoundSeal(round=2, salt="6b" * 32)
    )
    sealed.work()
    board = sealed.client.get(f"/api/v1/boards/{TASK}").json()
    assert (board["round"], board["salt"]) == (2, None)
    old = sealed.client.get(f"/api/v1/boards/{TASK}", params={"pack": sealed.board.pack_sha256[:12]}).json()
    assert (old["round"], old["salt"]) == (1, SALT)


def test_reveal_of_a_board_without_seal_says_so(site):
    with pytest.raises(UsageError, match="not sealed: it has no salt"):
        admin.reveal_salt(site.settings, TASK)
    with pytest.raises(UsageError, match="No board for task 'tiny/x'"):
        admin.reveal_salt(site.settings, "tiny/x")


@pytest.mark.parametrize("kind", ["public", "sealed", "development"])
def test_bundles_of_a_sealed_board_make_no_open_board(site, sealed_packs, kind):
    with pytest.raises(UsageError, match=f"is the {kind} bundle of"):
        admin.install_bundle(site.settings, sealed_packs[kind])


def test_tier_is_shown_before_the_name_everywhere(sealed, verified, world, tmp_path):
    entry = verified("honest", 0.1, 300)
    other = sealed.post(world.write_run(tmp_path / "c", "claim", start=900), sealed.token(name="Eve")).json()["id"]
    sealed.work()
    badge = '<span class="tier {0}"'
    for address in (
        f"/boards/{TASK}",
        "/methods/honest",
        f"/compare?ids={entry}&ids={other}",
        f"/entries/{entry}",
    ):
        page = sealed.client.get(address).text
        assert 0 < page.index(badge.format("verified")) < page.rindex("honest"), address
    front = sealed.client.get("/").text  # a row of methods by tasks has entries of several tiers: each has its own
    assert front.count(badge.format("verified")) == front.count(badge.format("claimed")) == 1
    for tier, identity in (("verified", entry), ("claimed", other)):
        cell = front[front.index(f'href="/entries/{identity}"') :].partition("</td>")[0]
        assert 0 < cell.index(badge.format(tier)) < cell.index("place"), tier
    chart = sealed.client.get(f"/boards/{TASK}.vega").text
    assert ("[V] honest" in chart, "[C] claim" in chart, '"strokeDash"' in chart) == (True, True, True)
    head = sealed.client.get(f"/boards/{TASK}.csv").text.splitlines()[0].split(",")
    assert head.index("tier") < head.index("method")
    lines = [line for line in sealed.client.get(f"/boards/{TASK}.md").text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in lines[0].split("|")[1:4]] == ["Rank", "Tier", "Method"]
    assert [[cell.strip() for cell in line.split("|")[1:3]] for line in lines[-2:]] == [
        ["1", "verified"],
        ["C1", "claimed"],
    ]
    assert "verified: reaches retraining, rank 1 of 1" in sealed.client.get(f"/badges/{entry}.svg").text
    assert "[claimed] claim on" in sealed.client.get("/feed.atom").text


def test_open_board_of_an_earlier_version_is_not_sealed(site):
    with site.database.read_session() as session:
        board = session.query(Board).one()
        assert (board.sealed, board.retired, board.round) == (False, False, None)
    with pytest.raises(ForgetBenchError, match="is not sealed, so that nothing is verified"):
        seals.board_draws(site.settings, board)


def test_final_evaluation_runs_the_last_of_each_team(sealed, sealed_world, world, tmp_path):
    opens, closes = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
    planned = rounds.Schedule(opens=opens, closes=closes, visibility="own", final_only=True)
    admin.schedule_round(sealed.settings, TASK, planned)
    ada, mary, grace = (sealed.token(name=name) for name in ("Ada", "Mary", "Grace"))
    ids = []
    for number, headers in enumerate((ada, ada, mary)):
        run = world.write_run(tmp_path / str(number), "ssd", memory=0.1, start=300 + 20 * number)
        ids.append(sealed.post(run, headers).json()["id"])
    for parameters in ({"dampening": 2.0}, {}):
        code = {"task": TASK, "name": "ssd", "parameters": parameters}
        ids.append(sealed.client.post("/api/v1/submissions/method", json=code, headers=grace).json()["id"])
    sealed.work()
    with sealed.database.read_session() as session:
        assert not session.scalars(select(Job).where(Job.kind == "run")).all()
    with pytest.raises(UsageError, match="is open: close it"):
        admin.evaluate_round(sealed.settings, TASK)
    admin.close_round(sealed.settings, TASK)
    last = [ids[1], ids[2], ids[4]]
    assert sorted(admin.evaluate_round(sealed.settings, TASK)) == sorted(last)
    with sealed.database.read_session() as session:
        assert sorted(session.scalars(select(Job.subject).where(Job.kind == "run"))) == sorted(last)
        assert session.get_one(Entry, ids[3]).state == "rejected"
    runs = {
        "public": world.write_run(tmp_path / "p", "ssd", memory=0.1, start=340),
        "sealed": sealed_world.write_run(tmp_path / "s", "ssd", memory=0.1, start=340),
    }
    receive_verified_runs(sealed.database, sealed.settings, ids[2], runs, actor="runner 1")
    sealed.work()
    assert sealed.client.get(f"/api/v1/boards/{TASK}").json()["rows"] == []
    assert admin.reveal_round(sealed.settings, TASK) == (3, 3)
    sealed.work()
    rows = sealed.client.get(f"/api/v1/boards/{TASK}").json()["rows"]
    assert (rows[0]["id"], rows[0]["tier"]) == (ids[2], "verified")
    assert {row["id"] for row in rows} == set(ids[:3])
