"""A small board that any engine can run by the command line, and the bits of all that it leaves in the store."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TASK, SEEDS, METHOD = str(Path(__file__).with_suffix(".toml")), 2, "ssd"
METHOD_FILE = f"{Path(__file__).with_name('engine_method.py')}:Mine"
WORDS = [TASK, "--seeds", str(SEEDS), "--method", METHOD, "--method-file", METHOD_FILE]
"""The words of `forgetbench run` after its name: ten models, in 20 artifacts."""
MEASURED = {"seconds", "exclusive", "peak_memory"}
"""Facts about an artifact that depend on how it was made; `hardware` need not: all engines run on this machine."""


def run_board(home: Path, *options: str) -> None:
    """Run the board with a store of its own."""
    words = [sys.executable, "-m", "forgetbench", "run", *WORDS, "--device", "cpu", *options]
    environment = {**os.environ, "FORGETBENCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def bits(home: Path) -> dict[str, object]:
    """Name of each file of each artifact -> its bytes, or for facts in JSON what does not depend on how it was made."""
    store, found = home / "store", dict[str, object]()
    for path in store.glob("*/*/*"):
        name = str(path.relative_to(store))
        if path.name == "meta.json":
            found[name] = {key: value for key, value in json.loads(path.read_bytes()).items() if key not in MEASURED}
        else:  # artifact.json has the hash of meta.json
            found[name] = json.loads(path.read_bytes())["key"] if path.name == "artifact.json" else path.read_bytes()
    return found


def assert_equal_bits(home: Path, factory: pytest.TempPathFactory) -> None:
    """Compare a store with that of the local engine, which the first test that needs it runs for all processes."""
    shared = factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with (shared / "local-board.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "local-board" / "scores").exists():
            run_board(shared / "local-board", "--engine", "local")
    expected = bits(shared / "local-board")
    assert len({Path(name).parent for name in expected}) == 20
    found = bits(home)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
