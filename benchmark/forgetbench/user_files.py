"""Files that users wrote: TOML in any common encoding, Python, and what a file contains instead of what it should."""

from __future__ import annotations

import ast
import codecs
import re
import shlex
import threading
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from forgetbench.errors import UsageError

BOMS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16"} | {
    codecs.BOM_UTF16_BE: "UTF-16"
}
"""Byte order mark -> encoding; the longer marks first, since one of UTF-32 begins with one of UTF-16."""
_PARSING = threading.Lock()


def parse_python(source: str | bytes, filename: str = "<unknown>") -> ast.Module:
    """The syntax tree of a Python source, one thread at a time.

    Threads of a process share CPython's depth count of `ast.parse`: where the garbage collector lets another thread run
    in the middle of it, it raises `SystemError` (https://github.com/python/cpython/issues/106905).

    Raises:
        SyntaxError: The source is not valid Python.
        ValueError: It contains a null byte.
    """
    with _PARSING:
        return ast.parse(source, filename=filename)


def user_path(text: str) -> Path:
    """Return the path that a user wrote, with ``~`` replaced by the home folder.

    Raises:
        UsageError: There is no such home folder, or the text cannot be a path.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{text}: no home folder is known for {text.partition('/')[0]}. Write the whole path."
        ) from error
    if "\0" in text:
        raise UsageError(f"{text!r} cannot be a path: it contains a null character. Correct it.")
    return path


def without_paths(command: str) -> str:
    """A command line in which absolute paths, which name people and machines, are shortened to the last part.

    A line that no shell can read becomes "".
    """
    try:
        return shlex.join(_LOCAL_PATH.sub("", word) for word in shlex.split(command))
    except ValueError:
        return ""


_LOCAL_PATH = re.compile(r"(?:(?<=^)|(?<==))(?:[A-Za-z]:[\\/]|[\\/]|~)(?:[^:=]*[\\/])?")
"""All but the last part of an absolute path, at the beginning of a word or of an option's value."""


def is_file(path: Path) -> bool:
    """Check whether a path is a file; False for names that the file system refuses, such as very long ones."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file in UTF-8, with or without a byte order mark.

    Raises:
        UsageError: The file cannot be read, is in another encoding, or is not TOML; the message names it.
    """
    try:
        return tomllib.loads(read_text(path).replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        other = describe_content(path.read_bytes())
        fix = f"It is {other}." if other else "Correct it there; https://toml.io describes the format."
        raise UsageError(f"{path} is not valid TOML: {error}. {fix}") from error
    except (RecursionError, ValueError) as error:  # nested too deep; a number or date that Python refuses
        raise UsageError(f"{path} is not valid TOML: it contains a value that cannot be read. Correct it.") from error


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        UsageError: The file cannot be read, or is in another encoding; the message names it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Correct the path, or its permissions.") from error
    if encoding := next((name for mark, name in BOMS.items() if content.startswith(mark)), ""):
        raise UsageError(f"{path} is in {encoding}. Save the file as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = describe_content(content)
        reason = f"is {found}" if found else f"is not text in UTF-8 (line {line})"
        raise UsageError(f"{path} {reason}. Save the file as UTF-8.") from error


def describe_file(path: Path) -> str:
    """Say what a file is, as `describe_content` does; recognizes files of arrays and of weights.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        content = stream.read(1024)
        size = stream.seek(0, 2)
    length = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and length < size:
        return "a file of safetensors"
    if not content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return describe_content(content)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a damaged zip archive: copy it from its source again"
    last = {name.rpartition("/")[2] for name in names}
    kinds = {
        "a TorchScript archive, which contains code": "constants.pkl" in last,
        "a torch archive (torch.save)": "data.pkl" in last,
        "an empty zip archive": not names,
        "an archive of numpy arrays (.npz)": all(name.endswith(".npy") for name in names),
    }
    return next((kind for kind, holds in kinds.items() if holds), "a zip archive: unpack it")


def describe_content(content: bytes) -> str:
    """Say what a file is by its first bytes, for messages about files that are not what they should be.

    Args:
        content: The file, or at least its first kilobyte.

    Returns:
        A noun phrase with the way on, such as "a Git LFS pointer, not the file itself: run `git lfs pull`"; empty if
        nothing is recognized.
    """
    if not content:
        return "an empty file: copy it from its source again"
    if not content.strip(b"\0"):
        return "a file of zeros, as an interrupted download leaves: copy it from its source again"
    text = content[:1024].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    texts = (what for start, what in _TEXTS.items() if text.startswith(start))
    return next(texts, "") or next((what for start, what in _STARTS.items() if content.startswith(start)), "")


_PAGE = "a web page (HTML), not the file itself: download it again, logged in where that is needed"
_TEXTS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"<!doctype html": _PAGE,
    b"<html": _PAGE,
    b"<?xml": "an XML file",
    b"<svg": "an SVG file",
}
"""Start of a text, in lower case -> what the file is."""
_STARTS = {
    b"PK\x03\x04": "a zip archive (.npz and torch.save also write zip archives)",
    b"PK\x05\x06": "an empty zip archive",
    b"\x93NUMPY": "an array of numpy (.npy)",
    b"\x89HDF": "an HDF5 file",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x1f\x8b": "a file compressed by gzip: decompress it",
    b"\xfd7zXZ": "a file compressed by xz: decompress it",
    b"BZh": "a file compressed by bzip2: decompress it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"%PDF": "a PDF file",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"GIF8": "a GIF image",
}
"""First bytes -> what the file is."""
