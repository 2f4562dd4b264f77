"""Templates of the site; everything that was submitted is escaped."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from forgetbench.leaderboard.boards import strips
from forgetbench.leaderboard.boards.directory import shows_people
from forgetbench.leaderboard.db.states import ORIGIN_FLAGS
from forgetbench.leaderboard.render import formatting, fragments, rows, table_row
from forgetbench.leaderboard.render.vega import inline_svg
from forgetbench.leaderboard.settings import Settings
from forgetbench.scoring.vocabulary import FLAGS, NOTHING_FORGOTTEN, PARTIAL, RANK_INTERVALS, VERDICTS
from forgetbench.store import digest, file_digest

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parents[1] / "web" / "static"
DIRECTIONS = {"up": "↑", "down": "↓", "band": "→ oracle"}
TRACK_WORDS = {
    "erase": "erase: become unable to recognize it",
    "match-oracle": "match retraining in every answer",
    "corrective": "correct what bad data taught, of which only a part was found",
}
"""Track -> what a good method does."""
NO_PROOF = (
    "What this does not prove: these are statistical tests on a few models trained for the test. Not even a green row "
    "proves that a deployed model holds nothing of a person."
)
DIRECTION_WORDS = {"up": "higher is better", "down": "lower is better", "band": "closest to the oracles is best"}


_ADDRESS = re.compile(rb'(\b(?:href|src|action|data-[a-z]+)=")/(?!/)')
"""An address on this site; submitted text cannot look like one, because its quotes are escaped."""


class Pages:
    """The site's templates with their filters and functions.

    Args:
        settings: Settings of the site.
        static: Whether the pages become files, without forms and search.
    """

    def __init__(self, settings: Settings, *, static: bool = False) -> None:
        self._root = b"" if static else settings.root_path.encode()
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
                "percent": formatting.percent,
                "points": formatting.points,
                "date": formatting.date,
                "moment": formatting.moment,
                "path": lambda text: quote(str(text), safe="/"),
                "safe_link": safe_link,
                "breakable": fragments.breakable,
            }
        )
        self.environment.globals.update(
            {
                "site": settings.site_title,
                "style": self._version("style.css"),
                "script": self._version("site.js"),
                "moderate_script": self._version("moderate.js"),
                "tier_words": fragments.TIER_WORDS,
                "directions": DIRECTIONS,
                "direction_words": DIRECTION_WORDS,
                "estimate": formatting.estimate,
                "cell_text": formatting.cell_text,
                "band_text": formatting.band_text,
                "z_text": formatting.z_text,
                "rank_intervals": RANK_INTERVALS,
                "place_text": formatting.place_text,
                "rank_text": formatting.rank_text,
                "before_after": formatting.before_after,
                "strip": strips.strip,
                "phi_chart": strips.phi_chart,
                "inline_svg": inline_svg,
                "static": static,
                "row_name": fragments.row_name,
                "verdict_chip": fragments.chip,
                "row_chip": fragments.row_chip,
                "caveat_chip": fragments.CAVEAT_CHIP,
                "nothing_forgotten": NOTHING_FORGOTTEN,
                "tier_mark": fragments.tier_mark,
                "flag_mark": fragments.flag_mark,
                "distance_strip": fragments.strip,
                "table_row": table_row.table_row,
                "place_mark": table_row.place_mark,
                "cost_mark": table_row.cost_mark,
                "reproductions_text": table_row.reproductions_text,
                "row_of": rows.row_of,
                "track_words": TRACK_WORDS,
                "partial": PARTIAL,
                "no_proof": NO_PROOF,
                "shows_people": shows_people,
                "docs": str(settings.docs_url or "").rstrip("/"),
                "verdict_marks": rows.VERDICT_MARKS,
                "folded_words": rows.FOLDED_WORDS,
                "verdict_words": VERDICTS,
                "flag_words": {**FLAGS, **ORIGIN_FLAGS},
            }
        )

    @property
    def fingerprint(self) -> str:
        """Hash of all templates and static files."""
        paths = sorted(path for folder in (TEMPLATES, STATIC) for path in folder.iterdir())
        return digest([[path.name, file_digest(path)] for path in paths])

    def render(self, template: str, **values: object) -> bytes:
        """A page as UTF-8, whose links begin with the path of the site's public address."""
        page = self.environment.get_template(template).render(**values).encode()
        return _ADDRESS.sub(rb"\1" + self._root + b"/", page) if self._root and template.endswith(".html") else page

    @staticmethod
    def _version(name: str) -> str:
        return f"/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


def safe_link(text: str | None) -> str:
    """A submitted link if it leads to a web page, else "": no script ever becomes an address."""
    link = (text or "").strip()
    is_web_page = link.startswith(("https://", "http://")) and not any(c.isspace() or c in "\"'<>" for c in link)
    return link if is_web_page else ""
