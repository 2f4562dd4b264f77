from __future__ import annotations

from collections import OrderedDict

import pytest

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.registry import Registry, unknown


def make() -> Registry[object]:
    registry: Registry[object] = Registry("method")
    registry.register("ssd", "collections:OrderedDict")
    registry.register("scrub", 7)
    return registry


def test_registry_lazy_target_is_imported_on_use() -> None:
    assert make().get("ssd") is OrderedDict


def test_registry_unknown_name_suggests_similar_names() -> None:
    with pytest.raises(UsageError, match=r"Unknown method 'sdd'\. Did you mean 'ssd'\? Available: scrub, ssd\."):
        make().get("sdd")


def test_registry_many_names_points_to_the_list_command() -> None:
    many = [f"faces/{number}" for number in range(30)]
    told = unknown("task", "faces/7x", many)
    assert told.startswith("Unknown task 'faces/7x'. Did you mean 'faces/7' or ")
    assert told.endswith("`forgetbench list tasks` shows all 30.")
    assert unknown("task", "quite another", many).endswith("`forgetbench list tasks` shows all 30.")
    assert unknown("class", "quite another", many).endswith("faces/19 and 10 more.")  # no command lists classes
    assert "Available: faces/0, faces/1" in unknown("class", "faces/7x", many)  # no command lists classes


def test_registry_duplicate_name_is_refused() -> None:
    registry = make()
    with pytest.raises(ForgetBenchError, match="registered twice"):
        registry.register("scrub", 8)
    registry.register("ssd", "collections:OrderedDict")


def test_registry_names_match_a_wildcard() -> None:
    assert make().names("s*") == ["scrub", "ssd"]
    assert make().names("*d") == ["ssd"]
    assert "scrub" in make()
