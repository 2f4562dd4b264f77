"""The real thing: processes that are killed with no warning, and what is there afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest

from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.client.submit import submit, write_body

SERVE = (
    "import sys; from forgetbench.leaderboard.serve import serve;"
    "from forgetbench.leaderboard.settings import Settings;"
    "serve(Settings(), port=int(sys.argv[1]), with_worker=sys.argv[2] == 'worker')"
)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """`serve` in a process of its own."""

    def __init__(self, settings):
        self.settings, self.process, self.port = settings, None, free_port()
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self, *, worker, log=None, **settings):
        environment = {
            **os.environ,
            "FORGETBENCH_SERVER_FOLDER": str(self.settings.server_folder),
            "FORGETBENCH_DATABASE_URL": self.settings.database_url,
            "FORGETBENCH_LEASE_SECONDS": "1",
            "FORGETBENCH_POLL_SECONDS": "0.05",
            "OMP_NUM_THREADS": "1",
            **{f"FORGETBENCH_{name.upper()}": str(value) for name, value in settings.items()},
        }
        words = [sys.executable, "-c", SERVE, str(self.port), "worker" if worker else "none"]
        self.process = subprocess.Popen(words, env=environment, stderr=log)
        until = time.monotonic() + 90
        while time.monotonic() < until:
            try:
                if httpx2.get(f"{self.address}/ready").status_code == 200:
                    return self
            except httpx2.TransportError:
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture
def server(site):
    site.database.close()
    found = Server(site.settings)
    yield found
    if found.process is not None and found.process.poll() is None:
        found.kill()


def test_a_kill_between_receipt_and_score_loses_nothing(site, server, world, tmp_path):
    token = site.token()["Authorization"].removeprefix("Bearer ")
    server.start(worker=False)
    runs = [world.write_run(tmp_path / str(place), f"m{place}", start=300 + 20 * place) for place in range(2)]
    ids = [submit(run, server.address, token, wait_seconds=0).document.id for run in runs]
    server.kill()
    server.start(worker=True)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = [httpx2.get(f"{server.address}/api/v1/submissions/{identity}") for identity in ids]
        if all(answer.status_code == 200 and answer.json()["rank"] for answer in found):
            break
        time.sleep(0.1)
    for answer in found:
        assert [event["after"] for event in answer.json()["history"]] == ["received", "scoring", "listed"]
    again = submit(runs[0], server.address, token, wait_seconds=5)
    assert again.document.id == ids[0]
    assert server.stop() == 0


def test_a_stop_answers_what_is_under_way_and_logs_json(site, server, world, tmp_path):
    token = site.token()["Authorization"].removeprefix("Bearer ")
    body = write_body(read_run(world.write_run(tmp_path / "run")), tmp_path / "body.zip").read_bytes()
    log = tmp_path / "log"
    with log.open("wb") as stream:
        server.start(worker=False, log=stream)

        def slowly():
            yield body[:1000]
            server.process.terminate()
            time.sleep(1.0)
            yield body[1000:]

        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/zip"}
        answer = httpx2.post(f"{server.address}/api/v1/submissions", content=slowly(), headers=headers)
        assert answer.status_code == 202
        assert server.process.wait(30) == 0
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{server.address}/health")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in lines))
    assert "forgetbench.access" in {line["logger"] for line in lines}
    assert token not in log.read_text()
    assert not list(site.settings.incoming.iterdir())


def test_a_taken_port_is_said_to_be_taken(site, server, capfd):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", server.port))
        listener.listen()
        words = [sys.executable, "-c", SERVE, str(server.port), "none"]
        environment = {**os.environ, "FORGETBENCH_SERVER_FOLDER": str(site.settings.server_folder)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Cannot listen" in done.stderr


def test_the_worker_does_not_outlive_a_killed_server(site, server):
    import psutil

    server.start(worker=True)
    [worker] = psutil.Process(server.process.pid).children()
    server.kill()
    worker.wait(timeout=90)


def test_a_killed_scoring_process_is_started_again_and_said_in_the_log(site, server, world, tmp_path):
    import psutil

    token = site.token()["Authorization"].removeprefix("Bearer ")
    log = tmp_path / "log"
    with log.open("wb") as stream:
        server.start(worker=True, log=stream, lease_seconds=5)
        [first] = psutil.Process(server.process.pid).children()
        until = time.monotonic() + 120
        while httpx2.get(f"{server.address}/ready").json() != {"status": "ready", "scoring": "ok"}:
            assert time.monotonic() < until
            time.sleep(0.1)
        first.kill()
        found = submit(world.write_run(tmp_path / "run"), server.address, token, wait_seconds=120)
        assert found.document.state == "listed"
        [second] = psutil.Process(server.process.pid).children()
        assert second.pid != first.pid
        assert server.stop() == 0
        assert not second.is_running()
    [said] = [json.loads(line) for line in log.read_text().splitlines() if "the scoring worker ended" in line]
    assert (said["level"], "status -9" in said["message"]) == ("error", True)


@pytest.mark.parametrize(("proxies", "statuses"), [("", [200, 200, 429, 429]), ("127.0.0.0/8", [200, 200, 200, 429])])
def test_readers_behind_a_trusted_proxy_are_counted_one_by_one(site, server, proxies, statuses):
    server.start(worker=False, reads_per_minute=2, trusted_proxies=proxies)
    readers = ("192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.2")
    answers = [httpx2.get(f"{server.address}/metrics", headers={"X-Forwarded-For": reader}) for reader in readers]
    assert [answer.status_code for answer in answers] == statuses
