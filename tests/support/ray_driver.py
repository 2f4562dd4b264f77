"""Commands that start a Ray cluster of their own and end, are interrupted, or killed: what is left, printed as JSON.

Run in a process namespace of its own, where all other processes are the commands': ``python -m support.ray_driver
FOLDER TASK``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.engine_board import WORDS

SECONDS = 600
"""Limit for processes to notice that their parent is gone; workers at low priority may take minutes to start."""


def processes() -> set[int]:
    """All processes of the namespace that have not ended."""
    found = set[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.add(int(folder.name))
    return found


def names(numbers: set[int]) -> list[str]:
    """What processes are."""
    found = []
    for number in sorted(numbers):
        try:
            found.append(Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")[:100])
        except OSError:
            continue
    return found


def main(folder: Path, task: str) -> dict[str, list[object]]:
    """How the command ended -> its exit status, and the processes that it left."""
    found = dict[str, list[object]]()
    for how in ("end", "SIGINT", "SIGKILL"):
        home, before = folder / how, processes()
        board = WORDS if how != "end" else [task, "--method", "finetune:epochs=1"]
        words = [sys.executable, "-m", "forgetbench", "run", *board, "--engine", "ray", "--device", "cpu"]
        with (folder / f"{how}.txt").open("w") as output:
            command = subprocess.Popen(words, env={**os.environ, "FORGETBENCH_HOME": str(home)}, stderr=output)
        while how != "end" and command.poll() is None and not any(home.rglob("weights.safetensors")):
            time.sleep(0.1)
        if how != "end":
            command.send_signal(getattr(signal, how))
        status = command.wait()
        until = time.monotonic() + SECONDS
        while (left := processes() - before) and time.monotonic() < until:
            time.sleep(0.2)
        found[how] = [status, names(left)]
        for number in left:
            os.kill(number, signal.SIGKILL)
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # commands do not inherit that it is ignored
    result = main(Path(sys.argv[1]), sys.argv[2])
    Path(sys.argv[1], "result.json").write_text(json.dumps(result))
