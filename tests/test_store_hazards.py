"""The store on a filesystem that fails, is late, or is shared: readers change nothing, and no finished work is lost."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from forgetbench import store as module
from forgetbench.store import ASIDE, CARD, TEMPORARY, Store, leftovers_below, replace_folder

KEY = {"seed": 1}


def put(store: Store, text: str = "hello", *, replace: bool = False) -> Path:
    return store.write(KEY, lambda folder: (folder / "a.txt").write_text(text) and None, replace=replace)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def during_waits(monkeypatch: pytest.MonkeyPatch, *actions: Callable[[], object]) -> list[float]:
    """Do one thing in each wait of the store, without waiting; returns the waits."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) <= len(actions):
            actions[len(waits) - 1]()

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(module, "LOOK_AGAIN", (0.5, 2.0, 5.0))
    monkeypatch.setattr(module, "WAIT_FOR_NAME", (10.0, 20.0, 30.0))
    return waits


def failing(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> list[Path]:
    """Let hashing a file fail with an error of the system, some number of times; returns the files."""
    calls, digest = list[Path](), module.file_digest

    def fail(path: Path) -> str:
        calls.append(path)
        if len(calls) <= times:
            raise OSError(number, os.strerror(number), str(path))
        return digest(path)

    monkeypatch.setattr(module, "file_digest", fail)
    return calls


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_store_read_late_bytes_are_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(store) / "a.txt"
    file.write_text("")
    waits = during_waits(monkeypatch, lambda: None, lambda: file.write_text("hello"))
    assert store.read(store.key(KEY)) == file.parent
    assert waits == [0.5, 2.0]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_store_read_fault_that_passes_is_no_damage(store: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    folder = put(store)
    waits = during_waits(monkeypatch)
    failing(monkeypatch, number, times=1)
    assert store.read(store.key(KEY)) == folder
    assert waits == [0.5]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_store_read_lasting_fault_is_raised(store: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    folder = put(store)
    before = contents(store.root)
    during_waits(monkeypatch)
    calls = failing(monkeypatch, number, times=99)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        store.read(store.key(KEY))
    assert (caught.value.errno, caught.value.filename) == (number, str(folder / "a.txt"))
    assert len(calls) == (1 if number == errno.EACCES else 4)
    assert contents(store.root) == before


def test_store_read_damage_changes_nothing(store: Store) -> None:
    folder = put(store)
    (folder / "a.txt").write_text("other")
    before = contents(store.root)
    assert store.read(store.key(KEY)) is None  # another reader may be using the folder
    assert contents(store.root) == before
    assert put(store).joinpath("a.txt").read_text() == "hello"
    [aside] = store.leftovers()
    assert (aside / "a.txt").read_text() == "other"
    assert [made for _, made in store.artifacts()] == [KEY]


def test_store_two_writers_of_damage_keep_the_new_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find the same damage; the second must not set aside what the first has put there."""
    folder = put(store)
    (folder / "a.txt").write_text("other")
    settled, judged = module._settled_state, []

    def judge(place: Path, *, expected: bool = False) -> module.State:
        state = settled(place, expected=expected)
        if not judged:
            judged.append(state)
            put(store, "first")
        return state

    monkeypatch.setattr(module, "_settled_state", judge)
    assert (put(store, "second") / "a.txt").read_text() == "first"
    assert judged == ["damaged"]
    assert [contents(path)["a.txt"] for path in store.leftovers()] == [b"other"]


@pytest.mark.parametrize("name", [".nfs000000000012", ".DS_Store", "Thumbs.db"])
def test_store_extra_files_are_ignored(store: Store, name: str) -> None:
    folder = store.write(KEY, lambda place: [(place / file).write_text("x") for file in ("a.txt", ".nfs01")] and None)
    (folder / name).write_text("?")
    assert store.read(store.key(KEY)) == folder
    assert put(store, "again") == folder
    assert (folder / "a.txt").read_text() == "x"


@pytest.mark.parametrize("arrives", [True, False])
def test_store_write_after_another_whose_bytes_are_late(
    store: Store, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    file = put(store, "first") / "a.txt"
    file.write_text("")
    during_waits(monkeypatch, lambda: file.write_text("first") if arrives else None)
    assert put(store, "second").joinpath("a.txt").read_text() == ("first" if arrives else "second")
    assert store.read(store.key(KEY)) == file.parent


def test_store_read_name_that_another_host_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = during_waits(monkeypatch, *[lambda: None] * 4, lambda: put(store))
    assert store.read(store.key(KEY)) is None
    assert waits == []
    assert store.read(store.key(KEY), expected=True) == store.path(store.key(KEY))
    assert waits == [0.5, 2.0, 5.0, 10.0, 20.0]


def at_once(*actions: Callable[[], object]) -> list[BaseException]:
    """Do things in threads that start together; returns their errors."""
    barrier, errors = threading.Barrier(len(actions)), list[BaseException]()

    def run(action: Callable[[], object]) -> None:
        barrier.wait()
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - the test's result
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_store_two_drivers_lose_nothing(store: Store) -> None:
    keys = [{"seed": seed} for seed in range(25)]
    for key in keys[::3]:  # some are damaged before both begin
        (store.write(key, lambda folder: (folder / "a").write_bytes(b"1") and None) / "a").write_bytes(b"?")

    def drive() -> None:
        for key in keys:
            if store.read(store.key(key)) is None:
                store.write(key, lambda folder: (folder / "a").write_bytes(b"1") and None)
            assert store.read(store.key(key), expected=True)

    assert at_once(drive, drive, drive) == []
    assert len(list(store.artifacts())) == 25
    assert not list(store.root.rglob(f"{TEMPORARY}*"))


def test_replace_folder_by_two_drivers_fails_neither(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"

    def drive(name: str) -> None:
        def fill(place: Path) -> None:
            for file in ("card", "a", "b"):
                (place / file).write_text(name)

        for _ in range(60):
            replace_folder(folder, fill, marker="card")

    assert at_once(lambda: drive("1"), lambda: drive("2")) == []
    assert len({path.read_text() for path in folder.iterdir()}) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "card"]
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_replace_folder_fault_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    replace_folder(folder, lambda place: (place / "card").write_text("1") and None, marker="card")
    move = module._move

    def fail(source: Path, target: Path) -> bool:
        if target == folder and not folder.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return move(source, target)

    monkeypatch.setattr(module, "_move", fail)
    with pytest.raises(OSError, match="Input/output"):
        replace_folder(folder, lambda place: (place / "card").write_text("2") and None, marker="card")
    assert contents(tmp_path) == {"run/card": b"1"}


def test_store_replaced_artifact_stays_until_the_new_one(store: Store) -> None:
    folder = put(store)

    def fill(place: Path) -> None:
        assert store.read(store.key(KEY)) == folder
        for file in ("a.txt", "weights"):
            (place / file).write_text("more")

    assert store.write(KEY, fill, replace=True) == folder
    assert store.read(store.key(KEY)) == folder
    assert contents(folder).keys() == {CARD, "a.txt", "weights"}


def test_store_hashes_once_in_a_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(store)
    calls = failing(monkeypatch, 0, times=0)
    for _ in range(3):
        assert Store(store.root).read(store.key(KEY)) == folder
    assert calls == [folder / "a.txt"]
    (folder / "a.txt").write_text("changed afterwards")
    assert store.read(store.key(KEY)) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_store_full_disk_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(number)):
        put(store)
    assert not any(path.is_file() for path in store.root.rglob("*"))
    assert not list(store.root.rglob(f"{TEMPORARY}*"))


def test_store_folder_sync_is_not_required(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def files_only(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112 - of a descriptor
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    assert store.read(store.key(KEY)) is None
    assert put(store) == store.read(store.key(KEY))


@pytest.mark.parametrize("call", range(5))
def test_store_killed_writer_leaves_no_artifact(store: Store, call: int) -> None:
    """SIGKILL after each step of writing: the card is the last file, and only a complete artifact has its name."""
    child = os.fork()
    if child == 0:
        sync, calls = module._sync, list[Path]()

        def kill(path: Path) -> None:
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(path)
            sync(path)

        module._sync = kill
        store.write(KEY, lambda folder: [(folder / name).write_text(name) for name in "ab"] and None)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    found = store.read(store.key(KEY))
    if call == 4:  # all but the entry of the parent folder
        assert found is not None
        assert store.leftovers() == []
    else:
        assert found is None
        [left] = store.leftovers()
        assert (left / CARD).exists() == (call >= 2)
    put(store)
    assert store.read(store.key(KEY)) == store.path(store.key(KEY))


def test_store_partial_folder_is_replaced(store: Store) -> None:
    folder = store.path(store.key(KEY))
    folder.mkdir(parents=True)
    assert store.read(store.key(KEY)) is None
    (folder / "a.txt").write_text("half")
    assert store.read(store.key(KEY)) is None
    assert put(store).joinpath("a.txt").read_text() == "hello"


def test_leftovers_of_living_writers_stay(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    host = socket.gethostname()
    names = {
        "own": f"{TEMPORARY}{host}-{os.getpid()}-abc",
        "dead": f"{TEMPORARY}{host}-{child}-abc",
        "elsewhere": f"{TEMPORARY}other-host-1-abc",
        "old": f"{TEMPORARY}other-host-2-abc",
        "earlier version": f"{TEMPORARY}abc",
        "aside": f"{ASIDE}{host}-1-abc",
    }
    for name in names.values():
        (tmp_path / "runs" / "task" / name).mkdir(parents=True)
    os.utime(tmp_path / "runs" / "task" / names["old"], (0, 0))
    found = {path.name for path in leftovers_below(tmp_path / "runs")}
    assert found == {names["dead"], names["old"], names["aside"]}
