"""Builders and helpers that several tests share."""

from __future__ import annotations

import os

import pytest


def skip(reason: str) -> None:
    """Skip the running test, or fail it under CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"nothing is skipped under CI: {reason}")
    pytest.skip(reason)
