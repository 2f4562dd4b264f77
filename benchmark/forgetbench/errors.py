"""The two errors that a user sees, and what the command line makes of them."""

from __future__ import annotations


class ForgetBenchError(Exception):
    """Something went wrong that the message explains; the command line exits with 1."""


class UsageError(ForgetBenchError):
    """The call was wrong: the message says what, and how to mend it; the command line exits with 2."""
