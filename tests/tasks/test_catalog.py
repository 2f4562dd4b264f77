"""Every task of the catalog: what it names takes its options, and its text says where numbers come from."""

from __future__ import annotations

import json
import re
from functools import cache

import numpy as np
import pytest

from forgetbench.datasets import load_partition, make_loader
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.evidence.arrays import index_digest
from forgetbench.networks import NetworkSpec
from forgetbench.tasks.task import Task, names, read_task

GREY = {"cmu-faces", "digits", "orl"}
SIDES = {"digits": 8}


@pytest.mark.parametrize("name", names())
def test_catalog_options_are_accepted(name: str) -> None:
    task = read_task(name)
    loader = make_loader(task.image_set.name, task.image_set.options)
    make_scenario(task.scenario.name, task.scenario.options)
    side = getattr(loader, "size", SIDES.get(task.image_set.name, 32))
    channels = 1 if task.image_set.name in GREY else 3
    assert width_of_head(task.network.name, json.dumps(task.network.options), channels, side) == 10


@cache
def width_of_head(name: str, options: str, channels: int, side: int) -> int:
    """Outputs of a network; built once for all tasks that have it."""
    spec = NetworkSpec(
        name=name,
        channels=channels,
        height=side,
        width=side,
        outputs=10,
        mean=(0.5,) * channels,
        std=(0.2,) * channels,
        options=json.loads(options),
    )
    return spec.build(0, load_weights=False).head.out_features


def numbers(task: Task) -> dict[str, list[str]]:
    """What a description must speak of -> the ways in which it may say so."""
    recipe = task.recipe
    said = {
        "epochs": [f"{recipe.epochs} epochs"],
        "rate": [f"rate of {recipe.lr:g}", f"rate {recipe.lr:g}"],
        "batch": [f"atches of {recipe.batch_size}"],
    }
    options = task.scenario.options
    if "fraction" in options:
        said["share"] = [f"{100 * options['fraction']:g} %"]
    return said


@pytest.mark.parametrize("name", names())
def test_catalog_descriptions_name_their_sources(name: str) -> None:
    task = read_task(name)
    text = re.sub(r"\s+", " ", task.description)
    if task.tier == "cpu":
        assert re.search(r"numbers are (ours|those of)|numbers .* ours", text), f"{name} says nothing of its numbers"
        return
    for what, ways in numbers(task).items():
        other = re.search(r"as cifar10/resnet18/|SalUn's Table 1", text) if what == "share" else None
        assert other or any(way in text for way in ways), f"{name}: the description says nothing of {what}: {ways}"
    assert re.search(r"\([A-Z].* 20\d\d\)|data-unlearning-bench|is ours", text), f"{name} names nobody"
    assert task.seeds == 10


def test_catalog_contains_the_paper_tier() -> None:
    wanted = {
        "cifar10/resnet18/random-10",
        "cifar10/resnet18/random-50",
        "cifar10/resnet18/class",
        "cifar100/resnet18/class",
        "cifar20/resnet18/subclass",
        "cifar10-jpeg/resnet18/random-10",
        *(
            f"{images}/fast/{what}"
            for images in ("cifar10", "cifar10-jpeg")
            for what in ("random-10", "random-50", "class")
        ),
        "cifar10-jpeg/resnet18/random-50",
        "cifar10-jpeg/resnet18/class",
        "cifar100/fast/class",
        "cifar20/fast/subclass",
        "mufac/resnet18/legacy",
        "mufac/resnet18/clean",
        "mufac/resnet18/person",
        *(f"mucac/resnet18/{split}" for split in ("legacy", "person")),
        *(
            f"mucac/resnet18/{split}-{label}"
            for split in ("legacy", "person")
            for label in ("male", "smiling", "young")
        ),
        "casia100/vit/stream-4x20",
    }
    assert wanted <= {name for name in names() if read_task(name).tier == "paper"}


def test_catalog_memorised_rows_are_unchanged() -> None:
    """The proxy, and so the list of rows, is the same on every machine."""
    task = read_task("faces/cnn/memorised-10")
    partition = load_partition(task.image_set.name, task.image_set.options)
    scenario = make_scenario(task.scenario.name, task.scenario.options)
    forget = scenario.draw(partition, 0, task.stream("split")).forget
    assert (len(forget), len(partition.train)) == (108, 1077)
    assert index_digest(forget) == "a9ab639157c0012d6825ba105b4f3d44d5b2331df03fa29b126d0258169f3326"
    assert np.array_equal(scenario.draw(partition, 1, 7).forget, forget)


@pytest.mark.parametrize("name", [name for name in names() if read_task(name).network.name == "resnet18"])
def test_catalog_descriptions_name_start_and_precision(name: str) -> None:
    text = re.sub(r"\s+", " ", read_task(name).description)
    assert "starts the last batch-norm of every residual block at 0" in text
    assert "bfloat16" in text


def test_catalog_resnet18_starts_as_described() -> None:
    """By zero_init_last, a default of timm."""
    shape = {"channels": 3, "height": 32, "width": 32, "outputs": 10, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    state = NetworkSpec(name="resnet18", options={}, **shape).build(0).state_dict()  # type: ignore[arg-type]
    last = [value for name, value in state.items() if name.endswith("bn2.weight")]
    assert len(last) == 8
    assert not any(value.any() for value in last)
    assert all(value.all() for name, value in state.items() if name.endswith("bn1.weight"))
