"""`serve` in real processes: stopped, killed without warning, and observed through their log."""

from __future__ import annotations

import json
import os
import socket
import subprocess

import httpx2
import pytest
from support.concurrency import LIMIT, wait_until
from support.server_process import ServerProcess, serve_command

from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.client.submit import submit, write_body


@pytest.fixture
def server(site):
    """A server in processes of its own, on the site's data."""
    site.database.close()
    process = ServerProcess(site.settings)
    yield process
    process.close()


@pytest.fixture
def token(site):
    """Text of a token."""
    return site.token()["Authorization"].removeprefix("Bearer ")


def test_kill_between_receipt_and_score_loses_nothing(server, token, world, tmp_path):
    server.start(worker=False)
    runs = [world.write_run(tmp_path / str(place), f"m{place}", start=300 + 20 * place) for place in range(2)]
    ids = [submit(run, server.address, token, wait_seconds=0).document.id for run in runs]
    server.kill()
    server.start(worker=True)
    for entry_id in ids:
        server.wait_for_log(f"job score:{entry_id} done")
    server.wait_for_log("job rank:1 done")  # scores go first, so this ranking has both
    for entry_id in ids:
        answer = server.get(f"/api/v1/submissions/{entry_id}")
        assert answer.status_code == 200
        assert answer.json()["rank"]
        assert [event["after"] for event in answer.json()["history"]] == ["received", "scoring", "listed"]
    again = submit(runs[0], server.address, token, wait_seconds=LIMIT)
    assert again.document.id == ids[0]
    assert server.stop() == 0


def test_stop_answers_running_requests_and_logs_json(site, server, token, world, tmp_path):
    body = write_body(read_run(world.write_run(tmp_path / "run")), tmp_path / "body.zip").read_bytes()
    server.start(worker=False)

    def body_across_the_stop():
        yield body[:1000]
        server.terminate()
        server.wait_for_log("Shutting down")
        yield body[1000:]

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/zip"}
    url = f"{server.address}/api/v1/submissions"
    answer = httpx2.post(url, content=body_across_the_stop(), headers=headers, timeout=LIMIT)
    assert answer.status_code == 202
    assert server.wait() == 0
    with pytest.raises(httpx2.TransportError):
        server.get("/health")
    records = [json.loads(line) for line in server.log if line]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(record) for record in records))
    assert "forgetbench.access" in {record["logger"] for record in records}
    assert token not in "".join(server.log)
    assert not list(site.settings.incoming.iterdir())


def test_serve_on_a_used_port_explains_it(site):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        command = serve_command(listener.getsockname()[1], worker=False)
        environment = {**os.environ, "FORGETBENCH_SERVER_FOLDER": str(site.settings.server_folder)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Cannot listen" in done.stderr


def test_worker_of_a_killed_server_ends(server):
    server.start(worker=True)
    worker = server.worker_process()
    server.kill()
    worker.wait(timeout=LIMIT)


def test_killed_worker_is_restarted_and_logged(server, token, world, tmp_path):
    server.start(worker=True, lease_seconds=5)
    first = server.worker_process()
    wait_until(lambda: server.get("/ready").json() == {"status": "ready", "scoring": "ok"}, "readiness")
    first.kill()
    outcome = submit(world.write_run(tmp_path / "run"), server.address, token, wait_seconds=LIMIT)
    assert outcome.state == "listed"
    second = server.worker_process()
    assert second.pid != first.pid
    assert server.stop() == 0
    assert not second.is_running()
    [record] = [json.loads(line) for line in server.log if "the scoring worker ended" in line]
    assert (record["level"], "status -9" in record["message"]) == ("error", True)


@pytest.mark.parametrize(("proxies", "statuses"), [("", [200, 200, 429, 429]), ("127.0.0.0/8", [200, 200, 200, 429])])
def test_clients_of_a_trusted_proxy_are_counted_apart(server, proxies, statuses):
    server.start(worker=False, reads_per_minute=2, trusted_proxies=proxies)
    clients = ("192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.2")
    answers = [server.get("/metrics", headers={"X-Forwarded-For": client}) for client in clients]
    assert [answer.status_code for answer in answers] == statuses
