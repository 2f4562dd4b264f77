"""Operator commands: tokens, quotas, moderation, private files, backup, dump and export."""

from __future__ import annotations

import json
import re
import tarfile

import pytest
from support.leaderboard import Site

from forgetbench.cli import main
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.admin import create_token
from forgetbench.leaderboard.db.session import Database, open_database
from forgetbench.leaderboard.settings import Settings


def run_command(capsys, *words):
    """Run a command; returns exit status, output and error output."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return ended.value.code, said.out, " ".join(said.err.split())


@pytest.fixture
def server(site):
    """Options that select the site's server."""
    database = ("--database", site.settings.database_url) if site.settings.database_url else ()
    return ("--data", site.settings.server_folder, *database)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_token_quota_of_zero_refuses_until_changed(site, server, world, tmp_path, capsys):
    token = create_token(site.settings, "Ada", daily_submissions=0)
    run = world.write_run(tmp_path / "run")
    answer = site.post(run, bearer(token))
    assert (answer.status_code, "its quota is 0" in answer.text) == (403, True)
    assert run_command(capsys, "admin", "token", "quota", token, "1", *server)[:2] == (0, "Ada: 1 in 24 hours\n")
    assert site.post(run, bearer(token)).status_code == 202
    assert site.post(world.write_run(tmp_path / "more", start=700), bearer(token)).status_code == 429
    _, table, _ = run_command(capsys, "admin", "token", "list", *server)
    assert " 1 " in table
    run_command(capsys, "admin", "token", "quota", token, *server)
    assert "50 (default)" in run_command(capsys, "admin", "token", "list", *server)[1]
    assert site.post(world.write_run(tmp_path / "more2", start=800), bearer(token)).status_code == 202


def test_negative_quota_is_a_usage_error(site, server, capsys):
    for words in (("create", "x", "--daily=-1"), ("quota", "0" * 16, "-1"), ("quota", "0" * 16, "--daily=-1")):
        status, _, said = run_command(capsys, "admin", "token", *words, *server)
        assert (status, "Invalid quota" in said) == (2, True), said
    status, _, said = run_command(capsys, "admin", "token", "quota", "0" * 16, "5", *server)
    assert (status, "Unknown token" in said) == (2, True)


@pytest.mark.parametrize(
    ("url", "status", "message"),
    [
        ("foo", 2, "Malformed database URL: write sqlite:///FILE"),
        ("mysql://root@localhost/x", 2, "runs on SQLite or PostgreSQL, not on mysql"),
        ("postgresql+pg8001://me@localhost/x", 2, "The driver of postgresql+pg8001 is not installed"),
        ("postgresql+psycopg://me:hidden@127.0.0.1:1/x", 1, "Cannot use the database: connection failed"),
        ("sqlite:////dev/null/x/y.sqlite", 2, "cannot be written"),
    ],
)
def test_unusable_database_is_explained(url, status, message, tmp_path, capsys):
    got, _, said = run_command(capsys, "admin", "queue", "--data", tmp_path / "server", "--database", url)
    assert (got, message in said) == (status, True), said
    assert "Traceback" not in said
    assert "hidden" not in said


def test_schema_of_a_newer_version_is_explained(make_settings):
    from sqlalchemy import text

    database = Database(make_settings().database)
    database.upgrade()
    with database.write_session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ForgetBenchError, match="newer version"):
        database.upgrade()
    database.close()


def test_unwritable_target_is_explained(site, server, tmp_path, capsys):
    status, _, said = run_command(capsys, "admin", "dump", tmp_path / "nowhere" / "all.jsonl", *server)
    assert (status, "all.jsonl: No such file" in said) == (2, True), said
    if not site.settings.database_url:
        status, _, said = run_command(capsys, "admin", "backup", tmp_path / "nowhere" / "all.tar", *server)
        assert (status, "Cannot write to" in said) == (2, True), said
        assert not (site.settings.server_folder / ".backup.sqlite").exists()


def test_moderation_commands_print_what_changed(site, server, world, tmp_path, capsys):
    identity = site.post(world.write_run(tmp_path / "run", memory=0.1), site.token(name="Ada")).json()["id"]
    site.work()
    assert "The moderation queue is empty" in run_command(capsys, "admin", "queue", *server)[2]
    status, _, said = run_command(capsys, "admin", "state", identity, "quarantined", "--reason", " ", *server)
    assert (status, "A reason of 1 to 2000 characters is required" in said, "pydantic" in said) == (2, True, False)
    _, shown, _ = run_command(capsys, "admin", "state", identity, "quarantined", "--reason", "a look", *server)
    assert shown == f"scrub of Ada on {world.task}: listed -> quarantined\n"
    status, shown, said = run_command(capsys, "admin", "queue", *server)
    assert status == 0
    for word in (identity, world.task, "scrub", "Ada", "quarantined", "a look"):
        assert word in shown
    assert "admin acknowledge ID" in said
    _, shown, _ = run_command(capsys, "admin", "acknowledge", identity, "--reason", "stays so", *server)
    assert shown == f"scrub of Ada on {world.task}: acknowledged, stays quarantined\n"
    assert run_command(capsys, "admin", "retry", "all", *server)[:2] == (0, "There are no failed jobs.\n")
    assert run_command(capsys, "admin", "retry", "x", *server)[0] == 2


def mode(path):
    return path.stat().st_mode & 0o777


def test_server_files_are_private(make_settings, tmp_path):
    settings = make_settings()
    with open_database(settings):
        pass
    folders = (settings.server_folder, settings.evidence, settings.incoming, settings.packs)
    assert {mode(folder) for folder in folders} == {0o700}
    if settings.database_url:
        return
    file = settings.server_folder / "leaderboard.sqlite"
    assert mode(file) == 0o600
    file.chmod(0o644)
    settings.evidence.chmod(0o755)
    with open_database(settings):
        pass
    target = admin.backup(settings, tmp_path / "all.tar")
    assert (mode(file), mode(settings.evidence), mode(target)) == (0o600, 0o700, 0o600)
    assert [path.name for path in tmp_path.iterdir() if "all.tar" in path.name] == ["all.tar"]
    admin.restore(Settings(server_folder=tmp_path / "again"), target)
    assert (mode(tmp_path / "again"), mode(tmp_path / "again" / "leaderboard.sqlite")) == (0o700, 0o600)


def test_interrupted_backup_leaves_no_file(make_settings, tmp_path, monkeypatch):
    settings = make_settings()
    if settings.database_url:
        pytest.skip("a server with SQLite")
    with pytest.raises(UsageError, match="There is no leaderboard in"):
        admin.backup(settings, tmp_path / "all.tar")
    with open_database(settings):
        pass
    monkeypatch.setattr(tarfile.TarFile, "add", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        admin.backup(settings, tmp_path / "all.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["server"]
    with pytest.raises(UsageError):
        admin.backup(settings, tmp_path / "no" / "all.tar")


def test_tokens_and_queue_are_listed(site, world, tmp_path):
    identity = site.post(world.write_run(tmp_path / "run", memory=0.1), site.token(name="Ada")).json()["id"]
    site.work()
    names = {token.name: token for token in admin.list_tokens(site.settings)}
    assert names["Ada"].scopes == ("submit",)
    assert admin.revoke_token(site.settings, names["Ada"].id) == "Ada"
    with pytest.raises(UsageError, match="Unknown token"):
        admin.revoke_token(site.settings, "nope")
    assert admin.moderation_queue(site.settings) == []
    assert admin.change_state(site.settings, identity, "quarantined", "a look").label == "scrub"
    assert [(item.id, item.state, item.reason) for item in admin.moderation_queue(site.settings)] == [
        (identity, "quarantined", "a look")
    ]
    with pytest.raises(UsageError, match="cannot become"):
        admin.change_state(site.settings, identity, "flagged", "no")


def test_restored_backup_equals_the_server(site, world, tmp_path):
    if site.settings.database_url:
        with pytest.raises(UsageError, match="pg_dump"):
            admin.backup(site.settings, tmp_path / "x.tar")
        return
    identity = site.post(world.write_run(tmp_path / "run", memory=0.1), site.token(name="Ada")).json()["id"]
    site.work()
    target = admin.backup(site.settings, tmp_path / "server.tar")
    with pytest.raises(UsageError, match="already exists"):
        admin.backup(site.settings, target)
    settings = Settings(server_folder=tmp_path / "restored")
    admin.restore(settings, target)
    with pytest.raises(UsageError, match="not empty"):
        admin.restore(settings, target)
    restored = Site(settings, world)
    with restored.client:
        assert restored.entry(identity) == site.entry(identity)
        assert restored.client.get(f"/api/v1/entries/{identity}/evidence").status_code == 200
    restored.database.close()


def test_dump_has_all_listed_entries(full, tmp_path):
    assert admin.write_dump(full.settings, tmp_path / "all.jsonl") == 7
    head, *lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert (head["license"], head["protocols"], set(head)) == ("CC-BY-4.0", [2], set(head) | {"version", "date"})
    assert {line["row"]["method"] for line in lines} >= {"alpha", "retrain", "none"}
    answer = full.client.get("/dump.jsonl")
    served_head, *served_lines = [json.loads(line) for line in answer.text.splitlines()]
    assert served_lines == lines
    assert {**served_head, "date": head["date"]} == head
    assert 'href="/dump.jsonl"' in full.client.get("/").text


def test_static_export_needs_no_server(full, tmp_path):
    paths = admin.export_static(full.settings, tmp_path / "static", "https://board.example.org")
    assert {path.suffix for path in paths} == {".html", ".csv", ".json", ".md", ".tex"}
    page = (tmp_path / "static" / "tiny--cnn--random-10.html").read_text()
    assert "alpha" in page
    assert 'href="/' not in page
    rows = full.client.get(f"/api/v1/boards/{full.world.task}").json()["rows"]
    identity = next(row["id"] for row in rows if row["method"] == "alpha")
    assert f'href="entries/{identity}.html"' in page
    entry = (tmp_path / "static" / "entries" / f"{identity}.html").read_text()
    assert "Provenance" in entry
    assert '="/' not in entry
    for address in re.findall(r'(?:href|src)="(\.\./[^"]+)"', entry):
        assert (tmp_path / "static" / "entries" / address).resolve().is_file(), address
