"""The artifact store: each artifact is a folder named by the hash of its cache key.

An artifact is written under a temporary name and renamed, with the SHA-256 of every file in it. An incomplete or
damaged artifact is never read: it is removed, and the caller computes it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import platformdirs

from forgetbench.errors import ForgetBenchError, UsageError

JsonObject: TypeAlias = dict[str, Any]
"""A JSON document whose fields are defined elsewhere."""
CARD = "artifact.json"
"""The file that lists an artifact's cache key and the hashes of its files."""
TEMPORARY = ".making-"
"""Prefix of folders that are being written."""


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
    """Fill a temporary folder next to ``folder`` and put it in its place in one step, replacing previous contents.

    Args:
        folder: The folder.
        fill: Writes the new contents into the folder that it is given.
        marker: The file that every such folder has: contents without it are something else and are never replaced.

    Raises:
        ForgetBenchError: There is something else at ``folder``, or below it. Nothing was changed.
    """
    _check_replaceable(folder, marker)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        fill(fresh)
        fresh.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".old-{folder.name}."))
            folder.rename(old / "old")
            fresh.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _check_replaceable(folder: Path, marker: str) -> None:
    if not os.path.lexists(folder):
        return
    advice = "Nothing was replaced. Move it to another place and repeat the command."
    if not folder.is_dir():
        raise ForgetBenchError(f"{folder} is in the way: it is no folder. {advice}")
    if any(folder.iterdir()) and not (folder / marker).is_file():
        raise ForgetBenchError(f"{folder} is in the way: it has other files and no {marker}. {advice}")
    inner = next((path.parent for path in folder.rglob(marker) if path.parent != folder), None)
    if inner is not None:
        raise ForgetBenchError(f"{folder} is in the way: it also contains {inner}. {advice}")


class Store:
    """Artifacts below one root folder, addressed by the hash of their cache keys."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or home() / "store"

    @staticmethod
    def key(cache_key: Mapping[str, Any]) -> str:
        """The address of an artifact: SHA-256 of the canonical JSON of everything that shapes it."""
        return digest(cache_key)

    def path(self, key: str) -> Path:
        """The folder of an artifact, whether or not it exists."""
        return self.root / key[:2] / key

    def read(self, key: str) -> Path | None:
        """The artifact's folder; None if it does not exist or was damaged (it is removed then)."""
        folder = self.path(key)
        if not folder.is_dir():
            return None
        if self._is_intact(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def write(self, cache_key: Mapping[str, Any], writer: Callable[[Path], None]) -> Path:
        """Let ``writer`` fill a temporary folder, then put it in its place in one step.

        Two processes may compute the same artifact at the same time: the first to finish wins.
        """
        folder = self.path(self.key(cache_key))
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=TEMPORARY))
        try:
            writer(temporary)
            files = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
            (temporary / CARD).write_bytes(canonical_json({"key": dict(cache_key), "files": files}))
            temporary.chmod(0o755)
            try:
                temporary.rename(folder)
            except OSError:
                if not self._is_intact(folder):
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def artifacts(self) -> Iterator[tuple[Path, JsonObject]]:
        """Every artifact's folder with its cache key."""
        for card in sorted(self.root.glob("??/*/" + CARD)):
            try:
                yield card.parent, json.loads(card.read_bytes())["key"]
            except (ValueError, KeyError):
                continue

    def incomplete(self) -> list[Path]:
        """Folders of writers that were killed."""
        return sorted(self.root.glob(f"??/{TEMPORARY}*"))

    def remove(self, folder: Path) -> int:
        """Remove an artifact; returns the number of bytes that were freed."""
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
        return size

    @staticmethod
    def _is_intact(folder: Path) -> bool:
        try:
            files = json.loads((folder / CARD).read_bytes())["files"]
            present = {path.name for path in folder.iterdir()} - {CARD}
            return present == set(files) and all(file_digest(folder / name) == sha for name, sha in files.items())
        except (OSError, ValueError, KeyError, TypeError):
            return False
