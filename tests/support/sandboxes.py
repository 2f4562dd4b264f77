"""Sandboxes for tests: a process that speaks the runner's protocol without torch, and misbehaves on request."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from forgetbench.verification.limits import Limits
from forgetbench.verification.sandbox import PACKAGE

_START = """
import os, subprocess, sys, time
from forgetbench.verification.channel import read_message, write_message
source, target = sys.stdin.buffer, sys.stdout.buffer
write_message(target, {"kind": "ready"})
job = read_message(source, 2**30).header
"""


@dataclass(frozen=True)
class ScriptSandbox:
    """Runs a script after the handshake; it finds the job in ``job``, and the channel in ``source`` and ``target``."""

    script: str
    start: str = _START
    name: str = "script"
    sees_processes: bool = True

    def command(self, limits: Limits, device: str) -> list[str]:  # noqa: ARG002 - the signature of sandboxes
        """The command that runs the script."""
        return [sys.executable, "-P", "-c", self.start + self.script]

    def environment(self) -> dict[str, str]:
        """The environment that the script needs to import the package."""
        return {"PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"}

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the script."""
        process.kill()
