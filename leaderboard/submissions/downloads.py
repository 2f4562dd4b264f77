"""Zip files that the server offers: the evidence of an entry, and the public part of a board's reference bundle."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from forgetbench.evidence.reference import PACK, PUBLIC_FILES
from forgetbench.leaderboard.db.models import Board, Entry
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import reference

PUBLIC_ZIP = "public.zip"
"""File next to a bundle with its public part."""
_CHUNK = 2**20


def stream_evidence(settings: Settings, entry: Entry) -> Iterator[bytes]:
    """Stream the run of an entry as a zip, without a temporary file.

    Raises:
        Problem: 404, the entry is a reference row, whose evidence is secret.
    """
    if entry.tier == "reference":
        raise Problem(404, "The evidence of reference rows is not public.")
    folder = settings.evidence / entry.id
    return _stream_zip({path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()})


class _ZipBuffer:
    """Write-only file whose content is taken out piece by piece."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        """Append data."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing; ``ZipFile`` requires the method."""

    def close(self) -> None:
        """Do nothing; ``ZipFile`` requires the method."""

    def take(self) -> bytes:
        """Remove and return the data written since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _stream_zip(files: dict[str, Path]) -> Iterator[bytes]:
    buffer = _ZipBuffer()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            with files[name].open("rb") as source, archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield buffer.take()
    yield buffer.take()


def public_bundle(settings: Settings, board: Board) -> Path:
    """Zip with the public part of a board's bundle: manifest, originals and row numbers. Created once, then reused."""
    folder = reference.board_folder(settings, board)
    path = folder / PUBLIC_ZIP
    if not path.is_file():
        names = (PACK, *reference.load_bundle(settings, board).card.files)
        public = sorted(name for name in names if PUBLIC_FILES.fullmatch(name))
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".public-")
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in public:
                archive.write(folder / "pack" / name, name)
        Path(temporary).replace(path)
    return path
