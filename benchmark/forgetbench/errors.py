"""The two exceptions that a user sees; the command line turns them into a message and an exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError

_PATTERN_WORDS: dict[str, str] = {}
"""Regular expression of a field -> what it allows, in words."""


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
    """Return the message of one field error of pydantic, with words instead of a regular expression."""
    if item["type"] == "string_pattern_mismatch":
        words = _PATTERN_WORDS.get(item.get("ctx", {}).get("pattern", ""), "text of another form")
        return f"Input should be {words}"
    return str(item["msg"])


def validation_message(error: ValidationError) -> str:
    """Join every field error of a pydantic validation into one line."""
    items = error.errors()
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {field_message(item)}" for item in items)
