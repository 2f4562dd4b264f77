"""The runner's part of the queue, with a fake sandbox: methods are received, verified once, or fail with a reason."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx2
import numpy as np
import pytest
from sqlalchemy import select
from support.board_processes import BoardProcesses, worlds
from support.concurrency import LIMIT, wait_until
from support.leaderboard import TASK, ZIP, Direct, Site, World, zip_of

from forgetbench import submit
from forgetbench.api.methods import MethodCheck, MethodReport
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.run import read_run
from forgetbench.leaderboard import admin
from forgetbench.leaderboard.admin import install_bundle
from forgetbench.leaderboard.client.submit import fetch_submission, submit_method
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import BoardRun, Entry, Event, Job, Token
from forgetbench.leaderboard.db.session import open_database
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import seals
from forgetbench.leaderboard.submissions.seals import BoardDraws, RoundSeal, install_sealed_board
from forgetbench.remote.submit import prepare_method
from forgetbench.runner.config import RunConfig
from forgetbench.verification import runner as runner_module
from forgetbench.verification.limits import Limits
from forgetbench.verification.rerun import MeasuredCost, MethodFailedError, Rerun
from forgetbench.verification.runner import Runner
from forgetbench.verification.sandbox import TrustedProcess

SOURCE = "class Mine:\n    pass\n"
METHOD = """
from dataclasses import dataclass
from forgetbench.methods import Method, param

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    "A method of a test."

    lr: float = param(0.1, gt=0)

    def unlearn(self, model, request):
        return model
"""
PATH = "/api/v1/submissions/method"


class FakeRun:
    """Takes the place of `run_method`: writes the run of a made-up method, or fails."""

    def __init__(self, worlds, folder):
        self.worlds, self.folder, self.calls = worlds, folder, []
        self.name, self.cost, self.failure, self.fingerprint = "mine", 0.04, None, "ab" * 32
        self.own_originals = False

    def __call__(self, task, code, label, sandbox, limits, config, progress):  # noqa: ARG002 - that of `run_method`
        progress("model 1 of 6")
        self.calls.append((task.draws, code))
        if self.failure is not None:
            raise self.failure
        method = {"source": code.source, "fingerprint": self.fingerprint, "needs": ("forget",), "label": label}
        folder = self.folder / f"{len(self.calls)}"
        start = 300 + 20 * len(self.calls)
        world, own = self.worlds[task.draws], start + 400 if self.own_originals else None
        run = read_run(world.write_run(folder, self.name, start=start, method=method, own=own))
        measured = MeasuredCost(
            sandbox="fake",
            read=("forget",),
            requested_network=False,
            flops=self.cost,
            time=self.cost / 2,
            seconds=1.5,
            cpu_seconds=1.0,
            memory=2**20,
        )
        return Rerun(run, measured)


@pytest.fixture(scope="module", name="worlds")
def made_up_worlds():
    """The made-up task on public and on sealed draws."""
    return worlds()


@pytest.fixture(scope="module")
def prepared_sealed(worlds, databases, tmp_path_factory):
    """A server with a sealed board, whose baselines are scored: made once, copied for each test."""
    folder = tmp_path_factory.mktemp("sealed")
    makers = {**worlds, "development": World(f"{TASK}/development", seed=13)}
    packs = {kind: maker.write_pack(folder / kind, kind=kind) for kind, maker in makers.items()}
    settings = Settings(server_folder=folder / "server", database_url=databases.new_url())
    with open_database(settings) as database:
        install_sealed_board(database, settings, packs, RoundSeal(round=1, salt="5a" * 32))
    site = Site(settings, worlds["public"])
    site.work()
    site.database.close()
    return settings


@pytest.fixture
def sealed(prepared_sealed, worlds, databases, tmp_path, monkeypatch):
    """A site with a sealed board, and a runner that runs when the test says so."""
    site = Site(databases.copy(prepared_sealed, tmp_path / "server"), worlds["public"])
    site.fake = FakeRun(worlds, tmp_path / "runs")
    bundle = SimpleNamespace(folder=None)
    draws = {kind: BoardDraws(SimpleNamespace(draws=kind, world=world), bundle) for kind, world in worlds.items()}
    monkeypatch.setattr(seals, "board_draws", lambda *_: draws)
    monkeypatch.setattr(runner_module, "import_originals", lambda *_: None)
    site.runner = make_runner(site)
    with site.client:
        yield site
    site.database.close()


def make_runner(site, run=None):
    """A runner of a site, with a made-up sandbox."""
    config = RunConfig(device="cpu", home=site.settings.runner)
    return Runner(site.settings, site.database, TrustedProcess(), Limits(), config, run=run or site.fake)


def post(site, headers, **fields):
    """Submit a method alone."""
    document = {"task": TASK, "source": SOURCE, "class_name": "Mine", **fields}
    return site.client.post(PATH, json=document, headers=headers)


def submission(site, entry, headers):
    """State of a submission."""
    return site.client.get(f"/api/v1/submissions/{entry}", headers=headers).json()


def test_method_alone_becomes_a_verified_row(sealed):
    headers = sealed.token()
    answer = post(sealed, headers, parameters={"lr": 0.1})
    assert answer.status_code == 202, answer.text
    entry = answer.json()["id"]
    assert answer.json()["state"] == "received"
    assert (answer.json()["run"]["state"], answer.json()["run"]["place"]) == ("waiting", 1)
    assert "no runner has started yet" in answer.json()["run"]["waits"]
    sealed.work()
    assert submission(sealed, entry, headers)["state"] == "received"  # the scoring worker leaves it to the runner
    assert sealed.runner.drain() == 1
    assert [draws for draws, _ in sealed.fake.calls] == ["public", "sealed"]
    assert sealed.fake.calls[0][1].parameters == {"lr": 0.1}
    sealed.work()
    shown = submission(sealed, entry, headers)
    assert (shown["state"], shown["tier"], shown["run"]["state"]) == ("listed", "verified", "done")
    assert shown["run"]["cost_class"] == "5 %"
    assert shown["rank"]["scope"] == "ranked"
    with sealed.database.read_session() as session:
        row = session.get_one(Entry, entry)
        assert (row.method, row.needs_retain, row.cost_class) == ("mine", False, "5 %")
        assert row.manifest["method"]["needs"] == ["forget"]
    page = sealed.client.get(f"/entries/{entry}").text
    assert "5 %" in page
    assert SOURCE.splitlines()[0] in page


def test_claim_with_source_is_verified_without_asking(sealed, world, tmp_path):
    headers = sealed.token()
    method = {"source": SOURCE, "fingerprint": sealed.fake.fingerprint}
    entry = sealed.post(world.write_run(tmp_path / "claim", "mine", method=method), headers).json()["id"]
    sealed.work()
    shown = submission(sealed, entry, headers)
    assert (shown["tier"], shown["run"]["state"]) == ("claimed", "waiting")
    sealed.runner.drain()
    sealed.work()
    assert submission(sealed, entry, headers)["tier"] == "verified"


def test_claim_by_other_code_stays_a_claim_and_says_so(sealed, world, tmp_path):
    headers = sealed.token()
    method = {"source": SOURCE, "fingerprint": "cd" * 32}
    entry = sealed.post(world.write_run(tmp_path / "claim", "mine", method=method), headers).json()["id"]
    sealed.work()
    sealed.runner.drain()
    shown = submission(sealed, entry, headers)
    assert (shown["state"], shown["tier"], shown["run"]["state"]) == ("listed", "claimed", "failed")
    assert "made by other source" in shown["run"]["reason"]


def test_claim_without_source_asks_no_runner(sealed, world, tmp_path):
    headers = sealed.token()
    entry = sealed.post(world.write_run(tmp_path / "claim", "mine"), headers).json()["id"]
    sealed.work()
    assert submission(sealed, entry, headers)["run"] is None


def test_failed_method_is_rejected_with_its_reason(sealed):
    headers = sealed.token()
    sealed.fake.failure = MethodFailedError("It used more than 8 GiB of memory and was stopped.")
    entry = post(sealed, headers).json()["id"]
    sealed.runner.drain()
    shown = submission(sealed, entry, headers)
    assert (shown["state"], shown["run"]["state"]) == ("rejected", "failed")
    assert shown["note"] == "not verified: It used more than 8 GiB of memory and was stopped."
    sealed.fake.failure = None
    second = post(sealed, headers, parameters={"lr": 0.5}).json()["id"]
    sealed.runner.drain()
    sealed.work()
    assert submission(sealed, second, headers)["tier"] == "verified"  # the runner went on


def test_other_source_under_a_registered_name_says_whose(sealed):
    headers = sealed.token(name="Ada")
    sealed.fake.name = "ssd"
    entry = post(sealed, headers).json()["id"]
    sealed.runner.drain()
    sealed.work()
    row = sealed.entry(entry)["row"]
    assert (row["method"], row["label"].startswith("ssd (Ada)"), row["tier"]) == ("ssd (Ada)", True, "verified")


def test_reserved_name_that_a_file_chooses_is_refused(sealed):
    headers = sealed.token()
    sealed.fake.name = "retra1n"
    entry = post(sealed, headers).json()["id"]
    sealed.runner.drain()
    assert "looks like the reserved name" in submission(sealed, entry, headers)["note"]


def test_method_that_costs_as_much_as_retraining_says_so(sealed):
    headers = sealed.token()
    sealed.fake.cost = 0.5
    entry = post(sealed, headers).json()["id"]
    sealed.runner.drain()
    sealed.work()
    shown = submission(sealed, entry, headers)
    assert shown["run"]["cost_class"] == "retraining"
    assert shown["rank"] is not None
    [row] = sealed.client.get(f"/api/v1/boards/{TASK}").json()["rows"]
    assert row["cost_class"] == "retraining"
    assert "retraining</span>" in sealed.client.get(f"/boards/{TASK}").text


def test_method_with_own_originals_has_a_section_of_its_own(sealed):
    headers = sealed.token()
    ordinary = post(sealed, headers).json()["id"]
    sealed.runner.drain()
    sealed.fake.own_originals = True
    own = post(sealed, headers, parameters={"lr": 2}).json()["id"]
    sealed.runner.drain()
    sealed.work()
    shown = [submission(sealed, entry, headers) for entry in (ordinary, own)]
    assert [(one["tier"], one["rank"]["scope"], one["rank"]["low"]) for one in shown] == [
        ("verified", "ranked", 1),
        ("verified", "own originals", 1),
    ]
    assert [one["ranked"] for one in shown] == [1, 1]
    page = sealed.client.get(f"/boards/{TASK}").text
    assert page.index(f'href="/entries/{ordinary}"') < page.index("Own originals: these methods") < page.index(own)
    assert "test accuracy, the board's have" in page[page.index("Own originals") :].replace("&#39;", "'")


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"source": "class Mine(:\n"}, "source", "is not valid Python"),
        ({"source": "(" * 5000}, "source", "is not valid Python"),
        ({"class_name": "Yours"}, "class_name", "is no class of the source"),
        ({"name": "ssd"}, "name", "names its method itself"),
        ({"source": None, "class_name": "", "name": "sdd"}, "name", "is no method of this package"),
        ({"source": "x" * 200_001}, "source", "200000"),
        ({"parameters": {f"p{number}": 1 for number in range(201)}}, "parameters", "200"),
        ({"parameters": {"lr": [1]}}, "parameters", ""),
        ({"parameters": {"l r": 1}}, "parameters", ""),
        ({"unknown": 1}, "unknown", ""),
    ],
)
def test_method_that_cannot_be_run_is_refused(sealed, fields, field, words):
    answer = post(sealed, sealed.token(), **fields)
    assert answer.status_code == 422, answer.text
    errors = answer.json()["errors"]
    assert any(error["field"].startswith(field) and words in error["message"] for error in errors), errors
    with sealed.database.read_session() as session:
        assert session.query(BoardRun).count() == 0


def test_method_for_a_board_that_is_not_sealed_is_refused(site, tiny_pack):
    install_bundle(site.settings, tiny_pack.folder)
    answer = post(site, site.token())
    assert answer.status_code == 422
    assert "not sealed" in answer.text


def test_method_needs_a_token_and_counts_as_a_submission(sealed):
    assert post(sealed, {}).status_code == 401
    assert post(sealed, sealed.token("verify")).status_code == 403
    limited = sealed.token(name="Limited")
    with sealed.database.write_session() as session:
        token = limited["Authorization"].split("_")[1]
        session.get_one(Token, token).daily_submissions = 1
    assert post(sealed, limited).status_code == 202
    assert post(sealed, limited, parameters={"lr": 1}).status_code == 429


def test_repeated_request_is_one_submission(sealed):
    headers = {**sealed.token(), "Idempotency-Key": "k1"}
    first, second = post(sealed, headers), post(sealed, headers)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    assert post(sealed, headers, parameters={"lr": 2}).status_code == 409


def test_two_runners_verify_each_submission_once(sealed):
    headers = sealed.token()
    entries = [post(sealed, headers, parameters={"lr": number}).json()["id"] for number in range(4)]
    runners = [make_runner(sealed), make_runner(sealed)]
    threads = [threading.Thread(target=runner.drain) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sealed.work()
    assert len(sealed.fake.calls) == 8
    for entry in entries:
        shown = submission(sealed, entry, headers)
        assert shown["tier"] == "verified"
        assert len([event for event in shown["history"] if "run again" in event["reason"]]) == 1


def test_stopped_runner_gives_its_job_back(sealed):
    headers = sealed.token()
    entry = post(sealed, headers).json()["id"]
    sealed.fake.failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        sealed.runner.drain()
    sealed.fake.failure = None
    assert queue.claim(sealed.database, "w", 60) is None  # it is no job of the scoring worker
    assert make_runner(sealed).drain() == 1
    sealed.work()
    assert submission(sealed, entry, headers)["tier"] == "verified"


def test_fault_of_the_machine_is_tried_again(sealed):
    headers = sealed.token()
    entry = post(sealed, headers).json()["id"]
    sealed.fake.failure = OSError("No space left on device")
    sealed.runner.drain()
    assert submission(sealed, entry, headers)["run"]["state"] == "running"
    with sealed.database.write_session() as session:
        [job] = session.query(Job).filter(Job.kind == "run").all()
        assert "No space left" in str(job.error)
        job.attempts = sealed.runner.max_attempts
        job.lease_until = job.created_at
    sealed.runner.drain()
    shown = submission(sealed, entry, headers)
    assert "which is the server's fault" in shown["run"]["reason"]
    assert shown["state"] == "received"
    sealed.fake.failure = None
    assert len(admin.retry_jobs(sealed.settings, "all")) == 1
    sealed.runner.drain()
    sealed.work()
    assert submission(sealed, entry, headers)["tier"] == "verified"


def test_withdrawn_submission_is_not_run(sealed):
    headers = sealed.token()
    entry = post(sealed, headers).json()["id"]
    assert sealed.change_state(entry, "withdrawn", headers).status_code == 200
    sealed.runner.drain()
    assert sealed.fake.calls == []


KILLS, SUBMISSIONS = 20, 10


def submit_until_accepted(address, number, body, headers):
    """Submit until the server answers, as the client does: the same body with the same key; returns the entry."""
    with httpx2.Client(base_url=address, timeout=LIMIT) as http:
        kind = ZIP if isinstance(body, bytes) else {"Content-Type": "application/json"}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = "/api/v1/submissions" if isinstance(body, bytes) else PATH
        while True:
            try:
                answer = http.post(path, content=content, headers=headers | kind | {"Idempotency-Key": f"k{number}"})
            except httpx2.TransportError:  # the server was killed before it answered
                continue
            if answer.status_code == 503:  # other changes of the database went before
                continue
            assert answer.status_code in {200, 202}, answer.text
            return answer.json()["id"]


@pytest.mark.system
def test_kills_of_all_processes_lose_nothing(sealed, worlds, tmp_path):
    random = np.random.default_rng(2026)
    limits = {"writes_per_minute": 10_000, "reads_per_minute": 10_000}
    limits["job_attempts"] = KILLS + 1  # on a slow machine, all of a worker's deaths may fall on the same job
    settings = sealed.settings.model_copy(update={"lease_seconds": 1.0, "poll_seconds": 0.02, **limits})
    headers, bodies = sealed.token(), []
    for number in range(SUBMISSIONS):
        parameters = {"number": number}
        method = {"source": SOURCE, "parameters": parameters}
        claim = worlds["public"].write_run(
            tmp_path / f"{number}", f"mine-{number}", start=2000 + 20 * number, method=method
        )
        alone = {"task": TASK, "source": SOURCE, "class_name": "Mine", "parameters": parameters}
        bodies.append(zip_of(claim) if number % 2 else alone)
    processes = BoardProcesses(settings, tmp_path / "made", 0.1)
    try:
        for role in ("server", "worker", "runner"):
            processes.start(role)
        with ThreadPoolExecutor(SUBMISSIONS) as pool:
            calls = [
                pool.submit(submit_until_accepted, processes.address, number, body, headers)
                for number, body in enumerate(bodies)
            ]
            for _ in range(KILLS):
                goal = progress_of(sealed) + random.integers(1, 6)
                wait_until(lambda goal=goal: advanced(sealed, processes, calls, goal), "progress")
                time.sleep(random.uniform(0.0, 0.3))
                role = random.choice(["server", "worker", "runner"])
                processes.kill(role)
                processes.start(role)
            entries = [call.result() for call in calls]
        wait_until(lambda: unfinished_jobs(sealed) == 0, "the end of all jobs")
    finally:
        processes.close()
    assert len(set(entries)) == SUBMISSIONS
    with sealed.database.read_session() as session:
        assert set(session.scalars(select(Entry.id).where(~Entry.baseline))) == set(entries)
        assert list(session.scalars(select(Job.key).where(Job.state == "failed"))) == []
    for number, entry in enumerate(entries):
        shown = submission(sealed, entry, headers)
        assert (shown["tier"], shown["run"]["state"]) == ("verified", "done"), shown
        assert shown["state"] in {"listed", "flagged"}
        reasons = [event["reason"] for event in shown["history"]]
        assert len([reason for reason in reasons if "run again" in reason]) == 1
        assert len([reason for reason in reasons if "tier: verified" in reason]) == 1
        assert len(list((settings.evidence / entry).glob("*.npz"))) == (6 if number % 2 else 0)
        assert all(len(list((settings.verified / entry / draws).glob("*.npz"))) == 6 for draws in worlds)


def progress_of(site):
    """A number that grows with every change of an entry and every finished job."""
    with site.database.read_session() as session:
        return session.query(Event).count() + session.query(Job).filter(Job.state == "done").count()


def advanced(site, processes, calls, goal):
    """Whether progress has reached a goal or every entry is verified; raises what a process, call or job failed on."""
    processes.check_running()
    for call in calls:
        if call.done():
            call.result()
    with site.database.read_session() as session:
        assert list(session.execute(select(Job.key, Job.error).where(Job.state == "failed"))) == []
        is_complete = session.query(Entry).filter(Entry.tier == "verified").count() == SUBMISSIONS
    return is_complete or progress_of(site) >= goal


def unfinished_jobs(site):
    """Number of jobs that wait or run."""
    with site.database.read_session() as session:
        return session.query(Job).filter(Job.state.in_(("waiting", "running"))).count()


def test_client_sends_a_method_and_says_where_it_is(sealed):
    token, server, transport = bearer(sealed), "http://127.0.0.1:8000", Direct(sealed)
    first = submit_method({"task": TASK, "source": SOURCE}, server, token, transport=transport)
    code = {"task": TASK, "source": SOURCE, "parameters": {"lr": 2}}
    second = submit_method(code, server, token, transport=transport)
    assert submit_method(code, server, token, transport=transport).document.id == second.document.id
    warning = "no runner has started yet, and only a runner verifies submissions"
    assert second.detail == f"received; place 2 in the queue of the board's runner; {warning}"
    sealed.fake.failure = MethodFailedError("It ran longer than 1800 s and was stopped.")
    sealed.runner.drain()
    shown = fetch_submission(first.document.id, server, token, transport=transport)
    assert (shown.state, shown.detail) == (
        "rejected",
        "rejected: not verified: It ran longer than 1800 s and was stopped.",
    )
    with pytest.raises(ForgetBenchError, match="is no class of the source"):
        submit_method({**code, "class_name": "Yours"}, server, token, transport=transport)


def bearer(site):
    """Text of a token."""
    return site.token()["Authorization"].removeprefix("Bearer ")


def test_method_is_prepared_without_its_path(tmp_path):
    file = tmp_path / "secret-folder" / "my_method.py"
    file.parent.mkdir()
    file.write_text(METHOD)
    code = prepare_method(f"{file}:Mine:lr=0.5", "digits/cnn/class")
    assert code == {"task": "digits/cnn/class", "source": METHOD, "class_name": "Mine", "parameters": {"lr": 0.5}}
    assert prepare_method("ssd:alpha=3", "digits/cnn/class") == {
        "task": "digits/cnn/class",
        "name": "ssd",
        "parameters": {"alpha": 3.0},
    }
    with pytest.raises(UsageError, match="Name the board with --task"):
        prepare_method(str(file), None)
    with pytest.raises(UsageError, match="reference rows are part of every board"):
        prepare_method("retrain", "digits/cnn/class")


def test_remote_submission_of_a_broken_method_is_refused_at_home(tmp_path, monkeypatch):
    file = tmp_path / "my_method.py"
    file.write_text(METHOD)
    report = MethodReport("mine", (MethodCheck("cnn", "the given model is not changed", ok=False, message="head"),))
    monkeypatch.setattr("forgetbench.api.methods.check_method", lambda *_, **__: report)
    with pytest.raises(UsageError, match="the given model is not changed: head"):
        submit(f"{file}:Mine", "http://127.0.0.1:9", "fb_x_y", task="digits/cnn/class", remote=True)
    with pytest.raises(UsageError, match="check-method"):
        submit(f"{file}:Mine", "http://127.0.0.1:9", "fb_x_y", task="digits/cnn/class", remote=True, dry_run=True)
