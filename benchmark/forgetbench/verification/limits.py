"""Limits of a method's process, and how they are measured and enforced from outside.

A control group is used where this process may make one. Everywhere, a watchdog reads the processes' figures from
``/proc`` and kills them all when a limit is exceeded; the kernel's own limits (`setrlimit`) are set by the method's
process before it runs any submitted code.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a method's process may use."""

    wall_seconds: float = 1800.0
    """Wall time of one call: unlearning from one original, or training one."""
    cpu_seconds: float = 3600.0
    """Processor time of all its processes together."""
    memory: int = 8 * GIB
    """Memory of all its processes together, in bytes."""
    processes: int = 128
    """Processes and threads at one time."""
    disk: int = GIB
    """Size of its temporary folder, in bytes, which is memory too."""
    file_bytes: int = GIB
    """Largest file, in bytes."""
    open_files: int = 256
    """Open files of a process."""

    @property
    def kernel_processes(self) -> int:
        """Where the kernel refuses more processes: a little later, so that the watchdog sees which limit it was."""
        return self.processes + 16


class Usage(NamedTuple):
    """What a tree of processes uses at one moment."""

    cpu_seconds: float
    """Processor time so far, including that of processes that have ended."""
    memory: int
    """Memory in bytes; pages that processes share are divided among them."""
    processes: int
    """Number of processes and threads."""


_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_SMALL = 2**25
"""Resident memory up to which a process is not looked at more closely."""
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def tree_usage(pid: int, most: int = 4096) -> Usage:
    """What a process and its descendants use.

    Args:
        pid: The root of the tree.
        most: Number of processes after which counting ends.
    """
    cpu, threads, resident = 0.0, 0, dict[int, int]()
    for number, process in enumerate(process_tree(pid)):
        fields = _stat(process)
        if fields:
            cpu += sum(map(int, fields[11:15])) / _TICKS  # utime, stime, and those of children that were waited for
            resident[process] = max(0, int(fields[21])) * _PAGE
            threads += int(fields[17])
        if number > most or threads > most:
            break
    large = [process for process, size in resident.items() if size > _SMALL]
    if len(large) > 1:  # forked processes share most pages, and how much takes a while to read
        resident |= {process: _shared_memory(process, resident[process]) for process in large}
    return Usage(cpu, sum(resident.values()), threads)


def process_tree(pid: int) -> Iterator[int]:
    """A process and its descendants, parents first."""
    todo = [pid]
    while todo:
        process = todo.pop(0)
        yield process
        for task in _glob(Path(f"/proc/{process}/task")):
            with contextlib.suppress(OSError, ValueError):
                todo += map(int, (task / "children").read_text().split())


def _shared_memory(process: int, resident: int) -> int:
    """Memory of a process with shared pages divided among those who share them."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return resident


def peak_memory(pid: int) -> int:
    """Largest resident memory that one process of a tree has had, in bytes."""
    peaks = [0]
    for process in process_tree(pid):
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = Path(f"/proc/{process}/status").read_text(errors="replace").splitlines()
            peaks += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return max(peaks)


def available_memory() -> int:
    """Memory that the machine can give, in bytes; a very large number where that is unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 2**62


def _stat(process: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` after the name; empty if the process is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _glob(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


class ControlGroup:
    """A control group with limits on memory and on the number of processes."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)

    @classmethod
    def create(cls, limits: Limits) -> Self | None:
        """A new group; None where this process may not make one or its limits cannot be set."""
        name = f"forgetbench-{os.getpid()}-{secrets.token_hex(4)}"
        for settings in _candidates(limits):
            made: list[Path] = []
            try:
                for parent, values in settings.items():
                    folder = parent / name
                    folder.mkdir()
                    made.append(folder)
                    for file, value in values.items():
                        (folder / file).write_text(str(value))
            except OSError:
                _remove(made)
            else:
                return cls(made)
        return None

    def add(self, pid: int) -> None:
        """Move a tree of processes into the group."""
        for process in list(process_tree(pid)):
            for folder in self._folders:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    (folder / "cgroup.procs").write_text(str(process))

    @property
    def killed_for_memory(self) -> bool:
        """Whether the kernel killed a process of the group because it was at its limit of memory."""
        return self._counted("oom_kill", "memory.events", "memory.oom_control")

    @property
    def refused_processes(self) -> bool:
        """Whether the kernel refused to start a process because the group was at its limit."""
        return self._counted("max", "pids.events")

    def _counted(self, event: str, *files: str) -> bool:
        """Whether an event is counted in one of the group's files."""
        for path in (folder / file for folder in self._folders for file in files):
            with contextlib.suppress(OSError, ValueError):
                lines = dict(line.split() for line in path.read_text().splitlines())
                if int(lines.get(event, 0)):
                    return True
        return False

    def close(self) -> None:
        """Remove the group, whose processes have been killed."""
        _remove(self._folders)


def _candidates(limits: Limits) -> Iterator[dict[Path, dict[str, int]]]:
    """Folders in which a group could be made, with the limits to set in each."""
    root = Path("/sys/fs/cgroup")
    unified = {"memory.max": limits.memory + limits.disk, "pids.max": limits.kernel_processes}
    own = _own_groups()
    if (root / "cgroup.controllers").is_file():
        place = root / own.get("", "").lstrip("/")
        yield from ({parent: unified} for parent in dict.fromkeys((place, place.parent, root)) if parent.is_dir())
        return
    places = {
        root / name / own.get(name, "").lstrip("/"): values
        for name, values in (
            ("memory", {"memory.limit_in_bytes": limits.memory + limits.disk}),
            ("pids", {"pids.max": limits.kernel_processes}),
        )
    }
    yield places


def _own_groups() -> dict[str, str]:
    """Controller -> the group of this process; "" is the unified hierarchy."""
    groups: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, names, place = line.split(":", 2)
            groups |= dict.fromkeys(names.split(","), place)
    return groups


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        for _ in range(50):  # the kernel needs a moment after the last process was killed
            try:
                folder.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)
            else:
                break
