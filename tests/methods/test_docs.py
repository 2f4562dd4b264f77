from __future__ import annotations

from forgetbench.methods import methods
from forgetbench.methods._docs import page


def test_page_lists_every_method_and_hyperparameter() -> None:
    text = page()
    for name in methods.names():
        assert f"\n## {name}\n" in text
        for each in methods.get(name).parameters():
            assert each.help, f"{name}: {each.name} has no help text"
            assert each.help in text


def test_page_explains_every_shared_hyperparameter_once() -> None:
    text = page()
    for name in ("batch_norm", "schedule", "min_lr", "clip", "augment"):
        assert text.count(f"\n- `{name}`: ") == 1
    assert "running statistics, which stay as they are" in text
