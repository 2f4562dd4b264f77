"""Papers of the methods: BibTeX entries, in `references.bib` or in a card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from forgetbench.errors import UsageError
from forgetbench.registry import unknown


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One BibTeX entry."""

    key: str
    bibtex: str
    """The entry's text."""
    authors: str
    """Given names first, separated by commas."""
    year: int | None
    venue: str
    """Conference, journal, or how it was published."""
    link: str
    """Address, or empty."""


def find_reference(paper: str) -> Reference:
    """The entry with a key in `references.bib`, or the entry that the text itself is.

    Raises:
        UsageError: There is no such key.
    """
    if paper.lstrip().startswith("@"):
        return parse_entry(paper)
    references = read_references()
    if paper not in references:
        raise UsageError(unknown("paper", paper, sorted(references)))
    return references[paper]


@lru_cache(maxsize=1)
def read_references() -> dict[str, Reference]:
    """Key -> entry of `references.bib`."""
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    entries = [parse_entry(f"@{part}") for part in re.split(r"^@", text, flags=re.MULTILINE)[1:]]
    return {entry.key: entry for entry in entries}


def parse_entry(text: str) -> Reference:
    """Read one BibTeX entry whose values are in braces."""
    text = text.strip()
    fields = {}
    for match in re.finditer(r"(\w+)\s*=\s*\{", text):
        end = _closing_brace(text, match.end())
        fields[match[1].lower()] = text[match.end() : end].replace("{", "").replace("}", "")
    key = re.match(r"@\w+\s*\{\s*([^,\s]+)", text)
    if key is None or "author" not in fields or "title" not in fields:
        raise UsageError(f"This is not a BibTeX entry with key, author and title: {text[:60]!r}")
    return Reference(
        key=key[1],
        bibtex=text,
        authors=", ".join(_given_name_first(name) for name in re.split(r"\s+and\s+", fields["author"])),
        year=int(fields["year"]) if fields.get("year", "").isdigit() else None,
        venue=next((fields[name] for name in ("booktitle", "journal", "howpublished") if name in fields), "arXiv"),
        link=fields.get("url", f"https://arxiv.org/abs/{fields['eprint']}" if "eprint" in fields else ""),
    )


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return len(text)


def _given_name_first(name: str) -> str:
    family, comma, given = name.partition(", ")
    return f"{given} {family}" if comma else family
