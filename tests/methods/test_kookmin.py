"""Kookmin is masked small gradients with its authors' values."""

from __future__ import annotations

from forgetbench.methods import methods
from forgetbench.methods.kookmin import Kookmin
from forgetbench.methods.msg import MaskedSmallGradients


def test_kookmin_paper_defaults_are_those_of_the_authors():
    published = {fact.name: fact.paper_default if fact.paper_default is not None else fact.default for fact in _facts()}
    assert Kookmin().to_dict() == published
    assert Kookmin.unlearn is MaskedSmallGradients.unlearn
    assert methods.get("kookmin").card.name == "kookmin"


def _facts():
    return MaskedSmallGradients.parameters()
