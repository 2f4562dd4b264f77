"""Small pieces of pages that tables repeat in every row, made without the template engine, which is slower."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from markupsafe import Markup, escape

from forgetbench.leaderboard.db.states import ORIGIN_FLAGS
from forgetbench.leaderboard.render.rows import VERDICT_MARKS, Axis, ShownRow, VerdictMark
from forgetbench.scoring.vocabulary import FLAGS, PARTIAL

TIER_WORDS = {
    "claimed": "scored from what the submitter uploaded; not verified",
    "verified": "run again by this board's own runner",
    "reference": "run on this board by its operator",
}
"""Tier -> what it says about a row."""


@lru_cache(maxsize=4096)
def breakable(text: str) -> Markup:
    """Escaped text that may be wrapped after commas, colons and slashes."""
    escaped = str(escape(text))
    for character in (",", ":", "/"):
        escaped = escaped.replace(character, character + "<wbr>")
    return Markup(escaped)  # noqa: S704 - escaped above; only <wbr> is added


@lru_cache(maxsize=4096)
def row_name(label: str) -> Markup:
    """The name of a row, its hyper-parameters in small letters."""
    head, colon, rest = label.partition(":")
    parameters = f'<span class="params">:{breakable(rest)}</span>' if colon else ""
    return breakable(head) + Markup(parameters)  # noqa: S704 - `breakable` escapes


@lru_cache(maxsize=64)
def chip(verdict: str | None, *, short: bool = False) -> Markup:
    """A verdict in its color, with its symbol."""
    mark = VERDICT_MARKS.get(verdict or "")
    if mark is None:
        return escape(verdict or "–")
    return _marked(mark, mark.short if short else str(verdict))


def _marked(mark: VerdictMark, text: str) -> Markup:
    words = escape(text)
    return Markup(f'<span class="chip v-{mark.css}"><span aria-hidden="true">{mark.symbol}</span> {words}</span>')  # noqa: S704 - escaped


CAVEAT_CHIP = Markup(
    '<span class="chip v-nothing"><span aria-hidden="true">△</span> nothing forgotten, or it comes back</span>'
)
"""What pale verdicts say, for legends."""


def row_chip(row: ShownRow, *, short: bool = False) -> Markup:
    """The verdict of a row: pale, with what it would hide, where a caveat goes with it."""
    mark = row.mark
    if mark is None or not row.caveat:
        return chip(row.verdict, short=short)
    return _marked(mark, mark.short if short else f"{row.verdict}, {row.caveat}")


@lru_cache(maxsize=64)
def tier_mark(name: str) -> Markup:
    """A tier, with its meaning as a title."""
    return _labeled(f"tier {name}", name, TIER_WORDS)


@lru_cache(maxsize=64)
def flag_mark(name: str) -> Markup:
    """A flag, with its meaning as a title."""
    return _labeled("flag", name, {**FLAGS, **ORIGIN_FLAGS})


def _labeled(css: str, name: str, words: Mapping[str, str]) -> Markup:
    title = f' title="{escape(words[name])}"' if name in words else ""
    return Markup(f'<span class="{css}"{title}>{escape(name)}</span>')  # noqa: S704 - escaped


def strip(row: ShownRow, axis: Axis) -> Markup:
    """A distance on the axis of its board, as a drawing."""
    place = axis.strip(row)
    if place is None:
        return Markup()
    x = place.x
    parts = [
        '<svg class="distance-strip" width="230" height="22" viewBox="0 0 230 22" role="img" '
        f'aria-label="{escape(place.text)}">{_ground(axis)}'
    ]
    if place.interval:
        parts.append(f'<line class="i" x1="{place.interval[0]}" x2="{place.interval[1]}" y1="11" y2="11"/>')
    if place.beyond:
        parts.append('<path class="mark" d="M216 5l8 6-8 6z"/>')
    elif row.label == "Retrain":
        parts.append(f'<path class="mark oracle" d="M{x} 5l6 6-6 6-6-6z"/>')
    elif row.label == PARTIAL:
        parts.append(f'<path class="mark partial" d="M{x} 5l6 6-6 6-6-6z"/>')
    elif row.baseline:
        parts.append(f'<rect class="mark original" x="{x - 5}" y="6" width="10" height="10"/>')
    elif row.at_least:
        parts.append(f'<path class="mark" d="M{x - 4} 5l9 6-9 6z"/>')
    else:
        hollow = " hollow" if row.tier == "claimed" else ""
        parts.append(f'<circle class="mark{hollow}" cx="{x}" cy="11" r="4.5"/>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704 - numbers and escaped text


@lru_cache(maxsize=64)
def _ground(axis: Axis) -> str:
    """The zone of retraining, and the lines of doing nothing and of retraining with what was not found."""
    zone = ""
    if axis.limit is not None:
        start = axis.position(0)
        zone = f'<rect class="zone" x="{start}" y="0" width="{axis.position(axis.limit) - start}" height="22"/>'
    lines = [("nothing", axis.nothing), ("partial", axis.partial)]
    places = [(css, axis.position(value)) for css, value in lines if value is not None]
    return zone + "".join(f'<line class="{css}" x1="{x}" x2="{x}" y1="0" y2="22"/>' for css, x in places)
