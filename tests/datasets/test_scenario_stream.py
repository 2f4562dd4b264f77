"""Scenario stream."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.image_sets import CARD, make_fine_image_set, make_fine_partition

from forgetbench.datasets.scenarios import make_scenario
from forgetbench.datasets.scenarios.stream import split_of_step
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.tasks.task import read_task


@settings(max_examples=40)
@given(st.integers(0, 30), st.integers(2, 5), st.sampled_from(["random", "identity"]), st.integers(0, 10))
def test_stream_requests_are_disjoint_and_complete(seed, steps, of, repeats):
    partition = make_fine_partition(seed, repeats=repeats)
    try:
        split = make_scenario("stream", {"of": of, "steps": steps, "count": 1 if of == "identity" else 7}).draw(
            partition
        )
    except UsageError:  # repeated images have joined most people
        return
    assert len(split.requests) == steps
    requested = np.concatenate(split.requests)
    assert np.array_equal(np.sort(requested), split.forget)
    side = np.full(60, -1)
    for step, rows in enumerate(split.requests):
        side[rows] = step
        current = split_of_step(partition, split, step)
        assert np.array_equal(current.forget, rows)
        assert np.array_equal(
            current.withheld, np.sort(requested[np.isin(requested, np.concatenate(split.requests[:step] or ([],)))])
        )
        assert len(current.retain) == 60 - sum(map(len, split.requests[: step + 1]))
    assert np.array_equal(current.retain, split.retain)
    assert np.array_equal(side, side[partition.train.first_copy])


def test_stream_of_classes_accumulates_forgotten_classes():
    rows = np.arange(60)
    train = ImageSet(make_fine_image_set(60, 0).images, rows % 5, tuple("abcde"))
    partition = Partition("toy", train, train.take(rows[:20]), train.take(rows[:20]), None, CARD)
    split = make_scenario("stream", {"of": "class", "steps": 3, "count": 1}).draw(partition)
    assert split.track == "erase"
    forgotten = [set(train.labels[split_of_step(partition, split, step).test_forgotten]) for step in range(3)]
    assert [len(classes) for classes in forgotten] == [1, 2, 3]
    assert forgotten[0] < forgotten[1] < forgotten[2] == set(train.labels[split.test_forgotten])
    with pytest.raises(ForgetBenchError, match="step 3 is not in a stream of 3"):
        split_of_step(partition, split, 3)
    with pytest.raises(UsageError, match="5 requests of 1 would forget all 5 classes"):
        make_scenario("stream", {"of": "class", "steps": 5, "count": 1}).draw(partition)


def test_stream_takes_classes_in_the_given_order():
    rows = np.arange(60)
    names = ("10", "20", "30", "40", "50")
    train = ImageSet(make_fine_image_set(60, 0).images, rows % 5, names)
    partition = Partition("toy", train, train.take(rows[:20]), train.take(rows[:20]), None, CARD)
    options = {"of": "class", "steps": 2, "count": 2}
    split = make_scenario("stream", {**options, "order": ["30", "#4", 10, "#1"]}).draw(partition)
    assert [set(train.labels[request]) for request in split.requests] == [{2, 4}, {0, 1}]
    for order, message in (
        (["30", "#4", 10], "must list 4 different classes, one for each that is requested, not 3"),
        (["30", "#2", 10, 20], "must list 4 different classes, one for each that is requested, not 3"),
        (["30", "#4", 10, "#5"], "Unknown class '#5'"),
    ):
        with pytest.raises(UsageError, match=message):
            make_scenario("stream", {**options, "order": order}).draw(partition)
    with pytest.raises(UsageError, match="needs of = class, not random"):
        make_scenario("stream", {**options, "of": "random", "order": ["30"]}).draw(partition)


def test_published_order_of_gs_lora_is_that_of_its_code():
    """Released code shuffles 0 to 99 with seed 1337; request t takes positions 80 - 20 t to 100 - 20 t."""
    order = list(range(100))
    random.Random(1337).shuffle(order)  # noqa: S311 - the published order
    options = read_task("casia100/vit/stream-4x20-published").scenario.options
    taken = [number for step in range(4) for number in order[80 - 20 * step : 100 - 20 * step]]
    assert options["order"] == [f"#{number}" for number in taken]
    for count in (5, 10, 50, 90):
        options = read_task(f"casia100/vit/class-{count}").scenario.options
        assert options["classes"] == [f"#{number}" for number in order[100 - count :]]
