import subprocess
import sys

import numpy as np
import pytest

from forgetbench.datasets import load_partition
from forgetbench.datasets.base import generator
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.datasets.synthetic_faces.drawing import draw
from forgetbench.datasets.synthetic_faces.people import ages, labels_of, look, people, pictures, rows

SMALL = {"people": 12, "validation_people": 3, "test_people": 6}
KNOWN = "e7df5ec4477c1ac91a4e9671e9f85c7e05f922e957e76195127db6ef5743c4e0"


@pytest.fixture(scope="module")
def default():
    return load_partition("faces")


@pytest.fixture(scope="module")
def many():
    """Traits, moments and labels of 2,000 people; nothing is drawn."""
    sitters = people(2000, 1)
    moments = pictures(sitters, 1)
    return sitters, moments, labels_of(sitters, moments)


def test_the_same_bytes_in_every_process_and_on_every_machine():
    code = f"from forgetbench.datasets import load_partition; print(load_partition('faces', {SMALL!r}).train.sha256)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == KNOWN
    assert load_partition("faces", SMALL).train.sha256 == KNOWN


def test_parts_and_shapes(default):
    people_of = {part: set(images.identities.tolist()) for part, images in default.parts()}
    assert {part: len(who) for part, who in people_of.items()} == {
        "train": 110,
        "validation": 20,
        "test": 50,
        "unseen": 50,
    }
    assert len(set().union(*people_of.values())) == 230
    for _, images in default.parts():
        assert images.images.shape[1:] == (3, 32, 32)
        assert set(np.unique(images.labels)) <= set(range(8))
        per_person = np.unique(images.identities, return_counts=True)[1]
        assert per_person.min() >= 8
        assert per_person.max() <= 16
    assert np.array_equal(default.train.first_copy, np.arange(len(default.train)))


def test_pictures_are_neither_dark_nor_blown_out(default):
    level = default.train.images.mean(axis=(1, 2, 3))
    assert level.min() > 30
    assert level.max() < 235
    assert default.train.images.std(axis=(1, 2, 3)).min() > 12


def test_labels_are_no_function_of_the_person(many):
    _, _, labels = many
    who = labels["identity"]
    classes = [len(np.unique(labels["age"][who == person])) for person in range(2000)]
    assert 3.0 < np.mean(classes) < 4.0  # MUFAC: 3.7
    share = np.array([labels["smiling"][who == person].mean() for person in range(2000)])
    assert ((share > 0) & (share < 1)).mean() > 0.9
    assert all(len(np.unique(labels["male"][who == person])) == 1 for person in range(200))


def test_every_label_is_common_enough(many):
    _, _, labels = many
    assert np.bincount(labels["age"], minlength=8).min() / len(labels["age"]) > 0.015
    assert 0.45 < labels["male"].mean() < 0.55
    assert 0.4 < labels["smiling"].mean() < 0.6
    assert 0.6 < labels["young"].mean() < 0.8


def test_age_classes_are_those_of_mufac(many):
    sitters, moments, labels = many
    years = np.floor(ages(sitters, moments))
    bounds = [(0, 6), (7, 12), (13, 19), (20, 30), (31, 45), (46, 55), (56, 66), (67, 80)]
    for number, (low, high) in enumerate(bounds):
        chosen = years[labels["age"] == number]
        assert (chosen.min(), chosen.max()) == (low, high)
    assert np.array_equal(labels["young"], labels["age"] < 4)


def test_test_people_and_unseen_people_are_alike(many):
    """People are drawn alike, so any two halves of them have the same ages; the distance is that of chance."""
    from scipy.stats import ks_2samp

    sitters, moments, labels = many
    # One picture of each person: pictures of one person are not independent.
    first = np.unique(labels["identity"], return_index=True)[1]
    years = ages(sitters, moments)[first]
    assert ks_2samp(years[:1000], years[1000:]).pvalue > 1e-3


def test_more_people_leave_the_test_pictures_as_they_are():
    few, more = load_partition("faces", SMALL), load_partition("faces", SMALL | {"people": 20})
    assert few.test.sha256 == more.test.sha256
    assert few.unseen.sha256 == more.unseen.sha256
    assert np.array_equal(few.train.images, more.train.images[: len(few.train)])


def test_fewer_pictures_are_some_of_them():
    few, all_of_them = load_partition("faces", SMALL | {"pictures": 3}), load_partition("faces", SMALL)
    assert len(few.train) == 36
    assert {image.tobytes() for image in few.train.images} < {image.tobytes() for image in all_of_them.train.images}
    assert few.test.sha256 == all_of_them.test.sha256


@pytest.mark.parametrize("name", ["male", "smiling", "young"])
def test_one_attribute_is_a_column_of_all(name):
    one, together = (
        load_partition("faces", SMALL | {"labels": name}),
        load_partition("faces", SMALL | {"labels": "attributes"}),
    )
    column = together.train.classes.index(name)
    assert together.train.attributes
    assert np.array_equal(one.train.labels, together.train.labels[:, column])
    assert np.array_equal(one.train.images, together.train.images)


def test_age_classes_are_subclasses_of_young():
    train = load_partition("faces", SMALL | {"labels": "young"}).train
    assert np.array_equal(train.labels, train.fine_labels < 4)
    assert train.fine_classes[0] == "a"


def test_identity_labels_divide_every_persons_pictures():
    partition = load_partition("faces", {"labels": "identity", "people": 20})
    assert partition.unseen is None
    assert partition.train.outputs == 20
    for _, images in partition.parts():
        assert np.array_equal(images.labels, images.identities)
    assert set(partition.train.labels) == set(partition.test.labels) == set(range(20))
    assert make_scenario("identity", {"count": 2}).draw(partition).track == "erase"


def test_traits_last_and_moments_change(many):
    sitters, moments, labels = many
    measures = look(sitters, moments)
    for name in ("parting", "fringe", "frame", "freckle_place", "eye_distance", "brow_slant"):
        if name in measures:
            assert all(np.ptp(measures[name][labels["identity"] == person]) == 0 for person in range(50)), name
    for name in ("yaw", "light_x", "shift_x", "grin"):
        assert all(np.ptp(measures[name][labels["identity"] == person]) > 0 for person in range(50)), name


def test_the_large_picture_shows_the_same_as_the_small_one():
    sitters = people(6, 3)
    measures = rows(look(sitters, pictures(sitters, 3)), slice(0, 40))
    small = draw(measures, 32, generator("a")).astype(float)
    large = draw(measures, 64, generator("b")).astype(float).reshape(40, 3, 32, 2, 32, 2).mean(axis=(3, 5))
    assert np.abs(small - large).mean() < 6
