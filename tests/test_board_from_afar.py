"""Three people on three machines, by the command line: an operator, a submitter, and a verifier who runs it again."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from forgetbench.cli import main
from forgetbench.evidence.arrays import read_arrays, write_arrays
from forgetbench.evidence.run import MANIFEST, describe
from forgetbench.tasks import task as tasks

TASK = "test/mlp/random"
SMALL = """
title = "Seconds"
seeds = 4
image_set = { name = "digits", options = { train = 200, validation = 50 } }
network = { name = "mlp", options = { hidden = [16] } }
recipe = { epochs = 6, lr = 0.1 }
scenario = { name = "random", options = { fraction = 0.2 } }
"""
METHOD = Path(__file__).parents[1] / "examples" / "my_method.py"


class Person:
    """Somebody with a folder and a token of their own."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.token = home, ""
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def call(self, *words: object, status: int = 0) -> str:
        """What a command says."""
        self._monkeypatch.setenv("FORGETBENCH_HOME", str(self.home))
        self._monkeypatch.setenv("FORGETBENCH_TOKEN", self.token)
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        said = self._capsys.readouterr()
        assert int(left.value.code or 0) == status, said.out + said.err
        return said.out + said.err


@pytest.fixture
def people(tmp_path, monkeypatch, capsys):
    """The operator, with a board and a server; a submitter; a verifier."""
    found = {name: Person(tmp_path / name, monkeypatch, capsys) for name in ("operator", "ada", "grace")}
    (tmp_path / "catalog/test/mlp").mkdir(parents=True)
    (tmp_path / "catalog" / f"{TASK}.toml").write_text(SMALL)
    monkeypatch.setattr(tasks, "CATALOG", tmp_path / "catalog")
    found["operator"].call("pack", "build", TASK, "--install")
    for name, scope in (("ada", "submit"), ("grace", "verify")):
        found[name].token = found["operator"].call("admin", "token", "create", name, "--scope", scope).split()[0]
    return found


@pytest.fixture
def address(people):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [sys.executable, "-m", "forgetbench", "serve", "--port", str(port), "--no-runner"]
    environment = {**os.environ, "FORGETBENCH_HOME": str(people["operator"].home)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    assert process.wait(60) == 0


def get(url: str) -> httpx2.Response:
    """An answer of the server, which may take its time on a busy machine."""
    return httpx2.get(url, timeout=None)


def entry_of(address: str, said: str) -> str:
    [identity] = re.findall(rf"{address}/entries/(\w+)", said)
    return identity


def forge(run: Path, target: Path) -> Path:
    """The same recipe with other evidence: every tenth answer is turned round."""
    shutil.copytree(run, target)
    manifest: dict[str, Any] = json.loads((target / MANIFEST).read_text())
    for model in manifest["models"]:
        arrays = read_arrays(target / model["file"])
        generator = np.random.default_rng(model["seed"])
        for name in ("test", "retain"):
            rows = generator.permutation(len(arrays[name]))[: len(arrays[name]) // 10]
            arrays[name][rows] = arrays[name][rows][:, ::-1]
        write_arrays(target / model["file"], arrays)
        model["arrays"] = {name: record.model_dump(mode="json") for name, record in describe(arrays).items()}
    manifest["method"]["label"] = "forged"
    (target / MANIFEST).write_text(json.dumps(manifest))
    return target


@pytest.mark.slow
def test_method_file_submitted_verified_forgery_found(people, address, tmp_path):
    ada, grace = people["ada"], people["grace"]
    assert "Nothing" in ada.call("submit", f"{METHOD}:Nothing", "--task", TASK, "--server", address, status=2)
    assert "--task" in ada.call("submit", METHOD, "--server", address, status=2)

    said = ada.call("pack", "pull", TASK, "--server", address, "--to", tmp_path / "pack")
    assert f"4 originals of {TASK} are in the store" in said
    assert not list((tmp_path / "pack").glob("labels*"))
    weights = {path.read_bytes() for path in (tmp_path / "pack" / "models").iterdir()}
    kept = {path.read_bytes() for path in (ada.home / "store").rglob("*.safetensors")}
    assert weights == kept
    said = ada.call("submit", f"{METHOD}:NoisyFineTune:epochs=1", "--task", TASK, "--server", address, "--yes")
    honest = entry_of(address, said)
    row = get(f"{address}/api/v1/entries/{honest}").json()
    assert (row["row"]["label"], row["row"]["tier"]) == ("noisy-fine-tune:epochs=1", "claimed")
    assert "class NoisyFineTune" in row["manifest"]["method"]["source"]
    run = next((ada.home / "boards").rglob(MANIFEST)).parent
    forged = entry_of(address, ada.call("submit", forge(run, tmp_path / "forged"), "--server", address, "--yes"))

    assert "class NoisyFineTune" in grace.call("verify", honest, "--server", address, status=2)
    said = grace.call("verify", honest, "--server", address, "--allow-source")
    assert "the same bits" in said
    said = grace.call("verify", forged, "--server", address, "--allow-source", status=1)
    assert "FAIL" in next(line for line in said.splitlines() if line.startswith("gap.retain"))
    assert get(f"{address}/api/v1/entries/{honest}").json()["row"]["reproductions"] == 0  # nothing was posted
    said = grace.call("verify", honest, "--server", address, "--allow-source", "--post")
    assert f"{honest} of {address}: reproduced" in said
    page = get(f"{address}/entries/{honest}").text
    assert "reproduced" in page
    assert "Second record minus first" in page
    assert get(f"{address}/api/v1/entries/{honest}").json()["row"]["reproductions"] == 1  # with other seeds

    said = grace.call("verify", forged, "--server", address, "--allow-source", "--post", status=1)
    assert f"{forged} of {address}: not reproduced" in said
    row = get(f"{address}/api/v1/entries/{forged}").json()
    assert (row["row"]["state"], row["row"]["tier"]) == ("flagged", "claimed")
    assert "a second run differs in" in row["history"][-1]["reason"]
    assert "under review: a second run differs in" in get(f"{address}/boards/{TASK}").text
