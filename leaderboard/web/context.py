"""What routes read of a request and its application."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from forgetbench.leaderboard.render.templates import Pages
from forgetbench.leaderboard.settings import Settings


def pages_of(request: Request) -> Pages:
    """Templates of the site."""
    return cast("Pages", request.app.state.pages)


def base_url(request: Request) -> str:
    """Public address of the site."""
    settings = cast("Settings", request.app.state.settings)
    return str(settings.public_url or request.base_url).rstrip("/")


def client_address(request: Request) -> str:
    """Network address of the client."""
    return request.client.host if request.client else "unknown"
