"""The store in a bucket: the card is the commit mark, and the artifact of the first writer stays."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support import skip

from forgetbench import object_store
from forgetbench.cli import main
from forgetbench.errors import UsageError, os_error_message
from forgetbench.object_store import Bucket, ObjectStore, ObjectStoreError, check_bucket, check_url, open_store
from forgetbench.runner.config import RunConfig
from forgetbench.runner.engines import machine_fault
from forgetbench.store import CARD, Store

KEY = {"seed": 1}
ADDRESS = Store.key(KEY)
URL = "s3://bucket/prefix"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


def text(content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "a.txt").write_text(content) and None


@pytest.fixture
def client() -> Any:
    """An empty bucket in this process."""
    if find_spec("obstore") is None:
        skip("obstore is not installed")
    from obstore.store import MemoryStore

    return MemoryStore()


@pytest.fixture
def machine(client: Any, tmp_path: Path) -> Callable[[str], ObjectStore]:
    """Name of a machine -> the store as it sees it, with a cache of its own."""
    return lambda name: ObjectStore(URL, Bucket(URL, client), tmp_path / name)


def objects(client: Any) -> list[str]:
    return sorted(entry["path"] for batch in client.list() for entry in batch)


def test_object_store_artifact_reaches_other_machine(machine: Callable[[str], ObjectStore]) -> None:
    one, two = machine("one"), machine("two")
    assert two.read(ADDRESS) is None
    made = one.write(KEY, text("hello"))
    folder = two.read(ADDRESS)
    assert folder == two.path(ADDRESS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in made.iterdir()
    }
    assert two.read(ADDRESS) == folder


def test_object_store_without_card_is_absent(machine: Callable[[str], ObjectStore], client: Any) -> None:
    """A machine that dies before it writes the card has put nothing there."""
    machine("one").write(KEY, text("hello"))
    client.delete(f"{ADDRESS[:2]}/{ADDRESS}/{CARD}")
    assert len(objects(client)) == 1
    assert machine("two").read(ADDRESS) is None
    assert list((machine("two").root).rglob("*.txt")) == []


def test_object_store_first_of_two_writers_stays(machine: Callable[[str], ObjectStore]) -> None:
    """Both have found nothing and made other bits; the second must not overwrite a file that the first's card lists."""
    one, two = machine("one"), machine("two")

    def slow(folder: Path) -> None:
        one.write(KEY, text("first"))
        text("second")(folder)

    assert (two.write(KEY, slow) / "a.txt").read_text() == "first"
    for name in ("one", "two", "three"):
        folder = machine(name).read(ADDRESS)
        assert folder is not None
        assert (folder / "a.txt").read_text() == "first"


def test_object_store_replaced_reaches_other_machines(machine: Callable[[str], ObjectStore]) -> None:
    one, two = machine("one"), machine("two")
    one.write(KEY, text("plain"))
    assert two.read(ADDRESS)

    def more(folder: Path) -> None:
        text("plain")(folder)
        (folder / "weights").write_text("w")

    one.write(KEY, more, replace=True)
    folder = two.read(ADDRESS)
    assert folder is not None
    assert (folder / "weights").read_text() == "w"


def test_object_store_cached_alone_is_put_there(machine: Callable[[str], ObjectStore], client: Any) -> None:
    """What was made before without a bucket, or could not be put there, is not made again."""
    one = machine("one")
    made = Store(one.root).write(KEY, text("hello"))
    assert one.read(ADDRESS) == made
    assert machine("two").read(ADDRESS) == machine("two").path(ADDRESS)


@pytest.mark.parametrize("harm", ["bytes", "file", "card", "name"])
def test_object_store_damage_is_repaired_by_writer(
    machine: Callable[[str], ObjectStore], client: Any, harm: str
) -> None:
    machine("one").write(KEY, text("hello"))
    [file] = [name for name in objects(client) if not name.endswith(CARD)]
    card = f"{ADDRESS[:2]}/{ADDRESS}/{CARD}"
    if harm == "bytes":
        client.put(file, b"other")
    elif harm == "file":
        client.delete(file)
    else:
        client.put(card, b"{" if harm == "card" else b'{"files": {"../a.txt": "%s"}}' % (b"0" * 64))
    two = machine("two")
    assert two.read(ADDRESS) is None
    assert [path for path in two.root.rglob("*") if path.is_file()] == []
    assert (two.write(KEY, text("hello")) / "a.txt").read_text() == "hello"
    assert machine("three").read(ADDRESS) == machine("three").path(ADDRESS)
    if harm == "bytes":
        client.put(file, b"other")
        client.put(card, b"{")
        assert two.read(ADDRESS) == two.path(ADDRESS)  # its copy is intact
        assert machine("four").read(ADDRESS) == machine("four").path(ADDRESS)


def test_object_store_fault_is_no_absence(
    machine: Callable[[str], ObjectStore], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore
    from obstore.exceptions import GenericError

    one = machine("one")

    def fail(*_: object, **__: object) -> None:
        raise GenericError("Generic S3 error: connection\n  refused\nDebug source: much")

    with monkeypatch.context() as broken:
        broken.setattr(obstore, "put", fail)
        broken.setattr(obstore, "get", fail)
        with pytest.raises(ObjectStoreError) as caught:
            one.read(ADDRESS)
        with pytest.raises(ObjectStoreError):
            one.write(KEY, text("hello"))
    assert machine_fault(caught.value) == "storage"  # run again later, and never the failure of a method
    assert caught.value.errno == errno.EIO
    assert os_error_message(caught.value) == (
        "s3://bucket/prefix: the object store failed: Generic S3 error: connection refused. Check the network and the "
        "credentials. Finished work is kept; the same command resumes."
    )
    assert one.read(ADDRESS) == one.path(ADDRESS)  # what was made meanwhile is put there now
    assert machine("two").read(ADDRESS)


def test_object_store_remove_leaves_no_object(machine: Callable[[str], ObjectStore], client: Any) -> None:
    one = machine("one")
    one.remove(one.write(KEY, text("hello")))
    assert objects(client) == []
    assert one.read(ADDRESS) is None


@pytest.mark.parametrize("url", ["bucket/prefix", "http://host/x", "s3://", "s3:///x", "s3://bucket/a//b", "s3://b/ü"])
def test_check_url_wrong_names_the_forms(url: str) -> None:
    with pytest.raises(UsageError, match=r"is no URL of a bucket\. Give one of the forms s3://BUCKET/PREFIX, gs://"):
        RunConfig(store_url=url)


def test_open_store_without_obstore_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    object_store._bucket.cache_clear()
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    check_url(URL)
    with pytest.raises(UsageError, match=r"pip install 'forgetbench\[object-store\]'"):
        open_store(tmp_path, URL)


def test_check_bucket_good_leaves_nothing(client: Any) -> None:
    check_bucket(URL, client)
    assert objects(client) == []


def test_check_bucket_that_overwrites_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    put = obstore.put
    monkeypatch.setattr(obstore, "put", lambda store, name, content, **_: put(store, name, content))
    with pytest.raises(UsageError, match=r"does not refuse to overwrite an object with If-None-Match \(it was overwr"):
        check_bucket(URL, client)
    assert objects(client) == []


def test_check_bucket_unreachable_endpoint(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"cannot be reached: .* Check the network and AWS_ENDPOINT_URL"):
        check_bucket(URL)


def test_check_bucket_no_credentials(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ENDPOINT_URL", "AWS_METADATA_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with pytest.raises(UsageError, match=r"There are no credentials for s3://.* Set AWS_ACCESS_KEY_ID"):
        check_bucket(URL)


def test_engine_check_wrong_url_exits_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["engine", "check", "--engine", "local", "--device", "cpu", "--store", "my-bucket"])
    assert "--store my-bucket is no URL of a bucket" in capsys.readouterr().err
