from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import zipfile

import httpx2
import pytest
from support.concurrency import LIMIT
from support.leaderboard import edit_manifest

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.client.http import check_address, find_token
from forgetbench.leaderboard.client.submit import (
    describe_state,
    fetch_entry,
    fetch_evidence,
    post_verification,
    pull_bundle,
    submit,
    withdraw,
)
from forgetbench.leaderboard.render.schemas import SubmissionDocument

SERVER = "http://127.0.0.1:8000"


def text_of(headers):
    """The text of a token."""
    return headers["Authorization"].removeprefix("Bearer ")


def test_submit_waits_for_the_rank(site, world, tmp_path, transport, running_worker):
    sent = []
    run = world.write_run(tmp_path / "run")
    outcome = submit(
        run,
        SERVER,
        text_of(site.token()),
        wait_seconds=LIMIT,
        progress=lambda *at: sent.append(at),
        transport=transport,
    )
    assert (outcome.state, outcome.task) == ("listed", world.task)
    assert outcome.detail.startswith("claimed: rank 1 of 1 claimed rows, distance")
    assert outcome.url.endswith(f"/entries/{outcome.document.id}")
    assert sent[-1][0] == sent[-1][1]


def test_submit_repeated_is_one_submission(site, world, tmp_path, transport):
    run, token = world.write_run(tmp_path / "run"), text_of(site.token())
    first = submit(run, SERVER, token, wait_seconds=0, transport=transport)
    second = submit(run, SERVER, token, wait_seconds=0, transport=transport)
    assert first.document.id == second.document.id
    assert first.state == "received"


def test_submit_dry_run_reports_errors_of_the_server(site, world, tmp_path, transport):
    token = text_of(site.token())
    assert submit(world.write_run(tmp_path / "a"), SERVER, token, dry_run=True, transport=transport).state == "accepted"
    wrong = edit_manifest(world.write_run(tmp_path / "b"), lambda manifest: manifest.update(task="other/cnn"))
    with pytest.raises(ForgetBenchError, match="no board of that task"):
        submit(wrong, SERVER, token, dry_run=True, transport=transport)


def test_submit_with_bad_token_is_a_usage_error(site, world, tmp_path, transport):
    with pytest.raises(UsageError, match="wrong, expired or revoked"):
        submit(world.write_run(tmp_path / "run"), SERVER, f"fb_{'0' * 16}_{'0' * 64}", transport=transport)
    with pytest.raises(UsageError, match="looks like"):
        submit(tmp_path / "run", SERVER, "hello", transport=transport)


def test_submit_damaged_run_fails_before_the_upload(world, tmp_path):
    run = world.write_run(tmp_path / "run")
    (run / "d0-s1.npz").write_bytes((run / "d0-s1.npz").read_bytes()[:-40])
    with pytest.raises(ForgetBenchError, match=r"d0-s1\.npz"):
        submit(run, SERVER, "fb_x", transport=httpx2.MockTransport(lambda _: pytest.fail("sent")))
    (run / "d0-s1.npz").unlink()
    with pytest.raises(ForgetBenchError, match=r"d0-s1\.npz"):
        submit(run, SERVER, "fb_x")
    with pytest.raises(UsageError, match="is not a run"):
        submit(tmp_path, SERVER, "fb_x")


def test_submit_to_unreachable_server_explains_it(world, tmp_path):
    with pytest.raises(ForgetBenchError, match="cannot be reached"):
        submit(world.write_run(tmp_path / "run"), "http://127.0.0.1:9", "fb_x")


def test_submit_to_another_kind_of_server_explains_it(world, tmp_path):
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, text="<html>hello"))
    with pytest.raises(ForgetBenchError, match="not like a leaderboard"):
        submit(world.write_run(tmp_path / "run"), SERVER, "fb_x", transport=transport)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://board.example.org/", "https://board.example.org"),
        ("board.example.org", "https://board.example.org"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://board.example.org", None),
        ("http://127.0.0.1.example.org", None),
        ("https://user:word@board.example.org", None),
        ("ftp://board.example.org", None),
        ("https://", None),
    ],
)
def test_check_address_requires_https_or_loopback(address, expected):
    if expected is None:
        with pytest.raises(UsageError):
            check_address(address)
    else:
        assert check_address(address) == expected


def test_find_token_reads_environment_or_private_file(own_home, monkeypatch):
    monkeypatch.delenv("FORGETBENCH_TOKEN", raising=False)
    with pytest.raises(UsageError, match="No token"):
        find_token()
    (own_home / "token").write_text("fb_file\n")
    (own_home / "token").chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        find_token()
    (own_home / "token").chmod(0o600)
    assert find_token() == "fb_file"
    monkeypatch.setenv("FORGETBENCH_TOKEN", " fb_environment ")
    assert find_token() == "fb_environment"


def test_submit_refused_lists_all_errors(world, tmp_path):
    problem = {"detail": "No.", "errors": [{"field": "a", "message": "one"}, {"field": "b", "message": "two"}]}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(422, content=json.dumps(problem)))
    with pytest.raises(ForgetBenchError, match=r"(?s)No\..*a: one.*b: two"):
        submit(world.write_run(tmp_path / "run"), SERVER, "fb_x", transport=transport)


@pytest.fixture
def running_worker(site):
    """The site's worker, running in a thread."""
    stop = threading.Event()

    def work():
        while not stop.wait(0.05):
            site.work()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_post_verification_and_withdraw_change_the_entry(site, world, tmp_path, transport, running_worker):
    run, token = world.write_run(tmp_path / "run", memory=0.1), text_of(site.token())
    identity = submit(run, SERVER, token, transport=transport).document.id
    assert fetch_entry(identity, SERVER, transport=transport).manifest["method"]["name"] == "scrub"
    second = world.write_run(tmp_path / "second", memory=0.1, start=700)
    grace = text_of(site.token("verify", name="Grace"))
    record = post_verification(identity, second, SERVER, grace, transport=transport)
    assert record.outcome == "reproduced"
    with pytest.raises(UsageError, match="may not"):
        withdraw(identity, "mine", SERVER, grace, transport=transport)
    assert withdraw(identity, "a bug", SERVER, token, transport=transport) == "withdrawn"


def test_pull_bundle_fetches_public_files_only(site, world, tmp_path, transport, tiny_pack):
    folder = pull_bundle(world.task, SERVER, tmp_path / "pack", transport=transport)
    assert {path.name for path in folder.iterdir()} == {"pack.json", "originals"}
    for seed in range(6):
        name = f"originals/d0-s{seed}.npz"
        assert (folder / name).read_bytes() == (tiny_pack.folder / name).read_bytes()
    with pytest.raises(UsageError, match="not empty"):
        pull_bundle(world.task, SERVER, folder, transport=transport)
    with pytest.raises(ForgetBenchError, match="no board"):
        pull_bundle("none/such", SERVER, tmp_path / "other", transport=transport)
    hostile = io.BytesIO()
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr("pack.json", "{}")
        archive.writestr("../../evil", "x")
    evil = httpx2.MockTransport(lambda _: httpx2.Response(200, content=hostile.getvalue()))
    with pytest.raises(ForgetBenchError, match="is not a file of a pack"):
        pull_bundle(world.task, SERVER, tmp_path / "evil", transport=evil)
    assert not (tmp_path / "evil").exists()


def submission(**changes):
    """A ranked submission."""
    fields = {
        **dict.fromkeys(("id", "task", "label", "state", "note", "url", "waits"), ""),
        "tier": "claimed",
        **{name: [] for name in ("reasons", "flags", "history")},
        **{
            "status": None,
            "distance": 0.5,
            "distance_low": None,
            "distance_high": None,
            "within_band": False,
            "ranked": 3,
        },
        "rank": {"scope": "claimed", "position": 1, "low": 1, "high": 1},
        **changes,
    }
    return SubmissionDocument(**fields)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("rejected", "rejected: because"),
        ("quarantined", "quarantined: because"),
        ("withdrawn", "withdrawn: because"),
        ("flagged", "claimed: rank 1 of 3 claimed rows, distance 0.50; under review: because"),
        ("scoring", "scoring; waiting for the scoring worker"),
    ],
)
def test_describe_state_names_state_and_reason(state, words):
    assert describe_state(submission(state=state, note="because")) == words


def test_describe_state_without_worker_has_the_warning():
    warning = "no scoring worker has started yet; submissions waiting for a score: 1"
    assert describe_state(submission(state="received", waits=warning)) == f"received; {warning}"


def test_submit_runs_without_torch_and_server_packages(world, tmp_path):
    run = world.write_run(tmp_path / "run")
    absent = "torch timm torchvision fastapi starlette sqlalchemy alembic uvicorn"
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in sys.argv[2].split():
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from forgetbench.cli import main
main(['submit', sys.argv[1], '--server', 'http://127.0.0.1:9'])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(run), absent],
        env={**os.environ, "FORGETBENCH_TOKEN": "fb_x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot be reached" in " ".join(done.stderr.split()), done.stderr


def test_fetch_evidence_gives_the_run_as_submitted(site, world, tmp_path, transport):
    run = world.write_run(tmp_path / "run", memory=0.1)
    entry = site.post(run, site.token()).json()["id"]
    site.work()
    fetched = fetch_evidence(entry, SERVER, tmp_path / "fetched", transport=transport)
    assert fetched.manifest == read_run(run).manifest
    assert (fetched.folder / "d0-s0.npz").read_bytes() == (run / "d0-s0.npz").read_bytes()
