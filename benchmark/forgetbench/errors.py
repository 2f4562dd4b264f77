"""The two exceptions that a user sees; the command line turns them into a message and an exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class ForgetBenchError(Exception):
    """An operation failed for a reason that the message explains. Exit status 1."""


class UsageError(ForgetBenchError):
    """The call is wrong; the message says what is wrong and how to fix it. Exit status 2."""


def validation_message(error: ValidationError) -> str:
    """Join every field error of a pydantic validation into one line."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
