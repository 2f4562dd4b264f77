"""Pictures as files."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vl_convert

from forgetbench.errors import UsageError
from forgetbench.reporting.figures.catalog import Picture
from forgetbench.store import write_atomically

PIXELS = 3.0
"""Pixels of a PNG for each of the drawing's: about 300 per inch in a paper's column."""
FOLDER = ("svg", "png", "pdf", "html")
"""What a folder gets of each picture."""


def as_svg(picture: Picture) -> bytes:
    """Scalable, for pages and slides."""
    return str(vl_convert.vegalite_to_svg(picture.specification, allowed_base_urls=[])).encode()


def as_png(picture: Picture) -> bytes:
    """Pixels."""
    return bytes(vl_convert.vegalite_to_png(picture.specification, scale=PIXELS, allowed_base_urls=[]))


def as_pdf(picture: Picture) -> bytes:
    """Scalable, for LaTeX."""
    return bytes(vl_convert.vegalite_to_pdf(picture.specification, allowed_base_urls=[]))


def as_page(picture: Picture) -> bytes:
    """One page that shows values under the pointer; everything that it needs is in it."""
    page = str(vl_convert.vegalite_to_html(_without_tags(picture.specification), bundle=True))
    caption = f'<p style="font:14px/1.5 sans-serif;max-width:46rem;margin:1rem">{html.escape(picture.caption)}</p>'
    head, end, tail = page.rpartition("</body>")
    return (head + caption + end + tail).encode()


def _without_tags(value: Any) -> Any:
    """The specification with no text that could end the page's script: a row is named by whoever made it."""
    if isinstance(value, dict):
        return {key: _without_tags(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_tags(one) for one in value]
    return value.replace("</", "< /") if isinstance(value, str) else value


def as_json(picture: Picture) -> bytes:
    """The Vega-Lite specification, to go on from."""
    return (json.dumps(picture.specification, indent=1, ensure_ascii=False) + "\n").encode()


WRITERS: dict[str, Callable[[Picture], bytes]] = {
    "svg": as_svg,
    "png": as_png,
    "pdf": as_pdf,
    "html": as_page,
    "json": as_json,
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
        found = [(output / f"{picture.name}.{kind}", WRITERS[kind](picture)) for picture in pictures for kind in FOLDER]
        output.mkdir(parents=True, exist_ok=True)
    elif ending not in WRITERS:
        raise UsageError(f"{output}: a picture's ending is one of {', '.join(WRITERS)}; without one it is a folder.")
    elif len(pictures) > 1:
        names = ", ".join(picture.name for picture in pictures)
        raise UsageError(f"{len(pictures)} pictures do not fit into {output}: name a folder, or one of them ({names}).")
    else:
        found = [(output, WRITERS[ending](picture)) for picture in pictures]
    for path, content in found:
        write_atomically(path, content)
    return [path for path, _ in found]


def as_figure(picture: Picture) -> str:
    """A picture in a page, as an image that is part of it (drawings side by side would share their marks' names)."""
    data = base64.b64encode(as_svg(picture)).decode()
    caption = html.escape(picture.caption)
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
