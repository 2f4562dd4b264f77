"""Schema migrations and constraints, on SQLite or PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from alembic.util.exc import CommandError
from sqlalchemy import insert, inspect, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from support.concurrency import LIMIT

from forgetbench.errors import ForgetBenchError
from forgetbench.leaderboard.db.models import Base, Entry, Score, Token, Verification, utc_now
from forgetbench.leaderboard.db.session import Database, latest_revision


def test_migrations_up_and_down_agree_with_the_models(make_settings):
    database = Database(make_settings().database)
    assert database.revision() is None
    database.upgrade()
    assert database.revision() == latest_revision()
    database.check()
    assert set(inspect(database.engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}
    database.downgrade()
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    database.upgrade()
    database.check()
    database.close()


def test_upgrade_from_0002_sets_alarms_and_queue(site):
    with site.database.write_session() as session:
        values = {"tier": "claimed", "baseline": False, "token_id": "0" * 16, "flags": ["suspicious"]}
        create = {"id": "0" * 16, "name": "x", "scopes": [], "secret_sha256": "0" * 64, "created_at": utc_now()}
        session.execute(insert(Token), create)
        session.execute(update(Entry).where(Entry.method == "none").values(**values))
    site.database.downgrade("0002")
    site.database.upgrade()
    with site.database.read_session() as session:
        found = session.execute(select(Entry.method, Entry.queued, Entry.alarms).order_by(Entry.method)).all()
    assert [tuple(row) for row in found] == [
        ("none", True, ["suspicious: lira.forget or js is below the band of the oracles"]),
        ("retrain", False, None),
    ]


def test_upgrade_from_0003_renames_fields_of_scorecards(site):
    def read():
        with site.database.read_session() as session:
            return session.execute(select(Entry.within_band, Score.card, Score.brief).join(Score)).all()

    before = read()
    assert before[0].card["distance"]["pseudo_values"]
    site.database.downgrade("0003")
    with site.database.read_session() as session:
        [card, *_] = session.scalars(select(Score.card)).all()
    assert card["distance"]["pseudo"]
    assert {"informational"} <= set(card)
    assert not {"pseudo_values", "within_band"} & set(card["metrics"]["lira.forget"])
    site.database.upgrade()
    assert read() == before


def test_upgrade_from_0004_renames_the_outcome(site):
    values = {"id": "v", "verifier": "Mary", "received_at": utc_now(), "manifest": {}, "body_sha256": "0" * 64}
    with site.database.write_session() as session:
        create = {"id": "0" * 16, "name": "x", "scopes": [], "secret_sha256": "0" * 64, "created_at": utc_now()}
        session.execute(insert(Token), create)
        entry = session.scalars(select(Entry.id).where(Entry.method == "none")).one()
        record = values | {"entry_id": entry, "token_id": "0" * 16, "outcome": "not reproduced"}
        session.execute(insert(Verification), record)
    site.database.downgrade("0004")
    with site.database.read_session() as session:
        assert session.execute(text("SELECT verdict FROM verifications")).scalars().all() == ["not reproduced"]
    site.database.upgrade()
    site.database.check()
    with site.database.read_session() as session:
        assert session.scalars(select(Verification.outcome)).all() == ["not reproduced"]
        assert session.scalars(select(Entry.verdict)).all() == [None, None]  # until the worker scores them again


def test_upgrade_from_0006_makes_claims_of_submissions(site, world, tmp_path):
    entry = site.post(world.write_run(tmp_path / "run", memory=0.1), site.token()).json()["id"]
    site.work()
    site.verify(entry, world.write_run(tmp_path / "again", memory=0.1, start=700), site.token("verify", name="Grace"))
    site.work()
    site.database.downgrade("0006")
    with site.database.engine.connect() as connection:
        tiers = connection.execute(text("SELECT method, tier FROM entries ORDER BY method")).all()
        scopes = connection.execute(text("SELECT DISTINCT scope FROM placings")).scalars().all()
    assert [tuple(row) for row in tiers] == [("none", "reference"), ("retrain", "reference"), ("scrub", "reproduced")]
    assert scopes == ["all"]
    site.database.upgrade()
    site.database.check()
    with site.database.read_session() as session:
        rows = session.execute(
            select(Entry.method, Entry.tier, Entry.baseline, Entry.reproductions).order_by(Entry.method)
        )
        assert [tuple(row) for row in rows] == [
            ("none", "reference", True, 0),
            ("retrain", "reference", True, 0),
            ("scrub", "claimed", False, 1),
        ]
    document = site.client.get(f"/api/v1/boards/{world.task}").json()
    assert (document["sealed"], document["round"], document["rows"][0]["rank"]["scope"]) == (False, None, "claimed")


def test_concurrent_upgrades_migrate_once(make_settings):
    url = make_settings().database
    databases = [Database(url) for _ in range(3)]
    errors = []

    def upgrade(database):
        try:
            database.upgrade()
        except (ForgetBenchError, SQLAlchemyError, CommandError) as error:
            errors.append(error)

    threads = [threading.Thread(target=upgrade, args=[database]) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not errors
    for database in databases:
        database.close()


def test_every_constraint_has_a_name():
    for table in Base.metadata.tables.values():
        assert all(constraint.name for constraint in table.constraints), table.name


def test_start_on_a_current_schema_does_not_import_alembic(make_settings):
    settings = make_settings()
    database = Database(settings.database)
    database.upgrade()
    database.close()
    code = (
        "import sys; from forgetbench.leaderboard.db.session import Database, prepare_server;"
        "from forgetbench.leaderboard.settings import Settings;"
        "settings = Settings(); prepare_server(settings, Database(settings.database));"
        "print('alembic' in sys.modules)"
    )
    environment = {
        **os.environ,
        "FORGETBENCH_SERVER_FOLDER": str(settings.server_folder),
        "FORGETBENCH_DATABASE_URL": settings.database_url,
    }
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
