"""What the server hands out as files: an entry's evidence, and the public part of a board's pack."""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from forgetbench.evidence.reference import PACK
from forgetbench.leaderboard.db.models import Board, Entry
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import reference as packs

PUBLIC = "public.zip"
_CHUNK = 2**20
_SHOWN = re.compile(r"pack\.json|(originals|models)/[\w.-]+|(rows|index|indices)-d\d+\.npz")
"""Files of a pack that leave the server: never labels, groups, or an oracle's evidence."""


def evidence(settings: Settings, entry: Entry) -> Iterator[bytes]:
    """An entry's run as a zip, made while it is sent: nothing of it is written down.

    Raises:
        Problem: 404, the entry is a reference row: an oracle's evidence stays here.
    """
    if entry.tier == "reference":
        raise Problem(404, "The evidence of reference rows stays on the server.")
    folder = settings.evidence / entry.id
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return _streamed(paths)


class _Outlet:
    """A file that is written forwards only, and gives what was written since it was last asked."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        """Keep data until it is taken."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """It stays, for what is left to be taken."""

    def taken(self) -> bytes:
        """What was written since the last time."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _streamed(files: dict[str, Path]) -> Iterator[bytes]:
    outlet = _Outlet()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            with files[name].open("rb") as source, archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield outlet.taken()
    yield outlet.taken()


def public_pack(settings: Settings, board: Board) -> Path:
    """The part of a board's pack that a submitter needs: its card, originals and row numbers, as a zip that is kept."""
    folder = packs.folder(settings, board)
    path = folder / PUBLIC
    if not path.is_file():
        names = [name for name in (PACK, *packs.pack_of(settings, board).card.files) if _SHOWN.fullmatch(name)]
        handle, fresh = tempfile.mkstemp(dir=folder, prefix=".public-")
        os.close(handle)
        _zip(Path(fresh), {name: folder / "pack" / name for name in names})
        Path(fresh).replace(path)
    return path


def _zip(target: Path, files: dict[str, Path]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.write(files[name], name)
