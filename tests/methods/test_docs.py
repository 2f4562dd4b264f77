from __future__ import annotations

from pathlib import Path

from forgetbench.methods import methods
from forgetbench.methods._docs import page

DOCUMENT = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_page_of_methods_is_not_stale() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == page(), "python -m forgetbench.methods._docs > docs/methods.md"


def test_every_method_and_hyper_parameter_is_on_the_page() -> None:
    text = page()
    for name in methods.names():
        assert f"\n## {name}\n" in text
        for each in methods.get(name).parameters():
            assert each.help, f"{name}: {each.name} says nothing of itself"
            assert each.help in text
