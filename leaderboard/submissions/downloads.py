"""Zip files that the server offers: the evidence of an entry, and the public part of a board's reference bundle."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from forgetbench.evidence.reference import PACK
from forgetbench.leaderboard.db.models import Board, Entry
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import reference
from forgetbench.store import canonical_json

_ZIP_NAMES = {"public": "offered.zip", "development": "development.zip"}
"""Kind of a bundle -> file with what is offered of it. Earlier versions wrote ``public.zip``, with hidden hashes."""
_CHUNK = 2**20


def stream_evidence(settings: Settings, entry: Entry) -> Iterator[bytes]:
    """Stream the run of an entry as a zip, without a temporary file.

    Raises:
        Problem: 404, the entry is a baseline, whose evidence is secret.
    """
    if entry.baseline:
        raise Problem(404, "The evidence of Retrain and No unlearning is not public.")
    folder = settings.evidence / entry.id
    if not folder.is_dir():
        folder = settings.verified / entry.id / "public"  # only the method was submitted
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


def public_bundle(settings: Settings, board: Board, kind: Literal["public", "development"] = "public") -> Path:
    """Zip with what is offered of a board: originals and row numbers, or its development bundle with oracles.

    Created once, then reused. Its manifest names no hidden file and no hash of one.

    Raises:
        Problem: 404, the board has no development bundle, because it is not sealed.
    """
    folder = reference.board_folder(settings, board)
    path = folder / _ZIP_NAMES[kind]
    if path.is_file():
        return path
    source = folder / ("pack" if kind == "public" else kind)
    if not source.is_dir():
        raise Problem(404, f"The board of {board.task} is not sealed and has no development bundle.")
    card = reference.load_folder(source).card.as_offered()
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".public-")
    with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(PACK, canonical_json(card.model_dump(mode="json")))
        for name in sorted(card.files):
            archive.write(source / name, name)
    Path(temporary).replace(path)
    return path
