"""Small forms of pages."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import Request

from forgetbench.leaderboard.errors import Problem

MAX_BYTES = 4096
"""Longest form."""


async def read_form(request: Request) -> dict[str, str]:
    """Read the fields of a form, the first value of each.

    Raises:
        Problem: 413, the form is too long.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise Problem(413, f"The form may have at most {MAX_BYTES} bytes.")
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", errors="replace")).items()}
