"""Opening a stranger's zip without letting its list of files fill the memory."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

_END = struct.Struct("<4s8xLLH")
"""The last record of a zip: signature, size and start of the directory, length of the comment."""
_LOCATOR = struct.Struct("<4s4xQ4x")
"""Stands before it where the directory is described in 64 bits: signature, and where the description begins."""
_END_64 = struct.Struct("<4s36xQQ")
"""That description: signature, size and start of the directory."""
_MEMBER = b"PK\x01\x02"
_LONGEST = 256
"""Bytes of the directory that one file may take: 46, its name, and what sizes of 64 bits add."""


class _Directory(NamedTuple):
    start: int
    size: int


@contextmanager
def opened(path: Path, most: int) -> Iterator[zipfile.ZipFile]:
    """Open a zip that lists at most ``most`` files.

    ``ZipFile`` makes an object for each file that the directory lists, before it can be asked how many there are: ten
    bytes of memory for each byte that was sent. Here the directory is found and counted first.

    Raises:
        zipfile.BadZipFile: It lists more than that, or it is no zip.
    """
    with path.open("rb") as file:
        found = _directory(file)
        file.seek(found.start)
        if found.size > most * _LONGEST or file.read(found.size).count(_MEMBER) > most:
            raise zipfile.BadZipFile(f"it lists more than {most} files, or names too long for them")
        with zipfile.ZipFile(file) as archive:
            yield archive


def _directory(file: BinaryIO) -> _Directory:
    """Where the directory lies, by the same records that ``ZipFile`` reads, in the one place where they may stand."""
    length = file.seek(0, 2)
    signature, size, start, comment = _record(file, _END, length - _END.size)
    if signature != b"PK\x05\x06" or comment:
        raise zipfile.BadZipFile("it does not end where a zip without a comment ends")
    end = length - _END.size
    signature, described = _record(file, _LOCATOR, end - _LOCATOR.size)
    if signature == b"PK\x06\x07":
        end -= _LOCATOR.size + _END_64.size
        signature, size, start = _record(file, _END_64, end)
        if signature != b"PK\x06\x06" or described != end:
            raise zipfile.BadZipFile("its 64-bit records do not lie where they say")
    if start + size != end:
        raise zipfile.BadZipFile("its directory does not lie where it says")
    return _Directory(start, size)


def _record(file: BinaryIO, form: struct.Struct, place: int) -> tuple[Any, ...]:
    """A record of the file; of zeros where the file is too short for it."""
    if place < 0:
        return form.unpack(bytes(form.size))
    file.seek(place)
    return form.unpack(file.read(form.size))
