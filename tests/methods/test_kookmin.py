"""Kookmin is masked small gradients; its authors' values are those of the paper."""

from __future__ import annotations

from forgetbench.methods import methods
from forgetbench.methods._presets import preset_values
from forgetbench.methods.kookmin import Kookmin
from forgetbench.methods.msg import MaskedSmallGradients
from forgetbench.tasks.task import Setting


def test_kookmin_paper_defaults_are_those_of_the_authors():
    assert _published(Kookmin) == _published(MaskedSmallGradients) == preset_values("kookmin", "paper", Setting("cnn"))
    assert Kookmin.unlearn is MaskedSmallGradients.unlearn
    assert methods.get("kookmin").card.name == "kookmin"


def _published(kind):
    facts = kind.parameters()
    return {fact.name: fact.default if fact.paper_default is None else fact.paper_default for fact in facts}
