"""Artifacts on disk, each in a folder named by the hash of what made it.

An artifact is written under a temporary name and renamed, with the SHA-256 of every file in it. One that is
half-written or damaged is never read: it is removed, and whoever asked makes it again.
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

JsonObject: TypeAlias = dict[str, Any]
"""A JSON document whose fields are defined elsewhere."""
CARD = "artifact.json"


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes. NaN is refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def source_digest(*paths: Path) -> str:
    """One hash for several source files, independent of where they lie."""
    return digest([[path.name, file_digest(path)] for path in sorted(paths, key=lambda path: path.name)])


def home() -> Path:
    """The folder of everything that ForgetBench keeps: ``FORGETBENCH_HOME``, or the user's data folder."""
    chosen = os.environ.get("FORGETBENCH_HOME")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("forgetbench"))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees all of it or what was there before."""
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


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary folder beside ``folder`` and put it there in one step, whatever was there before."""
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


class Store:
    """Artifacts below one root folder, addressed by the hash of what made them."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or home() / "store"

    @staticmethod
    def key(made_from: Mapping[str, Any]) -> str:
        """The address of an artifact: SHA-256 of the canonical JSON of what made it."""
        return digest(made_from)

    def path(self, key: str) -> Path:
        """Where the artifact of that key lies, or would lie."""
        return self.root / key[:2] / key

    def read(self, key: str) -> Path | None:
        """The artifact's folder; None where there is none, or where it was damaged (and is now removed)."""
        folder = self.path(key)
        if not folder.is_dir():
            return None
        if self._intact(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def write(self, made_from: Mapping[str, Any], writer: Callable[[Path], None]) -> Path:
        """Let ``writer`` fill a fresh folder and put it in place in one step.

        Two processes may make the same artifact at once: the first to finish stays.
        """
        folder = self.path(self.key(made_from))
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
        try:
            writer(fresh)
            files = {path.name: file_digest(path) for path in sorted(fresh.iterdir())}
            (fresh / CARD).write_bytes(canonical_json({"made_from": dict(made_from), "files": files}))
            fresh.chmod(0o755)
            try:
                fresh.rename(folder)
            except OSError:
                if not self._intact(folder):
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return folder

    def artifacts(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Every artifact's folder with what made it."""
        for card in sorted(self.root.glob("??/*/" + CARD)):
            try:
                yield card.parent, json.loads(card.read_bytes())["made_from"]
            except (ValueError, KeyError):
                continue

    def half_written(self) -> list[Path]:
        """Folders that killed writers left; nobody ever reads them."""
        return sorted(self.root.glob("??/.making-*"))

    def remove(self, folder: Path) -> int:
        """Remove an artifact; returns the bytes that were freed."""
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
        return size

    @staticmethod
    def _intact(folder: Path) -> bool:
        try:
            files = json.loads((folder / CARD).read_bytes())["files"]
            present = {path.name for path in folder.iterdir()} - {CARD}
            return present == set(files) and all(file_digest(folder / name) == sha for name, sha in files.items())
        except (OSError, ValueError, KeyError, TypeError):
            return False
