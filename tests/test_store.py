from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetbench.errors import ForgetBenchError
from forgetbench.store import CARD, Store, canonical_json, digest, replace_folder, write_atomically

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def put(store: Store, cache_key: dict[str, object], text: str = "hello") -> Path:
    return store.write(cache_key, lambda folder: (folder / "a.txt").write_text(text) and None)


@given(JSON)
def test_canonical_json_ignores_the_order_of_keys(value: object) -> None:
    assert json.loads(canonical_json(value)) == value
    if isinstance(value, dict):
        assert digest(dict(reversed(value.items()))) == digest(value)


def test_canonical_json_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_store_artifact_is_read_by_its_key_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = put(store, {"seed": 1})
    assert store.read(store.key({"seed": 1})) == folder
    assert store.read(store.key({"seed": 2})) is None
    assert [made for _, made in store.artifacts()] == [{"seed": 1}]


def test_store_flipped_byte_is_detected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = put(store, {"seed": 1})
    data = bytearray((folder / "a.txt").read_bytes())
    data[2] ^= 1
    (folder / "a.txt").write_bytes(data)
    assert store.read(store.key({"seed": 1})) is None
    assert (put(store, {"seed": 1}) / "a.txt").read_text() == "hello"


@pytest.mark.parametrize("harm", ["missing", "no card", "card"])
def test_store_incomplete_artifact_is_never_read(tmp_path: Path, harm: str) -> None:
    store = Store(tmp_path)
    folder = put(store, {})
    if harm == "missing":
        (folder / "a.txt").unlink()
    elif harm == "no card":
        (folder / CARD).unlink()
    else:
        (folder / CARD).write_text("{")
    assert store.read(store.key({})) is None


def test_store_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "a.txt").write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        store.write({}, fail)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_store_two_writers_leave_one_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def write_twice(folder: Path) -> None:
        put(store, {}, "first")
        (folder / "a.txt").write_text("second")

    assert (store.write({}, write_twice) / "a.txt").read_text() == "first"


def test_replace_folder_failure_keeps_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    replace_folder(folder, lambda place: (place / "a").write_text("1") and None, marker="a")

    def fail(_: Path) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        replace_folder(folder, fail, marker="a")
    assert (folder / "a").read_text() == "1"
    replace_folder(folder, lambda place: (place / "b").write_text("2") and None, marker="a")
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("place", ["other files", "file", "broken link", "runs below", "run in run"])
def test_replace_folder_keeps_whatever_is_no_run(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "run"
    if place == "file":
        folder.write_text("mine")
    elif place == "broken link":
        folder.symlink_to(tmp_path / "nowhere")
    else:
        names = {"other files": ["notes"], "runs below": ["a/card", "b/card"], "run in run": ["card", "a/card"]}
        for name in names[place]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("mine")
    before = sorted((path, path.is_file() and path.read_text()) for path in tmp_path.rglob("*"))
    with pytest.raises(ForgetBenchError, match=r"run is in the way: .* Nothing was replaced\. Move it"):
        replace_folder(folder, lambda _: pytest.fail("filled"), marker="card")
    assert sorted((path, path.is_file() and path.read_text()) for path in tmp_path.rglob("*")) == before


def test_write_atomically_killed_keeps_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    code = (
        "import sys, pathlib\nfrom forgetbench.store import write_atomically\n"
        "print('ready', flush=True)\nwhile True: write_atomically(pathlib.Path(sys.argv[1]), b'x' * 4_000_000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert path.read_bytes() in {b"old", b"x" * 4_000_000}
