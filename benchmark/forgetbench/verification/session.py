"""A method's process as the runner sees it: messages, a watchdog over its limits, and what it used."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Self

from forgetbench.errors import ForgetBenchError, printable
from forgetbench.verification.channel import ChannelError, Message, read_message, write_message
from forgetbench.verification.limits import GIB, ControlGroup, Limits, Usage, available_memory, peak_memory, tree_usage
from forgetbench.verification.sandbox import Sandbox, start

_PERIOD = 0.05
"""Seconds between two looks of the watchdog."""
_RESERVE = GIB // 4
"""Memory that stays free for the rest of the machine: below it, the sandbox is killed."""
_STDERR = 4000
"""Bytes of standard error that are kept."""
_START_SECONDS = 900.0
"""Longest start: importing torch on a busy machine."""


_NO_MEMORY = "It was stopped because the machine was running out of memory."


class SandboxStoppedError(ForgetBenchError):
    """The method's process was stopped, died or broke the protocol; the message says why."""


class SandboxUnavailableError(ForgetBenchError):
    """The machine could not run the method, which is not the method's fault; the message says why."""


@dataclass(frozen=True)
class Measured:
    """What a method's process used between its start signal and its result, measured from outside."""

    seconds: float
    """Wall time."""
    cpu_seconds: float | None
    """Processor time of all its processes; None where they cannot be seen."""
    memory: int | None
    """Peak memory above that of the started interpreter, in bytes; None where it cannot be seen."""


class Session:
    """One process of a sandbox; a context manager that leaves nothing running.

    Args:
        sandbox: How it is started.
        limits: Its limits.
        device: The torch device that it may use.
    """

    def __init__(self, sandbox: Sandbox, limits: Limits, device: str) -> None:
        self._sandbox, self._limits = sandbox, limits
        self._reason = ""
        self._finished = threading.Event()
        self._tail: deque[bytes] = deque()
        self._group: ControlGroup | None = None
        self._begin: tuple[float, Usage] | None = None
        self._most_memory = 0
        self._deadline = math.inf  # a process that waits for its job has no deadline
        self._process = start(sandbox, limits, device)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._drain, self._watch)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill whatever still runs, and release everything."""
        self._finished.set()
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                _stream(stream).close()
        for thread in self._threads:
            thread.join()
        if self._group is not None:
            self._group.close()

    def begin(self) -> None:
        """Wait until the interpreter is ready, confine it further, and start measuring.

        Raises:
            SandboxUnavailableError: It did not start; no submitted code runs before it is ready.
        """
        self._deadline = time.monotonic() + _START_SECONDS
        header = self.receive(0).header
        if header.get("kind") != "ready":
            raise SandboxUnavailableError(f"The sandbox did not start: it said {printable(str(header))[:200]!r}.")
        if self._sandbox.sees_processes:
            self._group = ControlGroup.create(self._limits)
            if self._group is not None:
                self._group.add(self._process.pid)
        usage = tree_usage(self._process.pid)
        self._most_memory = usage.memory
        self._deadline = time.monotonic() + self._limits.wall_seconds
        self._begin = (time.monotonic(), usage)

    def send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Send a message.

        Raises:
            SandboxStoppedError: The process is gone.
            SandboxUnavailableError: It is gone for a reason of this machine.
        """
        try:
            write_message(_stream(self._process.stdin), header, payload)
        except (OSError, ValueError) as error:
            raise self._stopped() from error

    def receive(self, max_payload: int) -> Message:
        """The next message.

        Args:
            max_payload: Largest payload in bytes.

        Raises:
            SandboxStoppedError: The process was stopped, has ended, or wrote something else.
            SandboxUnavailableError: It has ended for a reason of this machine.
        """
        try:
            message = read_message(_stream(self._process.stdout), max_payload)
        except ChannelError as error:
            raise self._error(self._reason or f"The method broke the protocol of the sandbox: {error}.") from error
        except (OSError, ValueError) as error:
            raise self._stopped() from error
        if message is None:
            raise self._stopped()
        return message

    def measure(self) -> Measured:
        """What was used since `begin`."""
        if self._begin is None:
            raise RuntimeError("begin() was not called")
        started, before = self._begin
        seconds = time.monotonic() - started
        if not self._sandbox.sees_processes:
            return Measured(seconds, None, None)
        usage = tree_usage(self._process.pid)
        peak = max(self._most_memory, usage.memory, peak_memory(self._process.pid))
        return Measured(seconds, max(0.0, usage.cpu_seconds - before.cpu_seconds), max(0, peak - before.memory))

    def _error(self, reason: str) -> ForgetBenchError:
        """What to raise: before the sandbox is ready, and when memory ran out, the method is not to blame."""
        by_machine = self._begin is None or reason == _NO_MEMORY
        return (SandboxUnavailableError if by_machine else SandboxStoppedError)(reason)

    def _stopped(self) -> ForgetBenchError:
        """Why the process ended."""
        with contextlib.suppress(Exception):
            self._process.wait(5)
        self._threads[0].join(5)  # its last words
        if not self._reason and self._group is not None:
            if self._group.killed_for_memory:
                self._reason = self._too_much_memory()
            elif self._group.refused_processes:
                self._reason = self._too_many_processes()
        if self._reason:
            return self._error(self._reason)
        lines = b"".join(self._tail).decode(errors="replace").strip().splitlines()
        last = f": {printable(lines[-1])[:300]}" if lines else ""
        whose = "The sandbox did not start: its" if self._begin is None else "The method's"
        return self._error(f"{whose} process ended without a result (status {self._process.poll()}){last}.")

    def _too_much_memory(self) -> str:
        return f"It used more than {self._limits.memory / GIB:.3g} GiB of memory and was stopped."

    def _too_many_processes(self) -> str:
        return f"It started more than {self._limits.processes} processes and threads and was stopped."

    def _watch(self) -> None:
        """Stop the process when it exceeds a limit."""
        while not self._finished.wait(_PERIOD):
            if self._process.poll() is not None:
                self._kill()  # what it left running would keep the pipes open
                return
            if reason := self._exceeded():
                self._reason = reason
                self._kill()
                return

    def _kill(self) -> None:
        """Kill everything that was started."""
        self._sandbox.kill(self._process)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _exceeded(self) -> str:
        """Which limit is exceeded, as a sentence; "" if none is."""
        limits, begin = self._limits, self._begin
        if begin is None:
            late = time.monotonic() > self._deadline
            return f"The sandbox did not start within {_START_SECONDS:.0f} s." if late else ""
        usage = begin[1]
        if self._sandbox.sees_processes:
            usage = tree_usage(self._process.pid, limits.processes)
            self._most_memory = max(self._most_memory, usage.memory)
        cpu_seconds = usage.cpu_seconds - begin[1].cpu_seconds
        too_many = usage.processes > limits.processes or (self._group is not None and self._group.refused_processes)
        exceeded = {
            f"It ran longer than {limits.wall_seconds:.3g} s and was stopped.": time.monotonic() > self._deadline,
            f"It used more than {limits.cpu_seconds:.3g} s of processor time and was stopped.": (
                cpu_seconds > limits.cpu_seconds
            ),
            self._too_many_processes(): too_many,
            self._too_much_memory(): usage.memory > limits.memory,
            _NO_MEMORY: available_memory() < _RESERVE,
        }
        return next((reason for reason, is_exceeded in exceeded.items() if is_exceeded), "")

    def _drain(self) -> None:
        """Keep the end of standard error; a full pipe would stop the process."""
        size = 0
        stream = _stream(self._process.stderr)
        with stream, contextlib.suppress(OSError, ValueError):
            while part := stream.read1(65536):  # type: ignore[attr-defined]
                part = part[-_STDERR:]
                self._tail.append(part)
                size += len(part)
                while size - len(self._tail[0]) >= _STDERR:
                    size -= len(self._tail.popleft())


def _stream(stream: Any) -> BinaryIO:
    """A pipe of the process, which always has all three."""
    pipe: BinaryIO = stream
    return pipe
