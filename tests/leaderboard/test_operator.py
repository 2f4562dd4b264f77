"""What an operator calls: quotas, errors that explain, and files that are nobody else's."""

from __future__ import annotations

import tarfile

import pytest

from forgetbench.cli import main
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.admin import create_token
from forgetbench.leaderboard.db.session import Database, open_database
from forgetbench.leaderboard.settings import Settings


def called(capsys, *words):
    """Status, output and complaints of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return ended.value.code, said.out, " ".join(said.err.split())


@pytest.fixture
def server(site):
    """Words that lead a command to the site's server."""
    database = ("--database", site.settings.database_url) if site.settings.database_url else ()
    return ("--data", site.settings.server_folder, *database)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_a_quota_of_nothing_is_nothing_and_can_be_changed(site, server, world, tmp_path, capsys):
    token = create_token(site.settings, "Ada", daily_submissions=0)
    run = world.write_run(tmp_path / "run")
    answer = site.post(run, bearer(token))
    assert (answer.status_code, "its quota is 0" in answer.text) == (403, True)
    assert called(capsys, "admin", "token", "quota", token, "1", *server)[:2] == (0, "Ada: 1 in 24 hours\n")
    assert site.post(run, bearer(token)).status_code == 202
    assert site.post(world.write_run(tmp_path / "more", start=700), bearer(token)).status_code == 429
    _, table, _ = called(capsys, "admin", "token", "list", *server)
    assert " 1 " in table
    called(capsys, "admin", "token", "quota", token, *server)
    assert "50 (default)" in called(capsys, "admin", "token", "list", *server)[1]
    assert site.post(world.write_run(tmp_path / "more2", start=800), bearer(token)).status_code == 202


def test_a_negative_quota_is_refused(site, server, capsys):
    for words in (("create", "x", "--daily=-1"), ("quota", "0" * 16, "-1"), ("quota", "0" * 16, "--daily=-1")):
        status, _, said = called(capsys, "admin", "token", *words, *server)
        assert (status, "Invalid quota" in said) == (2, True), said
    status, _, said = called(capsys, "admin", "token", "quota", "0" * 16, "5", *server)
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
def test_a_database_that_cannot_be_used_is_explained(url, status, message, tmp_path, capsys):
    got, _, said = called(capsys, "admin", "queue", "--data", tmp_path / "server", "--database", url)
    assert (got, message in said) == (status, True), said
    assert "Traceback" not in said
    assert "hidden" not in said


def test_a_schema_of_a_newer_version_is_explained(make_settings):
    from sqlalchemy import text

    database = Database(make_settings().database)
    database.upgrade()
    with database.write_session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ForgetBenchError, match="newer version"):
        database.upgrade()
    database.close()


def test_what_cannot_be_written_is_said(site, server, tmp_path, capsys):
    status, _, said = called(capsys, "admin", "dump", tmp_path / "nowhere" / "all.jsonl", *server)
    assert (status, "all.jsonl: No such file" in said) == (2, True), said
    if not site.settings.database_url:
        status, _, said = called(capsys, "admin", "backup", tmp_path / "nowhere" / "all.tar", *server)
        assert (status, "Cannot write to" in said) == (2, True), said
        assert not (site.settings.server_folder / ".backup.sqlite").exists()


def test_the_queue_and_a_change_of_state_read_well(site, server, world, tmp_path, capsys):
    identity = site.post(world.write_run(tmp_path / "run", memory=0.1), site.token(name="Ada")).json()["id"]
    site.work()
    assert "The moderation queue is empty" in called(capsys, "admin", "queue", *server)[2]
    status, _, said = called(capsys, "admin", "state", identity, "quarantined", "--reason", " ", *server)
    assert (status, "A reason of 1 to 2000 characters is required" in said, "pydantic" in said) == (2, True, False)
    _, shown, _ = called(capsys, "admin", "state", identity, "quarantined", "--reason", "a look", *server)
    assert shown == f"scrub of Ada on {world.task}: listed -> quarantined\n"
    status, shown, said = called(capsys, "admin", "queue", *server)
    assert status == 0
    for word in (identity, world.task, "scrub", "Ada", "quarantined", "a look"):
        assert word in shown
    assert "admin acknowledge ID" in said
    _, shown, _ = called(capsys, "admin", "acknowledge", identity, "--reason", "stays so", *server)
    assert shown == f"scrub of Ada on {world.task}: acknowledged, stays quarantined\n"
    assert called(capsys, "admin", "retry", "all", *server)[:2] == (0, "There are no failed jobs.\n")
    assert called(capsys, "admin", "retry", "x", *server)[0] == 2


def mode(path):
    return path.stat().st_mode & 0o777


def test_files_of_a_server_are_its_owners_alone(make_settings, tmp_path):
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
    target = admin.backup(settings, tmp_path / "all.tar")
    assert (mode(file), mode(settings.evidence), mode(target)) == (0o600, 0o700, 0o600)
    assert [path.name for path in tmp_path.iterdir() if "all.tar" in path.name] == ["all.tar"]
    admin.restore(Settings(server_folder=tmp_path / "again"), target)
    assert (mode(tmp_path / "again"), mode(tmp_path / "again" / "leaderboard.sqlite")) == (0o700, 0o600)


def test_a_backup_that_was_cut_off_leaves_no_file(make_settings, tmp_path, monkeypatch):
    settings = make_settings()
    if settings.database_url:
        pytest.skip("a server with SQLite")
    monkeypatch.setattr(tarfile.TarFile, "add", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        admin.backup(settings, tmp_path / "all.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["server"]
    with pytest.raises(UsageError):
        admin.backup(settings, tmp_path / "no" / "all.tar")
