"""A command that starts a Ray cluster of its own and ends, is interrupted, or killed: what is left, printed as JSON.

Run in a process namespace of its own, where all other processes are the command's: ``python -m support.ray_driver
FOLDER HOW``; HOW is ``end`` or the name of a signal.
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


def reap() -> None:
    """Wait for processes that have ended, as the first process of a system does: Ray would take them for alive."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def names(numbers: set[int]) -> list[str]:
    """What processes are."""
    found = []
    for number in sorted(numbers):
        try:
            found.append(Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")[:100])
        except OSError:
            continue
    return found


def main(folder: Path, how: str) -> list[object]:
    """The exit status of the command, and the processes that it left."""
    home, before = folder / "home", processes()
    words = [sys.executable, "-m", "forgetbench", "run", *WORDS, "--engine", "ray", "--device", "cpu"]
    with (folder / "output.txt").open("w") as output:
        command = subprocess.Popen(words, env={**os.environ, "FORGETBENCH_HOME": str(home)}, stderr=output)
    if how != "end":
        while command.poll() is None and not any(home.rglob("weights.safetensors")):
            time.sleep(0.1)
        command.send_signal(getattr(signal, how))
    status = command.wait()
    until = time.monotonic() + SECONDS
    while (left := processes() - before) and time.monotonic() < until:
        reap()
        time.sleep(0.2)
    return [status, names(left)]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # commands do not inherit that it is ignored
    result = main(Path(sys.argv[1]), sys.argv[2])
    Path(sys.argv[1], "result.json").write_text(json.dumps(result))
