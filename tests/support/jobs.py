"""A job for engines, in a module that worker processes can import."""

from __future__ import annotations

import os
import subprocess
import sys
import time


def work(job: str) -> str:
    """A job that sleeps, crashes, prints, or never ends."""
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
