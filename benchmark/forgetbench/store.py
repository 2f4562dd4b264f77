"""The artifact store: each artifact is a folder named by the hash of its cache key.

Several machines may use one store on a shared filesystem. An artifact is written under a temporary name, with the
SHA-256 of every file in it, and renamed when all of it is on disk. A reader changes nothing: an artifact may be absent
or damaged, and then the caller computes it again, or the filesystem may have failed, and then the error is raised. A
damaged artifact is set aside by the writer that replaces it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias

import platformdirs

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.leases import FolderLeases, Leases

JsonObject: TypeAlias = dict[str, Any]
"""A JSON document whose fields are defined elsewhere."""
CARD = "artifact.json"
"""The file that lists an artifact's cache key and the hashes of its files. It is written last."""
TEMPORARY = ".making-"
"""Prefix of folders that are being written; the name of the host and the number of the process follow."""
ASIDE = ".aside-"
"""Prefix of folders that were set aside because another one took their place."""
State: TypeAlias = Literal["absent", "intact", "damaged"]
"""What a reader finds of an artifact."""

LOOK_AGAIN = (0.5, 2.0, 5.0)
"""Seconds before each further look at an artifact that seems damaged: on a network filesystem bytes may arrive late."""
WAIT_FOR_NAME = (10.0, 20.0, 30.0)
"""Seconds before each further look for an artifact that another machine has made: NFS caches that a name is absent."""

_TRANSIENT = frozenset({errno.ESTALE, errno.EIO, errno.ETIMEDOUT})
"""Errors of a network filesystem that a second look may not meet."""
_IN_THE_WAY = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT})
"""Errors of renaming a folder if another process was faster."""
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF})
"""Errors of systems that cannot write a folder's entries to disk on demand."""
_ATTEMPTS = 100
"""Number of times that a folder is put in place while other processes put theirs there."""
_ABANDONED_SECONDS = 7 * 24 * 3600
"""A temporary folder of another host is a leftover if it has not changed for this time."""


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes. NaN raises ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def home() -> Path:
    """ForgetBench's folder: ``FORGETBENCH_HOME``, or a folder in the user's data folder.

    Raises:
        UsageError: The user has no home folder.
    """
    chosen = os.environ.get("FORGETBENCH_HOME")
    try:
        folder = Path(chosen or platformdirs.user_data_dir("forgetbench")).expanduser()
    except RuntimeError as error:  # no HOME, and a user id that the system does not know, as in some containers
        raise UsageError("This user has no home folder. Set FORGETBENCH_HOME to a folder for results.") from error
    return folder


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees either all of it or the previous contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def replace_folder(folder: Path, fill: Callable[[Path], None], *, marker: str) -> None:
    """Fill a temporary folder next to ``folder`` and put it in its place, replacing previous contents.

    Of two processes that replace a folder at the same time, the last one's contents stay; neither fails. A process that
    is killed leaves either the previous or the new contents, or none if it is killed between two renames.

    Args:
        folder: The folder.
        fill: Writes the new contents into the folder that it is given.
        marker: The file that every such folder has: contents without it are something else and are never replaced.

    Raises:
        ForgetBenchError: There is something else at ``folder``, or below it. Nothing was changed.
    """
    _check_replaceable(folder, marker)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_owned(TEMPORARY)))
    try:
        fill(fresh)
        fresh.chmod(0o755)
        for path in fresh.rglob("*"):
            _sync(path)
        _sync(fresh)
        _swap(fresh, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    """Put a complete folder in the place of another one, which is removed."""
    for _ in range(_ATTEMPTS):
        if _move(fresh, folder):
            return
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_owned(ASIDE)))
        try:
            _move(folder, old / "old")
            if _move(fresh, folder):
                return
        except BaseException:
            with suppress(OSError):
                (old / "old").rename(folder)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    raise ForgetBenchError(f"{folder} cannot be replaced: other processes keep replacing it. Try again later.")


def _check_replaceable(folder: Path, marker: str) -> None:
    for _ in range(_ATTEMPTS):
        try:
            before = folder.lstat()
        except FileNotFoundError:
            return
        try:
            obstacle = _obstacle(folder, marker)
            replaced = not os.path.samestat(before, folder.lstat())
        except FileNotFoundError:  # another process replaces it: look at its contents
            continue
        if obstacle is None:
            return
        if not replaced:
            advice = "Nothing was replaced. Move it to another place and repeat the command."
            raise ForgetBenchError(f"{folder} is in the way: {obstacle}. {advice}")


def _obstacle(folder: Path, marker: str) -> str | None:
    """Why a path is not a folder that may be replaced; None if it is one."""
    if not folder.is_dir():
        return "it is no folder"
    if any(folder.iterdir()) and not (folder / marker).is_file():
        return f"it has other files and no {marker}"
    inner = next((path.parent for path in folder.rglob(marker) if path.parent != folder), None)
    return None if inner is None else f"it also contains {inner}"


class Store:
    """Artifacts below one root folder, addressed by the hash of their cache keys."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or home() / "store"
        self._leases = Leases(FolderLeases(self.root / "leases"))

    @staticmethod
    def key(cache_key: Mapping[str, Any]) -> str:
        """The address of an artifact: SHA-256 of the canonical JSON of everything that shapes it."""
        return digest(cache_key)

    def path(self, key: str) -> Path:
        """The folder of an artifact, whether or not it exists."""
        return self.root / key[:2] / key

    def read(self, key: str, *, expected: bool = False) -> Path | None:
        """The artifact's folder; None if it is absent or damaged. Nothing is changed.

        Its files are hashed once in each process, unless they change. Other files in the folder are ignored.

        Args:
            key: The key.
            expected: Whether the artifact was made before, perhaps by another machine: then it is waited for.

        Raises:
            OSError: The filesystem failed, also at further looks.
        """
        folder = self.path(key)
        return folder if _settled_state(folder, expected=expected) == "intact" else None

    def has(self, key: str) -> bool:
        """Whether there is an artifact, intact or not: its card is there."""
        return (self.path(key) / CARD).is_file()

    def write(self, cache_key: Mapping[str, Any], writer: Callable[[Path], None], *, replace: bool = False) -> Path:
        """Let ``writer`` fill a temporary folder, then put it in its place in one step, when all of it is on disk.

        Two processes may compute the same artifact at the same time: the first to finish wins.

        Args:
            cache_key: Everything that shapes the artifact.
            writer: Writes the files into the folder that it is given.
            replace: Whether an intact artifact of the same key is replaced, by one with more files.

        Raises:
            OSError: The filesystem failed. Nothing is left behind.
        """

        def fill(folder: Path) -> bytes:
            writer(folder)
            names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
            files = {name: file_digest(folder / name) for name in names}
            return canonical_json({"key": dict(cache_key), "files": files})

        return self._put(self.key(cache_key), fill, replace=replace)

    def _put(self, key: str, fill: Callable[[Path], bytes], *, replace: bool) -> Path:
        """Let ``fill`` write an artifact's files and return its card; put all in its place when it is on disk."""
        folder = self.path(key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_owned(TEMPORARY)))
        try:
            card = fill(temporary)
            for path in temporary.iterdir():
                _sync(path)
            (temporary / CARD).write_bytes(card)
            _sync(temporary / CARD)
            temporary.chmod(0o755)
            _sync(temporary)
            _commit(temporary, folder, replace=replace)
            _sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def lease(self, key: str) -> AbstractContextManager[bool]:
        """Announce in a block that an artifact is being computed; gives False if another process does it already."""
        return self._leases.hold(key)

    def artifacts(self) -> Iterator[tuple[Path, JsonObject]]:
        """Every artifact's folder with its cache key."""
        for card in sorted(self.root.glob("??/[!.]*/" + CARD)):
            try:
                yield card.parent, json.loads(card.read_bytes())["key"]
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                continue

    def leftovers(self) -> list[Path]:
        """Folders that were set aside, and folders and leases of processes that were killed."""
        leases = FolderLeases(self.root / "leases").abandoned(_ABANDONED_SECONDS)
        return [*_leftovers(self.root.glob("??/.*")), *leases]

    def remove(self, folder: Path) -> int:
        """Remove an artifact or a leftover; returns the number of bytes that were freed."""
        size = folder_size(folder)
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        return size


def recorded_digest(folder: Path, name: str) -> str:
    """SHA-256 (hex) of an artifact's file, from its card, which `Store.read` has compared with the file."""
    sha256: str = json.loads((folder / CARD).read_bytes())["files"][name]
    return sha256


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder, or of a file."""
    return sum(path.stat().st_size for path in (folder, *folder.rglob("*")) if path.is_file())


def leftovers_below(folder: Path) -> list[Path]:
    """Temporary folders of `replace_folder` below a folder, at any depth, whose processes were killed."""
    return _leftovers(chain(folder.rglob(f"{TEMPORARY}*"), folder.rglob(f"{ASIDE}*")))


_verified: dict[Path, tuple[tuple[str, int, int, int], ...]] = {}
"""Folder of an artifact -> name, inode, size and time of each file when its hash was right."""


def _settled_state(folder: Path, *, expected: bool = False) -> State:
    """The state of an artifact; damage and faults of the filesystem are believed after further looks."""
    waits = [*LOOK_AGAIN, *(WAIT_FOR_NAME if expected else ())]
    for number, wait in enumerate([*waits, None]):
        fault: OSError | None = None
        state: State = "damaged"
        try:
            state = _state(folder)
        except OSError as error:
            if error.errno not in _TRANSIENT:
                raise
            fault = error
        if state == "intact" or (state == "absent" and not expected):
            break
        if wait is None or (state == "damaged" and number >= len(LOOK_AGAIN)):
            if fault is not None:
                raise fault
            break
        time.sleep(wait)
        with suppress(OSError):
            next(folder.parent.iterdir(), None)  # makes a client of NFS ask the server again
    return state


def _state(folder: Path) -> State:
    """The state of an artifact at a first look.

    Raises:
        OSError: The filesystem failed, which says nothing of the artifact.
    """
    try:
        files = json.loads((folder / CARD).read_bytes())["files"]
        names = sorted([CARD, *files])
        stats = [(name, (folder / name).stat()) for name in names]
        seen = tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
        if _verified.get(folder) == seen:
            return "intact"
        if any(file_digest(folder / name) != sha256 for name, sha256 in files.items()):
            return "damaged"
    except FileNotFoundError:
        with suppress(FileNotFoundError):
            return "damaged" if any(folder.iterdir()) else "absent"
        return "absent"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "damaged"
    _verified[folder] = seen
    return "intact"


def _commit(temporary: Path, folder: Path, *, replace: bool) -> None:
    """Put a complete artifact in its place, unless an intact one is there. A damaged one is set aside."""
    for _ in range(_ATTEMPTS):
        if _move(temporary, folder):
            return
        inode = _inode(folder)
        state = _settled_state(folder)
        if state == "intact" and not (replace and temporary.is_dir() and _differ(temporary, folder)):
            return
        if inode is not None and state != "absent":
            # Named by its inode: if another writer has set it aside already, this name is taken and the folder, which
            # is that writer's new one, stays.
            _move(folder, folder.parent / f"{ASIDE}{folder.name}-{inode}")
    raise ForgetBenchError(f"{folder} cannot be written: other processes keep replacing it. Try again later.")


def _differ(one: Path, other: Path) -> bool:
    """Whether two artifacts have different files: one that is in use is never replaced by its equal."""
    return (one / CARD).read_bytes() != (other / CARD).read_bytes()


def _move(source: Path, target: Path) -> bool:
    """Rename a folder; False if there is another one at the target, or none at the source."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            return False
        raise
    return True


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on disk. A full disk is reported here at the latest."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _owned(prefix: str) -> str:
    """A prefix for temporary names that says which process of which host they belong to."""
    return f"{prefix}{socket.gethostname()}-{os.getpid()}-"


def _leftovers(folders: Iterable[Path]) -> list[Path]:
    return sorted(
        folder
        for folder in folders
        if folder.name.startswith(ASIDE) or (folder.name.startswith(TEMPORARY) and _is_abandoned(folder))
    )


def _is_abandoned(folder: Path) -> bool:
    """Whether the writer of a temporary folder has ended; of another host, whether the folder is old."""
    host, _, process = folder.name.removeprefix(TEMPORARY).rpartition("-")[0].rpartition("-")
    if host == socket.gethostname() and process.isdecimal():
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
    try:
        return time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:
        return False
