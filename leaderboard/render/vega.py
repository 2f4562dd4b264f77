"""The program of the interactive chart: Vega, Vega-Lite and Vega-Embed in one file, as vl-convert carries them.

It is made once by a worker and served from this server, so that no page asks anybody else for anything. Charts run in
Vega's own interpreter, for the pages' security policy forbids to make code of text.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from forgetbench.leaderboard.settings import Settings
from forgetbench.store import write_atomically

_GLOBALS = "window.vegaEmbed = vegaEmbed;"


def path_of(settings: Settings) -> Path:
    """Where the program lies."""
    return settings.server_folder / f"vega-{version('vl-convert-python')}.js"


def address(settings: Settings) -> str:
    """Its address on this server; "" where no worker has made it yet."""
    path = path_of(settings)
    return f"/vega.js?v={path.stem.partition('-')[2]}" if path.is_file() else ""


def make(settings: Settings) -> None:
    """Write it, where it is not there already."""
    path = path_of(settings)
    if not path.is_file():
        import vl_convert

        write_atomically(path, vl_convert.javascript_bundle(_GLOBALS).encode())
