"""The store without a shared filesystem: a bucket has the artifacts, and a folder of each machine caches them.

An artifact is complete in the bucket as soon as its card is there. The card is written last, with If-None-Match: of two
machines that make the same artifact the first one's stays, and the other uses that one. Files are named by their
hashes, so that no machine overwrites what another one's card lists. A folder of this machine is the cache: an artifact
in it is used only if its card equals the bucket's, and one that the bucket lacks is put there.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.errors import UsageError, printable
from forgetbench.leases import BucketLeases, Leases
from forgetbench.store import CARD, Store, file_digest

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

SCHEMES = ("s3", "gs", "az")
"""Beginnings of URLs: Amazon S3 and what is compatible with it, Google Cloud Storage, Azure Blob Storage."""

_CHECK_SECONDS = 20
"""Time in which the first request must be answered."""
_RETRY_SECONDS = 60
"""Time for which a request is repeated that is not answered."""
_CHUNK = 8 << 20
"""Bytes of a file that are in memory at a time."""
_DOWNLOADS = 2
"""Number of times that a file is fetched before it is taken for damaged."""
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, the path of a key file",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""Scheme -> the variables that a machine without a role in its cloud needs."""
_ASKS_CLOUD = re.compile(r"/latest/api/token|/latest/meta-data|computeMetadata|metadata/identity|169\.254\.|oauth2")
"""Addresses of the cloud's own source of credentials, which is used if the environment has none."""


class ObjectStoreError(OSError):
    """A bucket failed to answer; like a fault of a disk, it is never taken for the absence of an artifact."""

    advice = "Check the network and the credentials. Finished work is kept; the same command resumes."


class Bucket:
    """Objects below a URL. Faults are raised as `ObjectStoreError`, with the URL.

    Args:
        url: The URL, for messages.
        client: The client.
    """

    def __init__(self, url: str, client: Client) -> None:
        self.url, self._client = url, client

    def get(self, name: str) -> bytes | None:
        """The bytes of an object; None if there is none."""
        import obstore

        try:
            with self._faults(reading=True):
                return bytes(obstore.get(self._client, name).bytes())
        except _AbsentError:
            return None

    def download(self, name: str, path: Path) -> bool:
        """Fetch an object into a file; False if there is none."""
        import obstore

        try:
            with self._faults(reading=True), path.open("wb") as file:
                for chunk in obstore.get(self._client, name).stream(_CHUNK):
                    file.write(chunk)
        except _AbsentError:
            return False
        return True

    def put(self, name: str, content: bytes | Path) -> None:
        """Put bytes or a file, replacing an object of that name."""
        import obstore

        with self._faults():
            obstore.put(self._client, name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Put bytes unless there is an object of that name; False if there is one."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._faults():
            try:
                obstore.put(self._client, name, content, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def names(self, prefix: str) -> list[str]:
        """Names of the objects in a folder whose names begin with a prefix, such as ``folder/begin``."""
        import obstore

        folder = prefix.rpartition("/")[0]
        with self._faults():
            found = [str(entry["path"]) for batch in obstore.list(self._client, f"{folder}/") for entry in batch]
        return sorted(name for name in found if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        import obstore

        with suppress(_AbsentError), self._faults(reading=True):
            obstore.delete(self._client, name)

    @contextmanager
    def _faults(self, *, reading: bool = False) -> Iterator[None]:
        """Raise errors of the client as faults.

        Args:
            reading: Whether an object may be absent; `_AbsentError` is raised then.
        """
        from obstore.exceptions import BaseError, NotFoundError

        try:
            yield
        except (FileNotFoundError, NotFoundError) as error:
            absent = reading and not _lacks_bucket(error)
            raise (_AbsentError() if absent else self._fault(error)) from error
        except (BaseError, NotImplementedError, PermissionError, TimeoutError, ConnectionError) as error:
            raise self._fault(error) from error

    def _fault(self, error: BaseException) -> ObjectStoreError:
        return ObjectStoreError(errno.EIO, f"the object store failed: {_reason(error)}", self.url)


class ObjectStore(Store):
    """Artifacts in a bucket, with a cache in a folder of this machine.

    Args:
        url: The URL of the bucket and a prefix in it, for messages.
        bucket: The objects below the URL.
        root: The folder of the cache; None is the store of this machine.
    """

    def __init__(self, url: str, bucket: Bucket, root: Path | None = None) -> None:
        super().__init__(root)
        self.url, self._bucket = url, bucket
        self._leases = Leases(BucketLeases(bucket))

    def read(self, key: str, *, expected: bool = False) -> Path | None:  # noqa: ARG002 - a bucket is never late
        """The folder of an artifact in the cache, fetched if necessary; None if it is absent or damaged.

        Raises:
            OSError: The bucket or the filesystem failed.
        """
        cached = super().read(key)
        card = self._bucket.get(self._name(key, CARD))
        if card is None:
            return None if cached is None else self._publish(key, cached)
        if cached is not None and (cached / CARD).read_bytes() == card:
            return cached
        fetched = self._fetch(key, card)
        if fetched is None and cached is not None:
            return self._publish(key, cached, replace=True)
        return fetched

    def has(self, key: str) -> bool:
        """Whether the bucket has an artifact, or the cache, from which it is put there when it is read."""
        return super().has(key) or self._bucket.get(self._name(key, CARD)) is not None

    def write(self, cache_key: Mapping[str, Any], writer: Callable[[Path], None], *, replace: bool = False) -> Path:
        """Write an artifact into the cache, then put it into the bucket; of two writers the first one's stays.

        Raises:
            OSError: The bucket or the filesystem failed. What is in the cache already is put into the bucket when it is
                read again.
        """
        folder = super().write(cache_key, writer, replace=replace)
        return self._publish(self.key(cache_key), folder, replace=replace)

    def remove(self, folder: Path) -> int:
        """Remove an artifact from the cache, and from the bucket; returns the number of bytes freed on this machine."""
        if folder == self.path(folder.name):
            card = self._bucket.get(self._name(folder.name, CARD))
            if card is not None:
                self._bucket.delete(self._name(folder.name, CARD))
                for name, sha256 in (_listed(card) or {}).items():
                    self._bucket.delete(self._file(folder.name, name, sha256))
        return super().remove(folder)

    def drop_cached(self, key: str) -> None:
        """Remove an artifact from the cache alone."""
        shutil.rmtree(self.path(key), ignore_errors=True)

    def _publish(self, key: str, folder: Path, *, replace: bool = False) -> Path:
        """Put an artifact of the cache into the bucket, the card last; the folder of the one that the bucket has."""
        card = (folder / CARD).read_bytes()
        for name, sha256 in (_listed(card) or {}).items():
            self._bucket.put(self._file(key, name, sha256), folder / name)
        if not replace and not self._bucket.create(self._name(key, CARD), card):
            theirs = self._bucket.get(self._name(key, CARD))
            if theirs == card:
                return folder
            fetched = self._fetch(key, theirs) if theirs is not None else None
            if fetched is not None:
                return fetched
            replace = True  # what is there is damaged
        if replace:
            self._bucket.put(self._name(key, CARD), card)
        return folder

    def _fetch(self, key: str, card: bytes) -> Path | None:
        """Fetch the artifact that a card of the bucket lists, in the place of another one; None if it is damaged."""
        files = _listed(card)
        if files is None:
            return None

        def fill(folder: Path) -> bytes:
            for name, sha256 in files.items():
                self._download(self._file(key, name, sha256), folder / name, sha256)
            return card

        try:
            self._put(key, fill, replace=True)
        except _DamagedError:
            return None
        return super().read(key)

    def _download(self, name: str, path: Path, sha256: str) -> None:
        """Fetch a file.

        Raises:
            _DamagedError: It is absent, or has other bytes than those whose hash is given.
        """
        for _ in range(_DOWNLOADS):
            if self._bucket.download(name, path) and file_digest(path) == sha256:
                return
        raise _DamagedError

    def _name(self, key: str, name: str) -> str:
        return f"{key[:2]}/{key}/{name}"

    def _file(self, key: str, name: str, sha256: str) -> str:
        return self._name(key, f"{sha256[:16]}-{name}")


class _AbsentError(Exception):
    """There is no object of this name."""


class _DamagedError(Exception):
    """A file of the bucket is not that of the card."""


def _listed(card: bytes) -> dict[str, str] | None:
    """The names and hashes that a card lists; None if it is damaged."""
    try:
        files = json.loads(card)["files"]
        good = all(
            Path(name).name == name != CARD and re.fullmatch("[0-9a-f]{64}", sha256) for name, sha256 in files.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return files if good else None


def open_store(folder: Path | None, url: str | None) -> Store:
    """The store in a folder, or in a bucket with the folder as its cache.

    Args:
        folder: The folder; None is the one of this machine.
        url: URL of the bucket; None if there is none.

    Raises:
        UsageError: The URL is wrong, or obstore is not installed.
    """
    return Store(folder) if url is None else ObjectStore(url, _bucket(url), folder)


def check_url(url: str) -> None:
    """Check the form of a bucket's URL.

    Raises:
        UsageError: It is wrong.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES or not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.=+-]+)*/?", rest, re.ASCII):
        forms = ", ".join(f"{name}://BUCKET/PREFIX" for name in SCHEMES)
        raise UsageError(
            f"--store {printable(url)} is no URL of a bucket. Give one of the forms {forms}; a folder is chosen by "
            "FORGETBENCH_HOME."
        )


def check_bucket(url: str, client: Client | None = None) -> None:
    """Check that a bucket can be read, written, and written on condition that an object is absent.

    Args:
        url: Its URL.
        client: The client; None connects to the URL.

    Raises:
        UsageError: It cannot be used, and why: credentials, the bucket, the network, or no conditional writes.
    """
    check_url(url)
    bucket = Bucket(url, client if client is not None else _connect(url, timedelta(seconds=_CHECK_SECONDS), retries=2))
    token = uuid.uuid4().hex
    name, content = f"check/{token}", token.encode()
    try:
        bucket.put(name, content)
        if bucket.get(name) != content:
            raise UsageError(
                f"{url} does not give back what was written into it. Use a bucket that is consistent for all machines, "
                "without a cache in between."
            )
        _check_condition(bucket, name, content)
    except ObjectStoreError as error:
        raise UsageError(_explain(url, error)) from error
    finally:
        with suppress(ObjectStoreError):
            bucket.delete(name)


def _check_condition(bucket: Bucket, name: str, content: bytes) -> None:
    try:
        created = bucket.create(name, content)
        reason = "it was overwritten" if created else ""
    except ObjectStoreError as error:
        reason = str(error.strerror)
    if reason:
        raise UsageError(
            f"{bucket.url} does not refuse to overwrite an object with If-None-Match ({reason}), so two machines could "
            "mix their results. Use a service that does, such as S3, GCS, Azure or MinIO."
        )


def _explain(url: str, error: ObjectStoreError) -> str:
    """Why a bucket cannot be used, and what to do."""
    cause, scheme = error.__cause__ or error, url.partition("://")[0]
    text = str(cause)
    reason = _reason(cause)
    if isinstance(cause, FileNotFoundError) or _lacks_bucket(cause):
        return (
            f"The bucket of {url} does not exist, or not in this region. Create it, or correct --store and the region."
        )
    if _ASKS_CLOUD.search(text):
        return (
            f"There are no credentials for {url}. Set {_CREDENTIALS[scheme]} on every machine, or use machines with a "
            f"role that may use the bucket ({reason})."
        )
    if type(cause).__name__ in ("PermissionDeniedError", "UnauthenticatedError", "PermissionError"):
        return f"{url} refuses access: {reason}. Correct {_CREDENTIALS[scheme]}, or let the role use the bucket."
    address = " and AWS_ENDPOINT_URL" if scheme == "s3" else ""
    return f"{url} cannot be reached: {reason}. Check the network{address}."


def _lacks_bucket(error: BaseException) -> bool:
    return any(code in str(error) for code in ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not"))


def _reason(error: BaseException) -> str:
    """The message of the client's error, in one line without the debugging text that follows."""
    lines = str(error).partition("Debug source:")[0].split()
    return printable(" ".join(lines))[:400] or type(error).__name__


@lru_cache(maxsize=8)
def _bucket(url: str) -> Bucket:
    return Bucket(url, _connect(url, timedelta(seconds=_RETRY_SECONDS), retries=8))


def _connect(url: str, patience: timedelta, *, retries: int) -> Client:
    """A client; it takes its credentials from the environment.

    Raises:
        UsageError: obstore is not installed, or a variable of the environment is wrong.
    """
    check_url(url)
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise UsageError("--store needs obstore: pip install 'forgetbench[object-store]'.") from error
    try:
        return from_url(
            url.rstrip("/"),
            # a request may be that of a large file; whether a server answers at all is known sooner
            client_options={"allow_http": True, "connect_timeout": "10s", "timeout": "1h"},
            retry_config={"max_retries": retries, "retry_timeout": patience},
        )
    except (BaseError, ValueError) as error:
        raise UsageError(f"{url} cannot be opened: {_reason(error)}. Correct the environment's variables.") from error
