"""What a purge erases, what it keeps, and who learns of the moderation queue."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from support.leaderboard import TASK

from forgetbench.errors import UsageError
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Base, Entry, Event, Job, SentNotice
from forgetbench.leaderboard.worker import cleanup, notices

SECRET = "Zanzibar"


@pytest.fixture
def personal(site, world, tmp_path):
    """Id of a listed entry with a word in every text, and a second record of it."""
    method = {"label": SECRET, "title": SECRET, "family": SECRET, "source": f"# {SECRET}", "parameters": {"a": SECRET}}
    run = world.write_run(tmp_path / "run", memory=0.1, method=method, command=SECRET)
    owner = site.token(name=SECRET)
    entry_id = site.post(run, owner).json()["id"]
    site.work()
    second = world.write_run(tmp_path / "second", memory=0.1, start=700, method=method, command=SECRET)
    site.verify(entry_id, second, site.token("verify", name="Grace"))
    site.work()
    site.change_state(entry_id, "flagged", site.token("moderate", name="Moderator"), SECRET)
    return entry_id


def test_purge_erases_texts_and_evidence_and_keeps_a_tombstone(site, personal):
    assert SECRET in site.client.get(f"/boards/{TASK}").text
    folders = list(site.settings.evidence.iterdir())
    assert len(folders) == 2
    moderator = site.token("moderate", name="Moderator")
    path = f"/api/v1/submissions/{personal}/purge"
    assert site.client.post(path, json={"reason": "a request"}, headers=moderator).status_code == 204
    site.work()
    with Session(site.database.engine) as session:
        for table in Base.metadata.sorted_tables:
            if table.name != "tokens":  # the operator revokes those
                assert SECRET not in repr(session.execute(select(table)).all()), table.name
        entry = session.get_one(Entry, personal)
        assert (entry.state, entry.note, entry.token_id is not None) == ("purged", "a request", True)
        assert session.scalar(select(func.count()).select_from(Event).where(Event.entry_id == personal)) >= 5
    assert not list(site.settings.evidence.iterdir())
    if not site.settings.database_url:
        raw = b"".join(file.read_bytes() for file in site.settings.server_folder.glob("leaderboard.sqlite*"))
        assert raw.count(SECRET.encode()) == 1  # the name of the token
    page = site.client.get(f"/entries/{personal}", headers={"Accept": "text/html"})
    assert (page.status_code, "This entry was erased: a request." in page.text) == (410, True)
    assert site.client.get(f"/api/v1/boards/{TASK}").json()["rows"] == []
    assert site.client.post(path, json={"reason": "again"}, headers=moderator).status_code == 409
    assert site.change_state(personal, "listed", moderator).status_code == 409
    assert site.client.get(f"/submitters/{SECRET}").status_code == 404


def test_history_is_append_only_except_for_erasure(site, personal):
    for change in ("actor = 'x'", "reason = 'x'", "after = 'listed'", "reason = 'erased', entry_id = 'x'"):
        with pytest.raises(DBAPIError, match="append-only"), site.database.write_session() as session:
            session.execute(text(f"UPDATE events SET {change}"))  # noqa: S608 - constants
    with pytest.raises(DBAPIError, match="append-only"), site.database.write_session() as session:
        session.execute(text("DELETE FROM events"))


def test_purge_during_scoring_is_not_undone(site, world, tmp_path):
    entry_id = site.post(world.write_run(tmp_path / "run"), site.token()).json()["id"]
    job = queue.claim(site.database, site.worker.name, 60)
    admin.purge(site.settings, entry_id, "a request")
    site.worker._score(job)
    site.work()
    with site.database.read_session() as session:
        assert session.get_one(Entry, entry_id).state == "purged"
        assert not session.scalars(select(Job.state).where(Job.state != "done")).all()


def test_purge_of_unknown_or_reference_rows_is_refused(site):
    with site.database.read_session() as session:
        baseline = session.scalars(select(Entry.id)).first()
    for entry_id, words in ((baseline, "reference row"), ("none", "no submission")):
        with pytest.raises(UsageError, match=words):
            admin.purge(site.settings, entry_id, "x")


def test_evidence_of_a_purge_that_was_interrupted_is_removed(site, personal, monkeypatch):
    from forgetbench.leaderboard.submissions import erasure

    monkeypatch.setattr(erasure.shutil, "rmtree", lambda *_, **__: None)
    admin.purge(site.settings, personal, "a request")
    monkeypatch.undo()
    assert cleanup.remove_leftovers(site.settings, site.database, min_age=-1) == 2


class Mail:
    """A mail server that keeps what it gets."""

    sent: list[object] = []  # noqa: RUF012 - one list for the test

    def __init__(self, host, port, **_options):
        self.address = (host, port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def ehlo(self):
        return True

    def has_extn(self, _name):
        return True

    def starttls(self):
        self.sent.append("encrypted")

    def login(self, user, password):
        self.sent.append((user, password))

    def send_message(self, message):
        self.sent.append((self.address, message["To"], message.get_content()))


def test_moderators_are_notified_once_of_each_item(site, personal, monkeypatch):
    posted, answers = [], iter([500, 200, 200])

    def post(url, *, json, timeout):
        posted.append((url, json["items"]))
        request = notices.httpx2.Request("POST", url)
        return notices.httpx2.Response(next(answers), request=request)

    monkeypatch.setattr(notices.httpx2, "post", post)
    assert notices.notify(site.settings, site.database) == 0  # nothing is configured
    settings = site.settings.model_copy(update={"webhook_url": "https://chat.example.org/hook"})
    assert notices.notify(settings, site.database) == 0  # 500: tried again
    assert notices.notify(settings, site.database) == 1
    assert notices.notify(settings, site.database) == 0
    assert [items[0]["id"] for _, items in posted] == [personal] * 2
    admin.acknowledge(site.settings, personal, "fine")
    assert notices.notify(settings, site.database) == 0
    with site.database.write_session() as session:
        assert not session.scalars(select(SentNotice)).all()
        session.execute(update(Entry).where(Entry.id == personal).values(queued=True))
    monkeypatch.setattr(notices.smtplib, "SMTP", Mail)
    mail = {"smtp_url": "smtp://me:p%40ss@mail.example.org:587", "notify_email": "a@example.org, b@example.org"}
    assert notices.notify(site.settings.model_copy(update=mail), site.database) == 1
    encrypted, login, (address, to, body) = Mail.sent
    assert (encrypted, login, address) == ("encrypted", ("me", "p@ss"), ("mail.example.org", 587))
    assert to == mail["notify_email"]
    assert f"{personal} on {TASK}: flagged" in body


def test_moderation_page_and_queue_of_the_api(site, personal):
    page = site.client.get("/moderate")
    assert (page.status_code, page.headers["Cache-Control"]) == (200, "no-store")
    assert "/static/moderate.js?v=" in page.text
    assert site.client.get("/api/v1/moderation").status_code == 401
    assert site.client.get("/api/v1/moderation", headers=site.token()).status_code == 403
    [item] = site.client.get("/api/v1/moderation", headers=site.token("moderate")).json()
    assert (item["id"], item["state"]) == (personal, "flagged")
