"""Templates: everything that was submitted is text, escaped wherever it stands."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from forgetbench.leaderboard.boards import strips
from forgetbench.leaderboard.render import formatting
from forgetbench.leaderboard.settings import Settings
from forgetbench.store import digest, file_digest

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parents[1] / "web" / "static"
DIRECTIONS = {"up": "↑", "down": "↓", "band": "→ oracle"}
DIRECTION_WORDS = {"up": "higher is better", "down": "lower is better", "band": "closest to the oracles is best"}


class Pages:
    """The site's templates with what all of them need."""

    def __init__(self, settings: Settings) -> None:
        self.environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self.environment.filters.update(
            {
                "number": formatting.number,
                "per_cent": formatting.per_cent,
                "date": formatting.date,
                "moment": formatting.moment,
                "parameters": formatting.parameters,
                "path": lambda text: quote(str(text), safe="/"),
                "safe_link": safe_link,
                "breakable": breakable,
            }
        )
        self.environment.globals.update(
            {
                "site": settings.site_title,
                "style": self._version("style.css"),
                "script": self._version("site.js"),
                "directions": DIRECTIONS,
                "direction_words": DIRECTION_WORDS,
                "estimate": formatting.estimate,
                "cell_text": formatting.cell_text,
                "band_text": formatting.band_text,
                "z_text": formatting.z_text,
                "rank_text": formatting.rank_text,
                "strip": strips.strip,
                "histograms": strips.histograms,
            }
        )

    @property
    def fingerprint(self) -> str:
        """Changes with any template and any file that pages are made of."""
        paths = sorted(path for folder in (TEMPLATES, STATIC) for path in folder.iterdir())
        return digest([[path.name, file_digest(path)] for path in paths])

    def render(self, template: str, **values: Any) -> bytes:
        """A page as UTF-8."""
        return self.environment.get_template(template).render(**values).encode()

    @staticmethod
    def _version(name: str) -> str:
        return f"/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


def safe_link(text: str | None) -> str:
    """A submitted link if it leads to a web page, else nothing: no script ever becomes an address."""
    found = (text or "").strip()
    return (
        found
        if found.startswith(("https://", "http://")) and not any(c.isspace() or c in "\"'<>" for c in found)
        else ""
    )


def breakable(text: str) -> Markup:
    """Escaped text that may be broken behind commas, colons and slashes."""
    shown = str(escape(text))
    for character in (",", ":", "/"):
        shown = shown.replace(character, character + "<wbr>")
    return Markup(shown)  # noqa: S704 - escaped above; what is added is ours
