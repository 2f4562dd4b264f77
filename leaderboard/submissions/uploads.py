"""From the body of a request to a run's folder on disk, with limits that hold while it streams in.

The body is a zip, stored without compression, of ``manifest.json`` and one evidence file for each model (and, below
``originals/``, for each original that a method trained for itself): the run's folder and nothing else. Only names of
that form are ever used as paths, and nothing in the zip is executed or unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import struct
import zipfile
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.run import MANIFEST, AnswersRecord, Manifest, Run
from forgetbench.leaderboard.errors import FieldError, Problem
from forgetbench.store import canonical_json

MEDIA_TYPE = "application/zip"
_MEMBER = re.compile(r"manifest\.json|(originals/)?d\d{1,4}-s\d{1,4}\.npz")
_CHUNK = 2**20
_ENCRYPTED = 1
"""The flag of an encrypted member."""
_SMALLEST_RECORD = 128
"""Bytes of a manifest that the record of one file takes at least."""
_MOST_FAULTS = 100
"""So many faults of a zip are told."""
_NPY_HEADER = 4096
"""More than any header of a float16 array takes."""


class Body(NamedTuple):
    """A body that was received whole."""

    path: Path
    """The file that holds it."""
    sha256: str
    """Its hash."""
    size: int
    """Its length in bytes."""


async def receive(stream: AsyncIterator[bytes], path: Path, limit: int, announced: int | None) -> Body:
    """Write a body to a file as it comes in.

    Args:
        stream: The body.
        path: File to write.
        limit: Largest length that is accepted, in bytes.
        announced: The length that the client announced, where it did.

    Raises:
        Problem: 413, too large; 400, it ended early.
    """
    too_large = Problem(
        413, f"A submission may have at most {limit} bytes on this server.", headers={"Connection": "close"}
    )
    if announced is not None and announced > limit:
        raise too_large
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("xb") as file:
            async for chunk in stream:
                size += len(chunk)
                if size > limit:
                    raise too_large
                digest.update(chunk)
                file.write(chunk)
    except ClientDisconnect as error:
        raise Problem(400, "The upload ended early; nothing was stored. Submit again.") from error
    if announced is not None and size != announced:
        raise Problem(400, f"The upload ended after {size} of {announced} bytes; nothing was stored. Submit again.")
    return Body(path, digest.hexdigest(), size)


@dataclass(frozen=True, eq=False)
class Received(Run):
    """A run that was unpacked, as far as it could be."""

    faults: tuple[FieldError, ...] = ()
    """What is wrong with the zip; files of which that is said are not in the folder."""


def unpack(body: Body, folder: Path, manifest_limit: int) -> Received:
    """Unpack a body into a run's folder, its manifest validated first; files that cannot be are told in ``faults``.

    Raises:
        Problem: 400, it is no such zip; 422, there is no manifest that could be read.
    """
    try:
        with opened(body.path, 1 + manifest_limit // _SMALLEST_RECORD) as archive:
            members, faults = _members(archive)
            manifest = _manifest(archive, members, manifest_limit, faults)
            faults += _compare_files(manifest, set(members) - {MANIFEST})
            faulty = {fault.field for fault in faults}
            good = {name: member for name, member in members.items() if name not in faulty}
            _extract(archive, good, folder, body.size)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Problem(
            400, f"The body is not a complete zip of a run ({error}); nothing was stored. Use `forgetbench submit`."
        ) from error
    return Received(folder, manifest, tuple(faults[:_MOST_FAULTS]))


def _extract(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path, limit: int) -> None:
    if sum(member.file_size for member in members.values()) > limit:
        raise zipfile.BadZipFile("its files are longer than it is")
    folder.mkdir(parents=True)
    for name, member in members.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with archive.open(member) as source, (folder / name).open("xb") as target:
            shutil.copyfileobj(source, target, _CHUNK)


def _members(archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], list[FieldError]]:
    """The zip's files that may belong to a run, and what is wrong with these and with others."""
    members: dict[str, zipfile.ZipInfo] = {}
    faults = []
    for member in archive.infolist():
        name = member.filename
        if not _MEMBER.fullmatch(name):
            faults.append(FieldError(field=repr(name)[:200], message="belongs to no run: leave it out"))
            continue
        if name in members:
            faults.append(FieldError(field=name, message="stands in the zip twice"))
        elif member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            message = "must be stored as it is, without compression and encryption"
            faults.append(FieldError(field=name, message=message))
        members.setdefault(name, member)
    return members, faults


def _manifest(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], limit: int, faults: list[FieldError]
) -> Manifest:
    member = members.get(MANIFEST)
    if member is None:
        missing = FieldError(field=MANIFEST, message="is missing")
        raise Problem(422, "The submission has no manifest.", [missing, *faults[:_MOST_FAULTS]])
    if member.file_size > limit:
        raise Problem(413, f"A manifest may have at most {limit} bytes.")
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
        raise Problem(422, "The manifest cannot be read.", faults[:_MOST_FAULTS])
    try:
        return parse_manifest(archive.read(member))
    except Problem as problem:
        raise Problem(problem.status, problem.detail, [*faults[:_MOST_FAULTS], *problem.errors]) from problem


def parse_manifest(data: bytes) -> Manifest:
    """A manifest from JSON that a stranger wrote.

    Raises:
        Problem: 422, with every field that is wrong.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        fields = [FieldError(field=_place(item["loc"]), message=item["msg"]) for item in error.errors()[:100]]
        raise Problem(422, "The manifest does not follow the schema.", fields) from error
    content = manifest.model_dump(mode="json")
    errors = [
        FieldError(field=field, message="holds a NUL character or half a surrogate pair")
        for field, text in _texts(content)
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text)
    ]
    try:
        canonical_json(content)
    except (ValueError, RecursionError):
        errors.append(FieldError(field="manifest", message="holds a number that is not finite, or too long"))
    try:
        datetime.fromisoformat(manifest.created)
    except ValueError:
        errors.append(FieldError(field="created", message="is not a time in ISO 8601"))
    if len({record.file for record in manifest.evidence}) != len(manifest.evidence):
        errors.append(FieldError(field="models", message="name a file twice"))
    if errors:
        raise Problem(422, "The manifest holds values that cannot be kept.", errors)
    return manifest


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{place}.{key!r}", str(key)
            yield from _texts(item, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{place}.{index}")


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))[:200] or "manifest"


def _compare_files(manifest: Manifest, given: set[str]) -> list[FieldError]:
    named = {record.file for record in manifest.evidence}
    errors = [FieldError(field=name, message="is named in the manifest and missing") for name in sorted(named - given)]
    errors += [FieldError(field=name, message="is not named in the manifest") for name in sorted(given - named)]
    return errors


def check_headers(run: Run, unread: Collection[str] = ()) -> list[FieldError]:
    """What is wrong with the evidence files before an array of them is unpacked.

    A file announces its shapes twice, in the zip's directory and in each array's header; both must be what the manifest
    says, so that no file can claim a gigabyte or an object array.

    Args:
        run: The run.
        unread: Files that are left out: what is wrong with them is known.
    """
    errors = []
    for model in run.manifest.evidence:
        if model.file in unread:
            continue
        try:
            _check_file(run.folder / model.file, model)
        except (
            ForgetBenchError,
            zipfile.BadZipFile,
            ValueError,
            EOFError,
            OSError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            errors.append(FieldError(field=model.file, message=str(error)[:300]))
    return errors


def _check_file(path: Path, model: AnswersRecord) -> None:
    with opened(path, len(model.arrays)) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()) or set(members) != {f"{name}.npy" for name in model.arrays}:
            raise ForgetBenchError("does not hold exactly the arrays that the manifest names")
        for name, record in model.arrays.items():
            member = members[f"{name}.npy"]
            if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ForgetBenchError(f"{name} is compressed otherwise than numpy does it")
            rows, columns = record.shape
            if rows < 0 or columns < 1 or not rows * columns * 2 < member.file_size <= rows * columns * 2 + _NPY_HEADER:
                raise ForgetBenchError(f"{name} has not the size of {rows} x {columns} float16")
            with archive.open(member) as stream:
                _check_header(stream, name, (rows, columns))


def _check_header(stream: IO[bytes], name: str, shape: tuple[int, int]) -> None:
    start = io.BytesIO(stream.read(_NPY_HEADER))
    version = np.lib.format.read_magic(start)
    if version != (1, 0):
        raise ForgetBenchError(f"{name} is no array of the plain .npy format 1.0")
    found, fortran, dtype = np.lib.format.read_array_header_1_0(start)
    if tuple(found) != shape or fortran or dtype != np.dtype("<f2"):
        raise ForgetBenchError(f"{name} is {dtype} {found}, expected float16 {shape} in C order")


def answers_digest(model: AnswersRecord) -> str:
    """Hash of what a model answered, from the hashes of its arrays: the same however the file is packed."""
    named = sorted((name, record.sha256) for name, record in model.arrays.items())
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def make_durable(folder: Path) -> None:
    """Force a folder's files, and its folders, to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_END = struct.Struct("<4s8xLLH")
"""The last record of a zip: signature, size and start of the directory, length of the comment."""
_LOCATOR = struct.Struct("<4s4xQ4x")
"""Stands before it where the directory is described in 64 bits: signature, and where the description begins."""
_END_64 = struct.Struct("<4s36xQQ")
"""That description: signature, size and start of the directory."""
_CENTRAL_HEADER = b"PK\x01\x02"
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
        if found.size > most * _LONGEST or file.read(found.size).count(_CENTRAL_HEADER) > most:
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
