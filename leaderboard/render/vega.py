"""Charts in pages: still drawings, and the program that makes them interactive.

The program is Vega, Vega-Lite and Vega-Embed in one file, as vl-convert carries them. A worker writes it once and this
server serves it, so that no page loads anything from another site. Charts run in Vega's own interpreter, because the
pages' security policy forbids to make code of text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup, escape

from forgetbench.leaderboard.settings import Settings
from forgetbench.reporting.figures.style import Spec
from forgetbench.store import write_atomically

_BASE_URL = "https://vega.github.io/vega-datasets/"
"""What vl-convert puts before relative links."""
_GLOBALS = "window.vegaEmbed = vegaEmbed;"
_LINK = re.compile(r"</?a\b[^>]*>")
_LABELED_MARK = re.compile(r'(<path aria-label="([^"]*)"[^>]*)/>')


def start_engine() -> None:
    """Start the script engine that draws charts, which stops all threads of a process for half a second."""
    from forgetbench.reporting.figures.export import draw_svg

    encoding = {"x": {"field": "x", "type": "quantitative"}}
    draw_svg({"data": {"values": [{"x": 0}]}, "mark": "point", "encoding": encoding})


def inline_svg(specification: Spec, text: str) -> Markup:
    """A chart as part of a page: its name and points can be read aloud, its links are not in the tab order.

    Args:
        specification: Vega-Lite, in the colors of `forgetbench.reporting.figures.style.PAGE`.
        text: The chart in one sentence.
    """
    from forgetbench.reporting.figures.export import draw_svg  # starts a script engine on first use

    drawn = draw_svg(specification)
    drawn = drawn.replace(' class="marks"', "", 1)
    drawn = drawn.replace("<svg", f'<svg class="chart" role="group" aria-label="{escape(text)}"', 1)
    drawn = drawn.replace(f'<a xlink:href="{_BASE_URL}/', '<a tabindex="-1" href="/')
    return Markup(_LABELED_MARK.sub(r"\1><title>\2</title></path>", drawn))  # noqa: S704 - Vega escapes its texts


def standalone_svg(specification: Spec, text: str) -> bytes:
    """A chart as a file: one picture with a name, without links."""
    from forgetbench.reporting.figures.export import draw_svg

    drawn = draw_svg(specification)
    drawn = drawn.replace(' class="marks"', f' role="img" aria-label="{escape(text)}"', 1)
    return _LINK.sub("", drawn).encode()


def program_path(settings: Settings) -> Path:
    """The program's file."""
    return settings.server_folder / f"vega-{_version()}.js"


@lru_cache(maxsize=1)
def _version() -> str:
    """Version of the package that carries the program; to read it takes a millisecond."""
    return version("vl-convert-python")


def program_address(settings: Settings) -> str:
    """The program's address on this server; "" before a worker has written it."""
    path = program_path(settings)
    return f"/vega.js?v={path.stem.partition('-')[2]}" if path.is_file() else ""


def write_program(settings: Settings) -> None:
    """Write the program unless it exists."""
    path = program_path(settings)
    if not path.is_file():
        import vl_convert

        write_atomically(path, vl_convert.javascript_bundle(_GLOBALS).encode())
