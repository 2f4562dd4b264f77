"""Charts as files."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vl_convert

from forgetbench.errors import UsageError
from forgetbench.store import write_atomically

if TYPE_CHECKING:
    from forgetbench.reporting.figures.catalog import Picture
    from forgetbench.reporting.figures.style import Spec

PNG_SCALE = 3.0
"""Pixels of a PNG for each of the drawing's: about 300 per inch in a paper's column."""
FOLDER = ("svg", "png", "pdf", "html")
"""Formats of each picture in a folder."""


def draw_svg(specification: Spec) -> str:
    """A chart as SVG. Nothing is loaded from elsewhere."""
    return str(vl_convert.vegalite_to_svg(specification, allowed_base_urls=[]))


def _svg(picture: Picture) -> bytes:
    return draw_svg(picture.specification).encode()


def _png(picture: Picture) -> bytes:
    return bytes(vl_convert.vegalite_to_png(picture.specification, scale=PNG_SCALE, allowed_base_urls=[]))


def _pdf(picture: Picture) -> bytes:
    return bytes(vl_convert.vegalite_to_pdf(picture.specification, allowed_base_urls=[]))


def _html(picture: Picture) -> bytes:
    """One page that shows values under the pointer, with everything that it needs inside."""
    page = str(vl_convert.vegalite_to_html(_without_tags(picture.specification), bundle=True))
    caption = f'<p style="font:14px/1.5 sans-serif;max-width:46rem;margin:1rem">{html.escape(picture.caption)}</p>'
    head, end, tail = page.rpartition("</body>")
    return (head + caption + end + tail).encode()


def _without_tags(value: Any) -> Any:
    """The specification without text that could end the page's script: rows bear names that anyone may choose."""
    if isinstance(value, dict):
        return {key: _without_tags(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_tags(item) for item in value]
    return value.replace("</", "< /") if isinstance(value, str) else value


def _json(picture: Picture) -> bytes:
    """The Vega-Lite specification, for further work."""
    return (json.dumps(picture.specification, indent=1, ensure_ascii=False) + "\n").encode()


WRITERS: dict[str, Callable[[Picture], bytes]] = {
    "svg": _svg,
    "png": _png,
    "pdf": _pdf,
    "html": _html,
    "json": _json,
}
"""Ending of a file -> writer."""


def write(pictures: list[Picture], output: Path) -> list[Path]:
    """Write one picture to a file by its ending, or all of them to a folder in every format.

    Args:
        pictures: What to write.
        output: A file whose ending is one of `WRITERS`, or a folder.

    Returns:
        The files.

    Raises:
        UsageError: Several pictures for one file, or an ending that no picture has.
    """
    ending = output.suffix.removeprefix(".")
    if not ending or output.is_dir():
        stems = _different([picture.name for picture in pictures])
        files = [
            (output / f"{stem}.{kind}", WRITERS[kind](picture))
            for stem, picture in zip(stems, pictures, strict=True)
            for kind in FOLDER
        ]
        output.mkdir(parents=True, exist_ok=True)
    elif ending not in WRITERS:
        raise UsageError(
            f"Unknown picture format {ending!r} ({output}). Available: {', '.join(WRITERS)}; a path without an ending "
            "is a folder."
        )
    elif len(pictures) > 1:
        names = ", ".join(picture.name for picture in pictures)
        raise UsageError(
            f"{len(pictures)} pictures do not fit into one file ({output}). Name a folder, or choose one of: {names}."
        )
    else:
        files = [(output, WRITERS[ending](picture)) for picture in pictures]
    for path, content in files:
        write_atomically(path, content)
    return [path for path, _ in files]


def _different(names: Sequence[str]) -> list[str]:
    """The names, with a number where a name is taken: a task may have several boards, and "/" is written "-"."""
    result: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in count(2))
        result.append(next(one for one in chain([name], numbered) if one not in result))
    return result


def figure_html(picture: Picture) -> str:
    """A picture in a page, as an image that is part of it (inline drawings would share the names of their marks)."""
    data = base64.b64encode(_svg(picture)).decode()
    caption = html.escape(picture.caption)
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
