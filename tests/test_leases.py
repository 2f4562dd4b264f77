"""Leases: two runs on one store never compute the same artifact at the same time, and the dead hold nothing."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support import skip

from forgetbench import leases as module
from forgetbench.leases import EXPIRED_SECONDS, BucketLeases, BusyError, FolderLeases, Leases, LeaseStore, beating
from forgetbench.object_store import Bucket
from forgetbench.runner.artifacts import make_once
from forgetbench.runner.engines.base import Schedule, attempt
from forgetbench.store import Store

KEY = Store.key({"seed": 1})


@pytest.fixture(params=["folder", "bucket"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> LeaseStore:
    if request.param == "folder":
        return FolderLeases(tmp_path / "leases")
    if find_spec("obstore") is None:
        skip("obstore is not installed")
    from obstore.store import MemoryStore

    return BucketLeases(Bucket("memory", MemoryStore()))


class Machine:
    """A process of another machine, with a clock of its own that only moves when a test says so."""

    def __init__(self, kept: LeaseStore, monkeypatch: pytest.MonkeyPatch, name: str, now: float) -> None:
        self.now, self.beat = now, lambda: None
        self._owner, self._patch = f"{name} 7", monkeypatch
        self._leases = Leases(kept, clock=lambda: self.now, beats=self._beats)

    @contextmanager
    def _beats(self, beat: Callable[[], None]) -> Iterator[None]:
        self.beat = beat
        yield

    def hold(self) -> Any:
        self._patch.setattr(module, "_owner", lambda: self._owner)
        return self._leases.hold(KEY)

    def may(self) -> bool:
        """Whether this process gets the lease now; it is let go of at once."""
        with self.hold() as mine:
            return bool(mine)


@pytest.fixture
def machines(kept: LeaseStore, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine]:
    """Two machines whose clocks differ by an hour."""
    return Machine(kept, monkeypatch, "one", 0.0), Machine(kept, monkeypatch, "two", 3600.0)


def test_lease_is_held_by_one_and_then_free(machines: tuple[Machine, Machine], kept: LeaseStore) -> None:
    one, two = machines
    with one.hold() as mine:
        assert mine
        assert not two.may()
    assert two.may()
    assert one.may()
    assert kept.claims(KEY) == {}


def test_lease_without_heartbeat_expires(machines: tuple[Machine, Machine], kept: LeaseStore) -> None:
    one, two = machines
    with one.hold():
        assert not two.may()  # seen for the first time
        two.now += EXPIRED_SECONDS - 1
        assert not two.may()
        one.beat()
        two.now += 2
        assert not two.may()  # it has changed
        two.now += EXPIRED_SECONDS
        with two.hold() as mine:
            assert mine
            assert not one.may()
            assert [claim.owner for claim in kept.claims(KEY).values()] == ["two 7"]
    assert kept.claims(KEY) == {}


def test_lease_of_ended_process_here_is_free(kept: LeaseStore, machines: tuple[Machine, Machine]) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert kept.create(f"{KEY}.0", f"{socket.gethostname()} {child}")
    assert machines[0].may()  # it has ended, although its parent has not waited for it yet
    os.waitpid(child, 0)
    assert kept.create(f"{KEY}.0", f"{socket.gethostname()} {child}")
    assert machines[0].may()
    assert kept.create(f"{KEY}.0", f"{socket.gethostname()} {os.getpid()}")
    assert not machines[0].may()


def test_lease_of_equal_number_goes_to_one(kept: LeaseStore) -> None:
    assert [kept.create(f"{KEY}.0", "one 7"), kept.create(f"{KEY}.0", "two 7")] == [True, False]
    assert kept.claims(KEY)[f"{KEY}.0"].owner == "one 7"


def test_beating_goes_on_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.001)
    beats, enough = list[int](), threading.Event()

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            enough.set()
        raise OSError("the filesystem failed")

    with beating(beat):
        assert enough.wait(60)
    count = len(beats)
    assert not any(thread.name == "lease" for thread in threading.enumerate())
    assert len(beats) == count


def test_two_drivers_compute_each_artifact_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.0)
    keys = [{"seed": seed} for seed in range(10)]
    made: dict[str, list[int]] = {"one": [], "two": []}
    both = threading.Barrier(2)

    def drive(name: str) -> None:
        store, schedule = Store(tmp_path), Schedule(range(10))

        def job(number: int) -> bool:
            def write(folder: Path) -> None:
                if not made[name]:
                    made[name].append(number)
                    both.wait(60)  # both compute at the same time, and so different ones
                else:
                    made[name].append(number)
                (folder / "a").write_text(str(number))

            return make_once(store, keys[number], write)[1]

        while (number := schedule.take()) is not None:
            schedule.settle(number, attempt(job, number), "here", alone=True)
        assert len(schedule.results()) == 10

    threads = [threading.Thread(target=drive, args=(name,)) for name in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([*made["one"], *made["two"]]) == list(range(10))
    assert min(map(len, made.values())) >= 1
    assert [path for path in (tmp_path / "leases").rglob("*") if path.is_file()] == []


def test_make_once_waits_for_other_outside_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, waits = Store(tmp_path), list[float]()
    with Store(tmp_path).lease(KEY) as mine:
        assert mine

        def finish(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 2:
                store.write({"seed": 1}, lambda folder: (folder / "a").write_text("other") and None)

        monkeypatch.setattr(module.time, "sleep", finish)
        folder, made = make_once(store, {"seed": 1}, lambda _: pytest.fail("computed twice"))
    assert ((folder / "a").read_text(), made) == ("other", False)
    assert waits == [module.BUSY_SECONDS] * 2
    waits.clear()
    with Store(tmp_path).lease(Store.key({"seed": 2})):
        kind, error = attempt(lambda key: make_once(store, key, lambda _: None), {"seed": 2})
    assert (kind, type(error)) == ("busy", BusyError)


def test_store_tidy_knows_leases_of_the_dead(tmp_path: Path) -> None:
    store, kept = Store(tmp_path), FolderLeases(tmp_path / "leases")
    kept.create(f"{KEY}.0", f"{socket.gethostname()} {os.getpid()}")
    kept.create(f"{KEY}.1", "elsewhere 7")
    kept.create(f"{KEY}.2", f"{socket.gethostname()} {2**22 + 1}")  # above the largest process number
    old = tmp_path / "leases" / KEY[:2] / f"{KEY}.1"
    assert [path.name for path in store.leftovers()] == [f"{KEY}.2"]
    os.utime(old, ns=(1, 1))
    left = store.leftovers()
    assert [path.name for path in left] == [f"{KEY}.1", f"{KEY}.2"]
    assert sum(map(store.remove, left)) > 0
    assert [path.name for path in old.parent.iterdir()] == [f"{KEY}.0"]
