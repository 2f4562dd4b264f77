"""The watchdog and the protocol of a method's process, with processes that need no torch."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest
from support.concurrency import wait_until
from support.sandboxes import ScriptSandbox

from forgetbench.verification.limits import Limits, process_tree, tree_usage
from forgetbench.verification.session import SandboxStoppedError, SandboxUnavailableError, Session

LIMITS = Limits(wall_seconds=60, memory=2**30, processes=20)


def answer(script, limits=LIMITS, max_payload=100):
    """What the runner receives from a script, and what it measured."""
    with Session(ScriptSandbox(script), limits, "cpu") as session:
        session.begin()
        session.send({"kind": "unlearn"})
        message = session.receive(max_payload)
        return message, session.measure()


def test_session_measures_processor_time_of_all_processes():
    busy = "'import time; end = time.process_time() + 0.4\\nwhile time.process_time() < end: pass'"
    script = f"subprocess.run([sys.executable, '-S', '-c', {busy}])\nwrite_message(target, {{'kind': 'result'}}, b'w')"
    message, measured = answer(script)
    assert message == ({"kind": "result"}, b"w")
    assert 0.35 <= measured.cpu_seconds <= measured.seconds + 0.1


@pytest.mark.parametrize(
    ("script", "limits", "words"),
    [
        ("time.sleep(3600)", {"wall_seconds": 0.3}, "ran longer than 0.3 s and was stopped"),
        ("while True: pass", {"cpu_seconds": 0.3}, "used more than 0.3 s of processor time"),
        ("x = bytearray(400 * 2**20)\ntime.sleep(3600)", {"memory": 200 * 2**20}, "used more than 0.195 GiB of memory"),
        (
            "for _ in range(30): subprocess.Popen(['/bin/sleep', '60'])\ntime.sleep(3600)",
            {},
            "started more than 20 processes and threads",
        ),
        ("target.write(b'\\x80\\x04pickle' * 10); target.flush()", {}, "broke the protocol of the sandbox: it wrote"),
        ("write_message(target, {'kind': 'result'}, b'x' * 101)", {}, "has 101 bytes; at most 100"),
        ("os.write(2, b'out of \\x1b[31mluck'); os._exit(7)", {}, r"without a result \(status 7\): out of \\x1b"),
    ],
)
def test_session_stops_a_process_and_says_why(script, limits, words):
    with pytest.raises(SandboxStoppedError, match=words):
        answer(script, dataclasses.replace(LIMITS, **limits))


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("import time; time.sleep(3600)", "did not start within 0 s"),
        ("raise SystemExit('no namespaces here')", r"did not start: its process ended without .* no namespaces here"),
        ("print('hello')", "broke the protocol|did not start"),
    ],
)
def test_sandbox_that_does_not_start_is_not_the_methods_fault(monkeypatch, start, words):
    monkeypatch.setattr("forgetbench.verification.session._START_SECONDS", 0.2 if "sleep" in start else 600.0)
    with (
        Session(ScriptSandbox("", start), LIMITS, "cpu") as session,
        pytest.raises(SandboxUnavailableError, match=words),
    ):
        session.begin()


def test_machine_without_memory_is_not_the_methods_fault(monkeypatch):
    monkeypatch.setattr("forgetbench.verification.session.available_memory", lambda: 0)
    with pytest.raises(SandboxUnavailableError, match="the machine was running out of memory"):
        answer("time.sleep(3600)")


def test_session_that_ends_leaves_no_process(tmp_path):
    session = Session(ScriptSandbox("time.sleep(3600)"), LIMITS, "cpu")
    session.begin()
    pid = session._process.pid
    session.close()
    assert not Path(f"/proc/{pid}").exists()


def test_process_tree_has_children_and_their_usage():
    before = tree_usage(os.getpid())
    with Session(ScriptSandbox("time.sleep(3600)"), LIMITS, "cpu") as session:
        session.begin()
        assert session._process.pid in set(process_tree(os.getpid()))
        assert tree_usage(os.getpid()).processes > before.processes
    wait_until(lambda: session._process.pid not in set(process_tree(os.getpid())), "the end of the process")


def test_waiting_process_has_no_deadline():
    with Session(ScriptSandbox("write_message(target, {'kind': 'result'})"), LIMITS, "cpu") as session:
        assert session._deadline > time.monotonic() + 10**9
        session.begin()
        assert session._deadline <= time.monotonic() + LIMITS.wall_seconds
