"""The two exceptions that a user sees, which the command line turns into a message and an exit status; safe texts."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError

_PATTERN_WORDS: dict[str, str] = {}
"""Regular expression of a field -> what it allows, in words."""

_TYPE_WORDS = {
    "bool_parsing": "true or false",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "date_from_datetime_parsing": "a date such as 2026-11-30",
    "model_attributes_type": "a JSON object, sent as application/json",
}
"""Type of a field error of pydantic -> what the field allows, in words."""

LONGEST_MESSAGE = 2000
"""Characters of an error's message that are shown and recorded."""


class ForgetBenchError(Exception):
    """An operation failed for a reason that the message explains. Exit status 1."""


class UsageError(ForgetBenchError):
    """The call is wrong; the message says what is wrong and how to fix it. Exit status 2."""


def described_pattern(expression: str, words: str) -> str:
    """Declare in words what the regular expression of a field allows: messages show the words.

    Args:
        expression: The regular expression.
        words: What it allows, such as "64 hexadecimal digits".

    Returns:
        The regular expression.
    """
    _PATTERN_WORDS[expression] = words
    return expression


def field_message(item: Mapping[str, Any]) -> str:
    """Return the message of one field error of pydantic, with words instead of a regular expression, and a fix."""
    if item["type"] == "string_pattern_mismatch":
        words = _PATTERN_WORDS.get(item.get("ctx", {}).get("pattern", ""), "text of another form")
        return f"Input should be {words}"
    if item["type"] in _TYPE_WORDS:
        return f"Input should be {_TYPE_WORDS[item['type']]}"
    if item["type"] == "too_short" and item["ctx"]["min_length"] == 1:
        return "Input should not be empty"
    fixes = {"missing": ": add it", "extra_forbidden": ": remove it"}
    return f"{str(item['msg']).removeprefix('Value error, ')}{fixes.get(item['type'], '')}"


def validation_message(error: ValidationError) -> str:
    """Join every field error of a pydantic validation into one line."""
    items = error.errors()
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {field_message(item)}" for item in items)


def printable(text: str) -> str:
    """A text of unknown origin, safe to print: control characters, terminal escapes and lone surrogates spelled out.

    Line breaks, tabs and spaces of any width stay. Every output and record that contains such a text uses this.
    """
    return "".join(sign if is_printable(sign) else sign.encode("unicode_escape").decode("ascii") for sign in text)


def printable_json(text: str) -> str:
    """JSON whose texts are of unknown origin, safe to print: the same JSON, with such characters as JSON escapes."""
    return "".join(sign if is_printable(sign) else json.dumps(sign)[1:-1] for sign in text)


def is_printable(sign: str) -> bool:
    """Whether a character changes nothing but the text in a terminal: no control, formatting or lone surrogate."""
    return sign in "\n\t" or sign.isprintable() or unicodedata.category(sign) == "Zs"


def describe_error(error: BaseException) -> str:
    """An error of code that is not ours, as one printable text: its type and its message, shortened if very long."""
    if isinstance(error, SystemExit):
        code = "" if error.code is None else printable(repr(error.code))
        return f"SystemExit: the code called sys.exit({code}). Return or raise an error instead of ending the program"
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 - a message that cannot be made must not hide the error
        message = f"(its message cannot be shown: {type(broken).__name__})"
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]} …"
    return printable(f"{type(error).__name__}: {message}" if message else type(error).__name__)


def os_error_message(error: OSError) -> str:
    """What an error of the file system means, and what to do, in one printable line."""
    place = f"{printable(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
    reason = printable(error.strerror or "") or describe_error(error)
    advice = getattr(error, "advice", "") or _OS_ADVICE.get(error.errno or 0, _OTHER_ADVICE)
    return f"{place}{reason}. {advice}"


_OTHER_ADVICE = "Give another path, or set FORGETBENCH_HOME to another folder."
_DISK_ADVICE = (
    "Free some space, or set FORGETBENCH_HOME to a folder on another disk. Finished work is kept; the same command "
    "resumes."
)
_OS_ADVICE = {
    errno.ENOSPC: _DISK_ADVICE,
    errno.EDQUOT: _DISK_ADVICE,
    errno.EACCES: "Change its permissions, give another path, or set FORGETBENCH_HOME to another folder.",
    errno.EPERM: "Change its permissions, give another path, or set FORGETBENCH_HOME to another folder.",
    errno.EROFS: "It cannot be written: give another path, or set FORGETBENCH_HOME to another folder.",
    errno.EEXIST: "A file is where a folder is needed: move it, or set FORGETBENCH_HOME to another folder.",
    errno.ENOTDIR: "A file is where a folder is needed: move it, or set FORGETBENCH_HOME to another folder.",
    errno.EISDIR: "Give the path of a file.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), or use fewer --workers.",
}
"""Number of an error -> what to do."""
