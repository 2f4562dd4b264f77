"""From an uploaded zip to a checked run folder; independent of the web framework, so that clients run the same checks.

The zip is stored without compression and holds ``manifest.json`` and one evidence file per model (and, in
``originals/``, one per original that a method trained itself): the files of a run folder and nothing else. Only member
names of that form are used as paths, and nothing in the zip is executed or unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import struct
import unicodedata
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from pydantic import ValidationError

from forgetbench.errors import ForgetBenchError, field_message
from forgetbench.evidence.arrays import RECALIBRATED
from forgetbench.evidence.attacks import AttackedModelRecord
from forgetbench.evidence.run import MANIFEST, AnswersRecord, Manifest, ModelRecord, OriginalRecord, Run
from forgetbench.leaderboard.errors import FULL_ERRNOS, FieldError, Problem
from forgetbench.store import canonical_json

MEDIA_TYPE = "application/zip"
_MEMBER = re.compile(r"manifest\.json|(originals/)?d\d{1,4}-s\d{1,4}\.npz")
_CHUNK = 2**20
_ENCRYPTED = 1
"""Flag bit of an encrypted zip member."""
_MIN_RECORD_BYTES = 128
"""Least bytes that one evidence file takes in a manifest: the limit of a manifest's size also limits its files."""
_MAX_ERRORS = 100
"""Errors of one zip that are reported."""
_NPY_HEADER = 4096
"""Upper bound of the header of any array, in bytes."""
_FLOAT_HEADER = 256
"""Upper bound of the header of a float16 array, which numpy pads to a multiple of 64 bytes."""


class UploadedBody(NamedTuple):
    """Body of an upload, on disk."""

    path: Path
    """File with the body."""
    sha256: str
    """Hash of the body."""
    size: int
    """Length in bytes."""


@dataclass(frozen=True, eq=False)
class UnpackedRun(Run):
    """Run folder from a zip; files with errors are missing in it."""

    errors: tuple[FieldError, ...] = ()
    """Errors of the zip and its members."""


def unpack(body: UploadedBody, folder: Path, manifest_limit: int) -> UnpackedRun:
    """Unpack an uploaded zip into a run folder, after validating its manifest.

    Args:
        body: The upload.
        folder: Folder to create.
        manifest_limit: Largest manifest, in bytes.

    Raises:
        Problem: 400, the body is not a zip of a run; 413, the manifest is too large; 422, the manifest is missing or
            invalid. Errors of other files are returned in ``errors``.
    """
    try:
        with open_zip(body.path, 1 + manifest_limit // _MIN_RECORD_BYTES) as archive:
            members, errors = _check_members(archive)
            manifest = _read_manifest(archive, members, manifest_limit, errors)
            errors += _compare_files(manifest, set(members) - {MANIFEST})
            invalid = {error.field for error in errors}
            valid = {name: member for name, member in members.items() if name not in invalid}
            _extract(archive, valid, folder, body.size)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
            raise  # not the submitter's fault
        raise Problem(
            400, f"The body is not a complete zip of a run ({error}); nothing was stored. Use `forgetbench submit`."
        ) from error
    return UnpackedRun(folder, manifest, tuple(errors[:_MAX_ERRORS]))


def unpack_files(body: UploadedBody, folder: Path, pattern: re.Pattern[str], max_files: int) -> list[FieldError]:
    """Unpack an uploaded zip whose member names have a form; returns the errors of members, which are left out.

    Args:
        body: The upload.
        folder: Folder to create.
        pattern: Form of the whole name of a member; it must not let names lead out of the folder.
        max_files: Most members.

    Raises:
        Problem: 400, the body is not a zip of that kind.
    """
    try:
        with open_zip(body.path, max_files) as archive:
            members, errors = _check_members(archive, pattern)
            invalid = {error.field for error in errors}
            _extract(archive, {name: one for name, one in members.items() if name not in invalid}, folder, body.size)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
            raise  # not the submitter's fault
        raise Problem(400, f"The body is not a complete zip ({error}); nothing was stored.") from error
    return errors[:_MAX_ERRORS]


def _extract(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path, limit: int) -> None:
    if sum(member.file_size for member in members.values()) > limit:
        raise zipfile.BadZipFile("its files are longer than the zip")
    folder.mkdir(parents=True)
    for name, member in members.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with archive.open(member) as source, (folder / name).open("xb") as target:
            shutil.copyfileobj(source, target, _CHUNK)


def _check_members(
    archive: zipfile.ZipFile, pattern: re.Pattern[str] = _MEMBER
) -> tuple[dict[str, zipfile.ZipInfo], list[FieldError]]:
    """Members that may belong to a run, and the errors of all members."""
    members: dict[str, zipfile.ZipInfo] = {}
    errors = []
    for member in archive.infolist():
        name = member.filename
        if not pattern.fullmatch(name):
            errors.append(FieldError(field=repr(name)[:200], message="is not a file of a run: remove it"))
            continue
        if name in members:
            errors.append(FieldError(field=name, message="is in the zip twice"))
        elif member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            errors.append(FieldError(field=name, message="must be stored without compression and encryption"))
        members.setdefault(name, member)
    return members, errors


def _read_manifest(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], limit: int, errors: list[FieldError]
) -> Manifest:
    member = members.get(MANIFEST)
    if member is None:
        missing = FieldError(field=MANIFEST, message="is missing")
        raise Problem(422, "The submission has no manifest.", [missing, *errors[:_MAX_ERRORS]])
    if member.file_size > limit:
        raise Problem(413, f"A manifest may have at most {limit} bytes.")
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
        raise Problem(422, "The manifest cannot be read.", errors[:_MAX_ERRORS])
    try:
        return parse_manifest(archive.read(member))
    except Problem as problem:
        raise Problem(problem.status, problem.detail, [*errors[:_MAX_ERRORS], *problem.errors]) from problem


def parse_manifest(data: bytes) -> Manifest:
    """Parse and validate an untrusted manifest.

    Raises:
        Problem: 422, with every invalid field.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        items = error.errors()[:100]
        fields = [FieldError(field=_join_location(item["loc"]), message=field_message(item)) for item in items]
        raise Problem(422, "The manifest does not follow the schema.", fields) from error
    content = manifest.model_dump(mode="json")
    errors = text_errors(content)
    try:
        canonical_json(content)
    except (ValueError, RecursionError):
        errors.append(FieldError(field="manifest", message="contains a number that is not finite, or too long"))
    try:
        datetime.fromisoformat(manifest.created)
    except ValueError:
        errors.append(FieldError(field="created", message="is not a time in ISO 8601"))
    if len({record.file for record in manifest.evidence}) != len(manifest.evidence):
        errors.append(FieldError(field="models", message="name a file twice"))
    if errors:
        raise Problem(422, "The manifest has values that cannot be stored.", errors)
    return manifest


MAX_MARKS = 2
"""Combining marks in a row after composition; scripts of living languages need no more."""
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def text_errors(value: object) -> list[FieldError]:
    """Characters in the texts of a JSON value that deceive readers or their terminals, one error for each text.

    In source code, which may contain any string, only control characters and changes of direction are refused.
    """
    found = ((field, deceptive_characters(text, code=field.endswith("source"))) for field, text in iter_texts(value))
    return [FieldError(field=field, message=f"contains {what}: remove it") for field, what in found if what]


def deceptive_characters(text: str, *, code: bool = False) -> str:
    """What in a text deceives its readers or their terminals; "" if nothing does.

    Args:
        text: The text.
        code: Whether it is source code, in which invisible characters may be part of a string.
    """
    for sign in text:
        if sign.isascii() and sign.isprintable():
            continue
        category = unicodedata.category(sign)
        if category in {"Cc", "Cs"} and sign not in "\n\r\t\f":
            return "a control character, such as NUL or a terminal escape, or half a surrogate pair"
        if sign in _BIDIRECTIONAL:
            return f"U+{ord(sign):04X}, which changes the direction of text"
        if category in {"Cf", "Zl", "Zp"} and not code:
            return f"U+{ord(sign):04X}, which is invisible"
    return "" if code or text.isascii() else _stacked_marks(text)


def _stacked_marks(text: str) -> str:
    marks = 0
    for sign in unicodedata.normalize("NFC", text):
        marks = marks + 1 if unicodedata.category(sign) in {"Mn", "Me"} else 0
        if marks > MAX_MARKS:
            return f"more than {MAX_MARKS} combining marks on one letter"
    return ""


def iter_texts(value: object, location: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a JSON value, keys included, with its location."""
    if isinstance(value, str):
        yield location, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{location}.{key!a}"[:200].lstrip("."), str(key)
            yield from iter_texts(item, f"{location}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from iter_texts(item, f"{location}.{index}")


def _join_location(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))[:200] or "manifest"


def _compare_files(manifest: Manifest, members: set[str]) -> list[FieldError]:
    named = {record.file for record in manifest.evidence}
    missing, unknown = sorted(named - members), sorted(members - named)
    errors = [FieldError(field=name, message="is named in the manifest but missing") for name in missing]
    return errors + [FieldError(field=name, message="is not named in the manifest") for name in unknown]


def check_headers(run: Run, skip: Collection[str] = ()) -> list[FieldError]:
    """Check the evidence files before any array is unpacked.

    A file declares its shapes twice, in the zip's directory and in the header of each array. Both must agree with the
    manifest, so that no file can claim a gigabyte or an object array.

    Args:
        run: The run.
        skip: Files that are not checked, because their errors are known.
    """
    return check_files(run.folder, [model for model in run.manifest.evidence if model.file not in skip])


def check_files(folder: Path, models: Iterable[ModelRecord | OriginalRecord | AttackedModelRecord]) -> list[FieldError]:
    """`check_headers` of some evidence files in a folder."""
    errors = []
    for model in models:
        try:
            _check_evidence_file(folder / model.file, model)
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


def _check_evidence_file(path: Path, model: AnswersRecord) -> None:
    with open_zip(path, len(model.arrays)) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()) or set(members) != {f"{name}.npy" for name in model.arrays}:
            raise ForgetBenchError("does not contain exactly the arrays that the manifest names")
        for name, record in model.arrays.items():
            member = members[f"{name}.npy"]
            if member.compress_type != zipfile.ZIP_STORED:
                raise ForgetBenchError(f"{name} is compressed; write the arrays with numpy.savez")
            rows, columns = record.shape
            size = rows * columns * 2
            if rows < 0 or columns < 1 or not size < member.file_size <= size + _NPY_HEADER:
                raise ForgetBenchError(f"{name} does not have the size of {rows} x {columns} float16")
            with archive.open(member) as stream:
                header = _check_array_header(stream, name, (rows, columns))
            if header > _FLOAT_HEADER or header + size != member.file_size:
                rest = member.file_size - size - 128
                raise ForgetBenchError(f"{name} has {rest} bytes next to its header and values")


def _check_array_header(stream: IO[bytes], name: str, expected: tuple[int, int]) -> int:
    """Check the header of an array; returns its length."""
    start = io.BytesIO(stream.read(_NPY_HEADER))
    if np.lib.format.read_magic(start) != (1, 0):
        raise ForgetBenchError(f"{name} is not an array in the .npy format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(start)
    if tuple(shape) != expected or fortran or dtype != np.dtype("<f2"):
        raise ForgetBenchError(f"{name} is {dtype} {shape}, expected float16 {expected} in C order")
    return start.tell()


def logits_digest(model: AnswersRecord) -> str:
    """Hash of a model's logits, from the hashes of its arrays: independent of how the file is compressed.

    The answers after recalibration are left out: a model is the same whether they were recorded or not.
    """
    named = sorted((name, record.sha256) for name, record in model.arrays.items() if not name.startswith(RECALIBRATED))
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush a folder and all files and folders in it to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_END = struct.Struct("<4s8xLLH")
"""Last record of a zip: signature, size and start of the directory, length of the comment."""
_LOCATOR = struct.Struct("<4s4xQ4x")
"""Record before it in 64-bit zips: signature, and start of the 64-bit end record."""
_END_64 = struct.Struct("<4s36xQQ")
"""64-bit end record: signature, size and start of the directory."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Header before a member: signature, length of the name, and of additional fields."""
_MAX_EXTRA = 64
"""Most bytes of additional fields: 64-bit sizes, and the times that zip programs write."""
_STREAMED = 8
"""Flag bit of a member that is followed by a record of its sizes."""
_CENTRAL_HEADER = b"PK\x01\x02"
_MAX_ENTRY_BYTES = 256
"""Upper bound of one file's entry in the directory: 46 bytes, its name, and its 64-bit sizes."""


class _Directory(NamedTuple):
    start: int
    size: int


@contextmanager
def open_zip(path: Path, max_files: int) -> Iterator[zipfile.ZipFile]:
    """Open a zip that lists at most ``max_files`` files.

    ``ZipFile`` creates an object for each file of the directory before their number is known: ten bytes of memory for
    each byte that was uploaded. This function finds the directory and counts its entries first.

    Raises:
        zipfile.BadZipFile: The zip lists more files, or is invalid.
    """
    with path.open("rb") as file:
        directory = _find_directory(file)
        file.seek(directory.start)
        too_large = directory.size > max_files * _MAX_ENTRY_BYTES
        if too_large or file.read(directory.size).count(_CENTRAL_HEADER) > max_files:
            raise zipfile.BadZipFile(f"it lists more than {max_files} files, or names that are too long")
        with zipfile.ZipFile(file) as archive:
            _check_gaps(file, archive.infolist(), directory)
            yield archive


def _check_gaps(file: BinaryIO, members: Sequence[zipfile.ZipInfo], directory: _Directory) -> None:
    """Refuse a zip that has bytes outside its members and their headers, where data would be stored unseen.

    Members must follow each other from the first byte to the directory, without gap or overlap.

    Raises:
        zipfile.BadZipFile: It has such bytes.
    """
    end = 0
    for member in sorted(members, key=lambda each: each.header_offset):
        if member.comment or len(member.extra) > _MAX_EXTRA:
            raise zipfile.BadZipFile("its directory contains more than names and sizes")
        _check_no_gap(end, member.header_offset)
        signature, name, extra = _read_record(file, _LOCAL_HEADER, member.header_offset)
        if signature != b"PK\x03\x04" or extra > _MAX_EXTRA:
            raise zipfile.BadZipFile("the header of a file in it contains more than name and sizes")
        end = member.header_offset + _LOCAL_HEADER.size + name + extra + member.compress_size
        if member.flag_bits & _STREAMED:
            end += _descriptor_size(file, end)
    _check_no_gap(end, directory.start)


def _check_no_gap(end: int, start: int) -> None:
    if end != start:
        what = f"{start - end} bytes outside its files" if start > end else "files that overlap"
        raise zipfile.BadZipFile(f"it has {what}")


def _descriptor_size(file: BinaryIO, offset: int) -> int:
    """Length of the record after a member whose size was not known when its header was written."""
    file.seek(offset)
    start = file.read(24 + 4)
    lengths = (24, 16) if start.startswith(b"PK\x07\x08") else (20, 12)
    return next((length for length in lengths if start[length : length + 2] == b"PK"), 0)


def _find_directory(file: BinaryIO) -> _Directory:
    """Locate the directory by the same records as ``ZipFile``, which must be at the very end of the file."""
    length = file.seek(0, 2)
    signature, size, start, comment = _read_record(file, _END, length - _END.size)
    if signature != b"PK\x05\x06" or comment:
        raise zipfile.BadZipFile("it does not end like a zip without a comment" if length else "it is empty")
    end = length - _END.size
    signature, start_64 = _read_record(file, _LOCATOR, end - _LOCATOR.size)
    if signature == b"PK\x06\x07":
        end -= _LOCATOR.size + _END_64.size
        signature, size, start = _read_record(file, _END_64, end)
        if signature != b"PK\x06\x06" or start_64 != end:
            raise zipfile.BadZipFile("its 64-bit end record is not where its locator says")
    if start + size != end:
        raise zipfile.BadZipFile("its directory is not where its end record says")
    return _Directory(start, size)


def _read_record(file: BinaryIO, form: struct.Struct, offset: int) -> tuple[Any, ...]:
    """A record of the file; zeros if the file is too short."""
    if offset < 0:
        return form.unpack(bytes(form.size))
    file.seek(offset)
    return form.unpack(file.read(form.size))
