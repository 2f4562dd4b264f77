"""Checks an engine before anything is trained: that its workers run jobs, share the store and have the same code."""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetbench.errors import describe_error, os_error_message, printable
from forgetbench.object_store import ObjectStore
from forgetbench.runner.config import RunConfig
from forgetbench.runner.data import ExecutionEnv
from forgetbench.runner.engines.base import Failure
from forgetbench.runner.engines.code import code_identity
from forgetbench.runner.engines.devices import hardware
from forgetbench.runner.failures import not_shared
from forgetbench.store import Store

MACHINES_SECONDS = 300.0
"""Longest time to wait for machines."""
TEXT = "hello"
"""What the artifacts of a check contain."""


@dataclass(frozen=True)
class MachineReport:
    """What a machine reported."""

    machine: str
    """Its name."""
    hardware: str
    """Its GPU or processor; "" if it did not answer."""
    versions: Mapping[str, str]
    """Versions of its packages."""
    problem: str
    """What is wrong; "" if nothing."""


@dataclass(frozen=True)
class EngineReport:
    """The outcome of a check."""

    device: str
    """The torch device of jobs."""
    echoed: bool
    """Whether two jobs came back."""
    machines: tuple[MachineReport, ...]
    """One for each machine; one worker of this machine if there is no other."""
    expected: int = 1
    """Number of machines that should take part."""

    @property
    def ok(self) -> bool:
        """Whether everything works."""
        return self.echoed and all(not machine.problem for machine in self.machines)


@dataclass(frozen=True)
class _RoundTrip:
    """A job that reads an artifact of the driver and writes one for it."""

    env: ExecutionEnv
    token: str
    title: str = "engine check"


@dataclass(frozen=True)
class _Answer:
    """What a worker found."""

    host: str
    read: bool
    key: str
    hardware: str
    versions: dict[str, str]


def check_engine(config: RunConfig, *, machines: int = 1) -> EngineReport:
    """Run two jobs that only come back, and one on each machine that reads from the store and writes into it.

    Args:
        config: The engine, the device and the store.
        machines: Number of machines to wait for, for five minutes at most.

    Raises:
        UsageError: The engine or the device is not available.
        OSError: The store cannot be written on this machine.
    """
    token, keys = uuid.uuid4().hex, list[str]()
    try:
        with config.open_engine() as engine:
            until = time.monotonic() + MACHINES_SECONDS
            while engine.machines() < machines and time.monotonic() < until:
                time.sleep(1)
            env = config.env(engine)
            echoed = engine.map(abs, [-1, -2], lambda *_: None) == [1, 2]
            keys = [config.store.key(_artifact(token, ""))]
            config.store.write(_artifact(token, ""), _fill)
            job = _RoundTrip(env, token)
            answers: dict[str, Any] = engine.on_each_worker(round_trip, job)
            if not answers:
                [answer] = engine.map(round_trip, [job], lambda *_: None)
                answers = {platform.node(): answer}
        keys += [answer.key for answer in answers.values() if isinstance(answer, _Answer)]
        reports = tuple(_report(name, answer, config.store) for name, answer in answers.items())
    finally:
        for key in keys:
            if (folder := config.store.read(key)) is not None:
                config.store.remove(folder)
    return EngineReport(env.device, echoed, reports, machines)


def round_trip(job: _RoundTrip) -> _Answer:
    """In a worker: read the driver's artifact, write another one, and say what this machine is."""
    store = job.env.open_store()
    read = store.read(store.key(_artifact(job.token, "")), expected=True) is not None
    own = _artifact(job.token, uuid.uuid4().hex)
    store.write(own, _fill)
    if isinstance(store, ObjectStore):
        for key in (store.key(own), store.key(_artifact(job.token, ""))):
            store.drop_cached(key)
    return _Answer(platform.node(), read, store.key(own), hardware(job.env.device), code_identity())


def _report(name: str, answer: _Answer | Failure, store: Store) -> MachineReport:
    if isinstance(answer, Failure):
        error = answer.error
        problem = os_error_message(error) if isinstance(error, OSError) else str(error) or describe_error(error)
        return MachineReport(name, "", {}, printable(problem))
    problem = ""
    if not answer.read or store.read(answer.key, expected=True) is None:
        problem = not_shared(store)
    return MachineReport(name, answer.hardware, answer.versions, problem)


def _artifact(token: str, machine: str) -> dict[str, str]:
    return {"role": "engine-check", "token": token, "machine": machine}


def _fill(folder: Path) -> None:
    (folder / "text").write_text(TEXT, encoding="utf-8")
