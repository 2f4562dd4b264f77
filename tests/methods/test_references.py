"""Papers of methods and attacks: entries of references.bib, and entries in a card."""

from __future__ import annotations

import pytest

from forgetbench.attacks import attacks
from forgetbench.errors import UsageError
from forgetbench.methods import methods
from forgetbench.methods._references import find_reference, parse_entry, read_references

ENTRY = (
    "@article{doe2026method, title={A {M}ethod}, author={Doe, Jane and {Team X} and Öz, Can}, "
    "journal={TMLR}, year={2026}, eprint={2601.00001}}"
)


def test_parse_entry_reads_the_fields():
    entry = parse_entry(ENTRY)
    assert (entry.key, entry.authors, entry.year) == ("doe2026method", "Jane Doe, Team X, Can Öz", 2026)
    assert (entry.venue, entry.link) == ("TMLR", "https://arxiv.org/abs/2601.00001")
    assert entry.bibtex == ENTRY


def test_find_reference_takes_a_key_or_an_entry():
    assert find_reference("foster2024fast").authors == "Jack Foster, Stefan Schoepf, Alexandra Brintrup"
    assert find_reference(ENTRY).key == "doe2026method"
    with pytest.raises(UsageError, match="foster2024fast"):
        find_reference("foster2024fats")
    with pytest.raises(UsageError, match="not a BibTeX entry"):
        find_reference("@article{doe, year={2026}}")


def test_references_are_sorted_and_all_used():
    keys = list(read_references())
    cards = [registry.get(name).card for registry in (methods, attacks) for name in registry.names()]
    used = {paper for card in cards for paper in card.papers}
    assert keys == sorted(keys)
    assert used == set(keys)
