from __future__ import annotations

from collections import OrderedDict

import pytest

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.registry import Registry


def make() -> Registry[object]:
    registry: Registry[object] = Registry("method")
    registry.register("ssd", "collections:OrderedDict")
    registry.register("scrub", 7)
    return registry


def test_a_lazy_target_is_imported_when_asked_for() -> None:
    assert make().get("ssd") is OrderedDict


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(UsageError, match=r"no method 'sdd'. Did you mean 'ssd'\? There are: scrub, ssd\."):
        make().get("sdd")


def test_a_name_is_taken_once() -> None:
    registry = make()
    with pytest.raises(ForgetBenchError, match="registered twice"):
        registry.register("scrub", 8)
    registry.register("ssd", "collections:OrderedDict")


def test_names_match_a_wildcard_and_are_sorted() -> None:
    assert make().names("s*") == ["scrub", "ssd"]
    assert make().names("*d") == ["ssd"]
    assert "scrub" in make()
