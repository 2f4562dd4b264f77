"""Scenarios subclass and few-shot."""

from __future__ import annotations

import pytest
from support.image_sets import make_fine_partition

from forgetbench.datasets.scenarios import make_scenario
from forgetbench.errors import UsageError


def test_subclass_forgets_fine_class_and_retains_class():
    partition = make_fine_partition()
    split = make_scenario("subclass", {"subclasses": ["v", 5]}).draw(partition)
    assert split.track == "erase"
    assert set(partition.train.fine_labels[split.forget]) == {1, 5}
    assert set(partition.train.labels[split.retain]) == {0, 1}
    assert set(partition.test.fine_labels[split.test_forgotten]) == {1, 5}
    assert set(partition.validation.fine_labels[split.validation]) == {0, 2, 3, 4}
    with pytest.raises(UsageError, match=r"Unknown class 'a'.*Available: u, v, w"):
        make_scenario("subclass", {"subclasses": "a"}).draw(partition)


def test_subclass_draws_cover_all_fine_classes():
    partition = make_fine_partition()
    drawn = [set(partition.train.fine_labels[make_scenario("subclass").draw(partition, g).forget]) for g in range(6)]
    assert set().union(*drawn) == set(range(6))


def test_few_shot_gives_shots_and_withholds_others():
    partition = make_fine_partition()
    scenario = make_scenario("few-shot", {"classes": "high", "shots": 4})
    first, second = scenario.draw(partition, 0), scenario.draw(partition, 1)
    assert (len(first.forget), len(first.withheld), len(first.retain)) == (4, 26, 30)
    assert set(partition.train.labels[first.forget]) == set(partition.train.labels[first.withheld]) == {1}
    assert first.forget.tolist() != second.forget.tolist()
    assert set(partition.test.labels[first.test_forgotten]) == {1}
    with pytest.raises(UsageError, match=r"class 'high' has only 30 training images, .* 30 shots none is withheld"):
        make_scenario("few-shot", {"classes": "high", "shots": 30}).draw(partition)
