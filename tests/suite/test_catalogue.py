"""Every task of the catalogue: what it names takes its options, and its text says where numbers come from."""

from __future__ import annotations

import re

import pytest

from forgetbench.datasets import make_loader
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.networks import NetworkSpec
from forgetbench.tasks import Task, names, read_task

GREY = {"cmu-faces", "digits", "orl"}
SIDES = {"digits": 8}


@pytest.mark.parametrize("name", names())
def test_image_set_network_and_scenario_take_their_options(name: str) -> None:
    task = read_task(name)
    loader = make_loader(task.image_set.name, task.image_set.options)
    make_scenario(task.scenario.name, task.scenario.options)
    side = getattr(loader, "size", SIDES.get(task.image_set.name, 32))
    channels = 1 if task.image_set.name in GREY else 3
    network = NetworkSpec(
        name=task.network.name,
        channels=channels,
        height=side,
        width=side,
        outputs=10,
        mean=(0.5,) * channels,
        std=(0.2,) * channels,
        options=task.network.options,
    ).build(0)
    assert network.head.out_features == 10


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
def test_descriptions_say_where_numbers_come_from(name: str) -> None:
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


def test_the_paper_tier_is_there() -> None:
    wanted = {
        "cifar10/resnet18/random-10",
        "cifar10/resnet18/random-50",
        "cifar10/resnet18/class",
        "cifar100/resnet18/class",
        "cifar20/resnet18/subclass",
        "cifar10-jpeg/resnet18/random-10",
        "cifar10-jpeg/fast/random-10",
        "mufac/resnet18/legacy",
        "mufac/resnet18/clean",
        "mufac/resnet18/person",
        "mucac/resnet18/legacy",
        "mucac/resnet18/person",
    }
    assert wanted <= {name for name in names() if read_task(name).tier == "paper"}
