"""A server's folder of an earlier version: migrated at the start, or refused in words that say what to do."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import tarfile

import pytest
from support.leaderboard import Site, World

from forgetbench.cli import main
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.db.session import latest_revision, open_database
from forgetbench.leaderboard.submissions.seals import RoundSeal, install_sealed_board

FIRST_REVISION = "0006"
"""Schema of version 0.1."""


@pytest.fixture
def earlier(make_settings, world, tmp_path):
    """A folder as version 0.1 left it, with an entry that was reproduced, a token, and lax permissions."""
    settings = make_settings()
    admin.install_bundle(settings, world.write_pack(tmp_path / "pack", schema_version=1))
    site = Site(settings, world)
    with site.client:
        headers = site.token()
        run = world.write_run(tmp_path / "run", memory=0.1, schema_version=1)
        entry = site.post(run, headers).json()["id"]
        site.work()
        again = world.write_run(tmp_path / "again", memory=0.1, start=700, schema_version=1)
        assert site.verify(entry, again, site.token("verify", name="Grace")).status_code == 202
        site.work()
    site.database.downgrade(FIRST_REVISION)
    site.database.close()
    shutil.rmtree(settings.verified, ignore_errors=True)
    for folder in (settings.server_folder, settings.packs, settings.evidence):
        folder.chmod(0o755)
    return settings, entry, headers


def test_backup_before_an_upgrade_keeps_the_earlier_schema(earlier, tmp_path):
    settings, _, _ = earlier
    if settings.database_url:
        pytest.skip("backups are for SQLite")
    with tarfile.open(admin.backup(settings, tmp_path / "all.tar")) as archive:
        archive.extract("leaderboard.sqlite", tmp_path, filter="data")
    with sqlite3.connect(tmp_path / "leaderboard.sqlite") as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchall() == [(FIRST_REVISION,)]
    copy.close()


def test_folder_of_version_0_1_is_migrated_and_served(earlier, world, tmp_path):
    settings, entry, headers = earlier
    site = Site(settings, world)
    with site.client:
        assert site.database.revision() == latest_revision()
        assert stat.S_IMODE(settings.packs.stat().st_mode) == stat.S_IMODE(settings.evidence.stat().st_mode) == 0o700
        shown = site.entry(entry)["row"]
        assert (shown["tier"], shown["reproductions"]) == ("claimed", 1)
        for path in ("/", f"/boards/{world.task}", f"/entries/{entry}", "/submit", f"/api/v1/boards/{world.task}"):
            assert site.client.get(path).status_code == 200, path
        assert site.client.get(f"/api/v1/entries/{entry}/evidence").status_code == 200
        run = world.write_run(tmp_path / "new", "newer", start=900, memory=0.2)
        new = site.post(run, headers)  # the token is still valid
        assert new.status_code == 202
        site.work()
        assert site.entry(new.json()["id"])["row"]["tier"] == "claimed"
        sealed = {
            kind: World(f"{world.task}{name}", seed=seed).write_pack(tmp_path / kind, kind=kind)
            for kind, name, seed in (
                ("public", "", 7),
                ("sealed", "/sealed-0123456789ab", 11),
                ("development", "/d", 13),
            )
        }
        with open_database(settings) as database:
            install_sealed_board(database, settings, sealed, RoundSeal(round=1, salt="5a" * 32))
        document = site.client.get(f"/api/v1/boards/{world.task}").json()
        assert (document["sealed"], document["rows"]) == (True, [])
        assert site.client.get(f"/entries/{entry}").status_code == 200
    site.database.close()


def test_database_without_revision_is_refused(make_settings, tmp_path, capsys):
    settings = make_settings()
    if settings.database_url:
        pytest.skip("the file is one of SQLite")
    settings.server_folder.mkdir()
    with sqlite3.connect(settings.server_folder / "leaderboard.sqlite") as connection:
        connection.execute("CREATE TABLE entries (id TEXT)")
        connection.execute("INSERT INTO entries VALUES ('kept')")
    with pytest.raises(SystemExit) as left:
        main(["admin", "queue", "--data", str(settings.server_folder)])
    said = " ".join(capsys.readouterr().err.split())
    assert left.value.code == 1
    assert "Start with an empty folder, given by --data, and build the boards again" in said
    assert connection.execute("SELECT id FROM entries").fetchall() == [("kept",)]
    connection.close()
