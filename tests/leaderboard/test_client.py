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

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leaderboard.client.http import check_address, find_token
from forgetbench.leaderboard.client.submit import (
    describe_state,
    fetch_entry,
    post_verification,
    pull_bundle,
    submit,
    withdraw,
)
from forgetbench.leaderboard.render.schemas import SubmissionDocument

stream = io.BytesIO()
with zipfile.ZipFile(stream, "w") as archive:
    archive.writestr("pack.json", "{}")
    archive.writestr("../../evil", "x")
EVIL = stream.getvalue()
SERVER = "http://127.0.0.1:8000"


def bare(headers):
    return headers["Authorization"].removeprefix("Bearer ")


def test_submit_waits_for_the_verdict_and_prints_the_place(site, world, tmp_path, over, working):
    sent = []
    run = world.write_run(tmp_path / "run")
    verdict = submit(run, SERVER, bare(site.token()), progress=lambda *at: sent.append(at), transport=over)
    assert (verdict.state, verdict.task) == ("listed", world.task)
    assert verdict.detail.startswith("rank 1 of 1, distance")
    assert verdict.url.endswith(f"/entries/{verdict.document.id}")
    assert sent[-1][0] == sent[-1][1]


def test_submitting_the_same_run_again_is_the_same_submission(site, world, tmp_path, over):
    run, token = world.write_run(tmp_path / "run"), bare(site.token())
    first = submit(run, SERVER, token, wait_seconds=0, transport=over)
    second = submit(run, SERVER, token, wait_seconds=0, transport=over)
    assert first.document.id == second.document.id
    assert first.state == "received"


def test_a_dry_run_says_what_the_server_would_say(site, world, tmp_path, over, change_manifest):
    token = bare(site.token())
    assert submit(world.write_run(tmp_path / "a"), SERVER, token, dry_run=True, transport=over).state == "accepted"
    wrong = change_manifest(world.write_run(tmp_path / "b"), lambda manifest: manifest.update(task="other/cnn"))
    with pytest.raises(ForgetBenchError, match="no board of that task"):
        submit(wrong, SERVER, token, dry_run=True, transport=over)


def test_a_wrong_token_is_a_wrong_call(site, world, tmp_path, over):
    with pytest.raises(UsageError, match="wrong, expired or revoked"):
        submit(world.write_run(tmp_path / "run"), SERVER, f"fb_{'0' * 16}_{'0' * 64}", transport=over)
    with pytest.raises(UsageError, match="looks like"):
        submit(tmp_path / "run", SERVER, "hello", transport=over)


def test_damage_is_found_before_anything_is_sent(world, tmp_path):
    run = world.write_run(tmp_path / "run")
    (run / "d0-s1.npz").write_bytes((run / "d0-s1.npz").read_bytes()[:-40])
    with pytest.raises(ForgetBenchError, match=r"d0-s1\.npz"):
        submit(run, SERVER, "fb_x", transport=httpx2.MockTransport(lambda _: pytest.fail("sent")))
    (run / "d0-s1.npz").unlink()
    with pytest.raises(ForgetBenchError, match=r"d0-s1\.npz"):
        submit(run, SERVER, "fb_x")
    with pytest.raises(UsageError, match="is not a run"):
        submit(tmp_path, SERVER, "fb_x")


def test_an_unreachable_server_is_said_to_be_one(world, tmp_path):
    with pytest.raises(ForgetBenchError, match="cannot be reached"):
        submit(world.write_run(tmp_path / "run"), "http://127.0.0.1:9", "fb_x")


def test_something_that_is_no_leaderboard_is_said_to_be_none(world, tmp_path):
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
def test_tokens_go_over_https_or_to_this_machine(address, expected):
    if expected is None:
        with pytest.raises(UsageError):
            check_address(address)
    else:
        assert check_address(address) == expected


def test_the_token_comes_from_the_environment_or_a_private_file(own_home, monkeypatch):
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


def test_every_refusal_is_listed(world, tmp_path):
    problem = {"detail": "No.", "errors": [{"field": "a", "message": "one"}, {"field": "b", "message": "two"}]}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(422, content=json.dumps(problem)))
    with pytest.raises(ForgetBenchError, match=r"(?s)No\..*a: one.*b: two"):
        submit(world.write_run(tmp_path / "run"), SERVER, "fb_x", transport=transport)


@pytest.fixture
def working(site):
    """The worker, at work beside the test."""
    stop = threading.Event()

    def work():
        while not stop.wait(0.05):
            site.work()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_verify_and_withdraw(site, world, tmp_path, over, working):
    run, token = world.write_run(tmp_path / "run", memory=0.1), bare(site.token())
    identity = submit(run, SERVER, token, transport=over).document.id
    assert fetch_entry(identity, SERVER, transport=over).manifest["method"]["name"] == "scrub"
    second = world.write_run(tmp_path / "second", memory=0.1, start=700)
    grace = bare(site.token("verify", name="Grace"))
    record = post_verification(identity, second, SERVER, grace, transport=over)
    assert record.verdict == "reproduced"
    with pytest.raises(UsageError, match="may not"):
        withdraw(identity, "mine", SERVER, grace, transport=over)
    assert withdraw(identity, "a bug", SERVER, token, transport=over) == "withdrawn"


def test_pull_brings_the_originals_and_no_more(site, world, tmp_path, over, tiny_pack):
    folder = pull_bundle(world.task, SERVER, tmp_path / "pack", transport=over)
    assert {path.name for path in folder.iterdir()} == {"pack.json", "originals"}
    for seed in range(6):
        name = f"originals/d0-s{seed}.npz"
        assert (folder / name).read_bytes() == (tiny_pack.folder / name).read_bytes()
    with pytest.raises(UsageError, match="not empty"):
        pull_bundle(world.task, SERVER, folder, transport=over)
    with pytest.raises(ForgetBenchError, match="no board"):
        pull_bundle("none/such", SERVER, tmp_path / "other", transport=over)
    evil = httpx2.MockTransport(lambda _: httpx2.Response(200, content=EVIL))
    with pytest.raises(ForgetBenchError, match="not a pack"):
        pull_bundle(world.task, SERVER, tmp_path / "evil", transport=evil)
    assert not (tmp_path / "evil").exists()


def submission(**changes):
    """A ranked submission."""
    fields = {
        **dict.fromkeys(("id", "task", "label", "state", "tier", "note", "url", "waits"), ""),
        **{name: [] for name in ("reasons", "flags", "history")},
        **{"status": None, "distance": 0.5, "distance_low": None, "distance_high": None, "inside": False, "ranked": 3},
        "rank": {"position": 1, "low": 1, "high": 1, "tie_group": 1},
        **changes,
    }
    return SubmissionDocument(**fields)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("rejected", "rejected: because"),
        ("quarantined", "quarantined: because"),
        ("withdrawn", "withdrawn: because"),
        ("flagged", "rank 1 of 3, distance 0.50; under review: because"),
        ("scoring", "scoring; waiting for the scoring worker"),
    ],
)
def test_describe_state_names_state_and_reason(state, words):
    assert describe_state(submission(state=state, note="because")) == words


def test_describe_state_without_worker_has_the_warning():
    warning = "no scoring worker has started yet; submissions waiting for a score: 1"
    assert describe_state(submission(state="received", waits=warning)) == f"received; {warning}"


def test_a_finished_run_is_submitted_where_torch_cannot_be_imported(world, tmp_path):
    run = world.write_run(tmp_path / "run")
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'torch', 'timm', 'torchvision'}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from forgetbench.cli import main
main(['submit', sys.argv[1], '--server', 'http://127.0.0.1:9'])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)],
        env={**os.environ, "FORGETBENCH_TOKEN": "fb_x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot be reached" in " ".join(done.stderr.split()), done.stderr
