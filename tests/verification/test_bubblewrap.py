"""Hostile methods in the real sandbox: stopped with a reason, and the runner goes on."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from support.tasks import write_task
from support.training import same_weights

from forgetbench.methods._card import TaskFacts
from forgetbench.methods._foreign_code import MethodCodeError
from forgetbench.runner.config import RunConfig
from forgetbench.runner.context import load_context
from forgetbench.runner.jobs import TrainJob
from forgetbench.runner.train import task_facts, train_model
from forgetbench.runner.unlearn import StreamStep
from forgetbench.tasks.task import read_task
from forgetbench.verification.calls import MethodCode, MethodError, SandboxCaller
from forgetbench.verification.limits import GIB, Limits
from forgetbench.verification.sandbox import find_sandbox

METHOD = """
import copy, os, socket, subprocess, sys, time
from dataclasses import dataclass
import torch
from forgetbench.methods import Method

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    "A method of a test."

    def unlearn(self, model, request):
        BODY
        return copy.deepcopy(model)
"""
PROBES = """
import json, importlib.util, forgetbench
from pathlib import Path
package = Path(forgetbench.__file__).parent
sklearn = Path(importlib.util.find_spec("sklearn").origin).parent
found = {{}}
def probe(name, work):
    try:
        found[name] = work()
    except Exception as error:
        found[name] = type(error).__name__
    if not isinstance(found[name], (str, list)):
        found[name] = str(found[name])
probe("connect", lambda: socket.create_connection(("127.0.0.1", PORT), timeout=5))
probe("resolve", lambda: socket.gethostbyname("example.org"))
probe("salt", lambda: Path("{home}/salt").read_text())
probe("server", lambda: os.listdir("{home}"))
probe("home", lambda: os.listdir("/home"))
probe("passwd", lambda: Path("/etc/passwd").read_text())
probe("tests", lambda: os.listdir("{tests}"))
probe("digits", lambda: (sklearn / "datasets/data/digits.csv.gz").read_bytes())
probe("leaderboard", lambda: os.listdir(package / "leaderboard"))
probe("faces", lambda: (package / "datasets/cmu_faces.npz").read_bytes())
probe("write /usr", lambda: Path("/usr/lib/mine").write_text("x"))
probe("write /", lambda: Path("/mine").write_text("x"))
probe("write /dev", lambda: Path("/dev/mine").write_text("x"))
probe("write package", lambda: (package / "mine").write_text("x"))
probe("mount", lambda: os.unshare(os.CLONE_NEWUSER) if hasattr(os, "unshare") else open("/proc/sys/kernel/x", "w"))
probe("environment", lambda: sorted(os.environ))
probe("processes", lambda: [name for name in os.listdir("/proc") if name.isdigit()])
raise RuntimeError(json.dumps(found))
"""
LIMITS = Limits(wall_seconds=10, cpu_seconds=30, memory=2 * GIB, disk=GIB // 4, processes=64)


@pytest.fixture(scope="module")
def caller(bubblewrap, tmp_path_factory):
    """Calls methods in the sandbox, each on the same original; the home is inside a folder that is hidden."""
    home = tmp_path_factory.mktemp("server")
    (home / "salt").write_text("secret")
    config = RunConfig(device="cpu", home=home)
    task = read_task(str(write_task(tmp_path_factory.mktemp("task"), "random", "fraction = 0.2", epochs=2)))
    model = train_model(TrainJob(task=task, env=config.env(), role="original", seed=0))
    context = load_context(task, config.env())
    folder = context.store.read(model.model)
    step = StreamStep(draw=0, seed=0, step=0, last=True, original=folder, source=folder, keep=False)
    with SandboxCaller(find_sandbox(hidden=[home]), LIMITS, MethodCode("none", {})) as caller:
        caller.test = (context, step, home)
        yield caller


def unlearn(caller, body):
    """The result of a method with this body."""
    context, step, home = caller.test
    lines = body.format(home=home, tests=Path(__file__).parent).strip().replace("\n", "\n        ")
    caller.code = MethodCode("mine", {}, METHOD.replace("BODY", lines))
    return caller.unlearn(context, step)


def outcome(caller, body):
    """Why a method with this body failed."""
    with pytest.raises(MethodCodeError) as caught:
        unlearn(caller, body)
    return str(caught.value)


def test_method_gets_what_it_reads_and_it_is_measured(caller):
    context, step, _ = caller.test
    result = unlearn(caller, "model = copy.deepcopy(model); model.head.bias.data += len(request.retain.labels)")
    original = context.load_model(step.original)
    original.head.bias.data += len(context.data.split(0).retain)
    assert same_weights(result.network, original)
    assert caller.last.read == ("model", "retain")
    assert caller.last.measured.seconds > 0
    assert caller.describe(task_facts(context))["card"]["name"] == "mine"


def test_nothing_outside_the_sandbox_can_be_reached(caller):
    with socket.create_server(("127.0.0.1", 0)) as server:
        reason = outcome(caller, PROBES.replace("PORT", str(server.getsockname()[1])))
    found = json.loads(reason.partition("RuntimeError: ")[2])
    assert found.pop("connect") in {"ConnectionRefusedError", "OSError"}
    assert found.pop("resolve") == "gaierror"
    assert set(found.pop("environment")) & {"FORGETBENCH_DATA", "OLDPWD", "USER"} == set()
    assert len(found.pop("processes")) < 5
    unreachable = ("salt", "home", "tests", "digits", "passwd", "server", "leaderboard", "faces")
    assert [
        found.pop(name) for name in unreachable if found[name] not in ("FileNotFoundError", "PermissionError", [])
    ] == []
    assert {value for name, value in found.items() if name not in unreachable} <= {
        "OSError",
        "PermissionError",
        "FileNotFoundError",
    }, found
    assert not Path("/usr/lib/mine").exists()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("while True:\n    try: os.fork()\n    except OSError: pass", ("more than 64 processes", "ran longer")),
        ("x = torch.ones(20 * 2**30, dtype=torch.uint8)", ("allocate", "more than 2 GiB of memory")),
        (
            "parts = []\nfor _ in range(99):\n    parts.append(os.memfd_create('x'))\n"
            "    os.write(parts[-1], bytes(200 * 2**20))",
            ("memory", "ended without a result", "ran longer"),
        ),
        ("open('/tmp/x', 'wb').write(bytes(300 * 2**20))", ("No space left on device",)),
        ("time.sleep(3600)", ("ran longer than 10 s and was stopped",)),
        ("import pickle\nreturn pickle.dumps(model)", ("which is not a torch.nn.Module",)),
        (
            "import pickle\nfor number in range(3, 30):\n    try: os.write(number, pickle.dumps(1) * 99)\n"
            "    except OSError: pass\ntime.sleep(3600)",
            ("broke the protocol of the sandbox",),
        ),
        ("os._exit(0)", ("ended without a result",)),
    ],
)
def test_hostile_method_is_stopped_with_a_reason(caller, body, words):
    reason = outcome(caller, body)
    assert any(word in reason for word in words), reason


def test_file_that_does_not_import_says_so(caller):
    context, _, _ = caller.test
    caller.code = MethodCode("", {}, "import no_such_package\n")
    with pytest.raises(MethodError, match="No module named 'no_such_package'"):
        caller.describe(task_facts(context))


def test_facts_are_what_methods_learn_of_a_task(caller):
    context, _, _ = caller.test
    assert task_facts(context) == TaskFacts(network="mlp", scenario="random", attributes=False, outputs=10)
