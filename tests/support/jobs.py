"""A job for engines, in a module that worker processes can import."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def work(job: str) -> str:
    """A job that sleeps, crashes, prints, or never ends; or NAME:FILE, which looks at a file."""
    name, _, file = job.partition(":")
    if name == "die-once" and not Path(file).exists():
        Path(file).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    while name == "wait-for" and not Path(file).exists():
        time.sleep(0.01)
    if name == "meet":  # ends when two processes are here
        Path(file, str(os.getpid())).touch()
        while len(list(Path(file).iterdir())) < 2:
            time.sleep(0.01)
    if name in ("meet", "started-with"):  # what the process was started with, whatever it has set since
        values = Path("/proc/self/environ").read_text(encoding="utf-8").split("\0")
        return ";".join(sorted(value for value in values if value.startswith(("CUDA_VISIBLE", "OMP_NUM"))))
    if name == "no-space":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file)
    if name == "no-memory":
        raise MemoryError("none left")
    if job == "crash":
        os.abort()
    if job == "sleep":
        time.sleep(1)
    if job == "print":
        print("from Python")  # noqa: T201 - what is tested
        os.write(1, b"from the process")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    while job == "endless":
        pass
    return job
