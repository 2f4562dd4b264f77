import subprocess
import sys

import numpy as np
import pytest

from forgetbench.datasets import load_partition
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.datasets.synthetic_faces.drawing import render
from forgetbench.datasets.synthetic_faces.people import (
    compute_ages,
    compute_appearance,
    compute_labels,
    sample_moments,
    sample_subjects,
    take_rows,
)

SMALL = {"people": 12, "validation_people": 3, "test_people": 6}
TRAIN_SHA256 = "e7df5ec4477c1ac91a4e9671e9f85c7e05f922e957e76195127db6ef5743c4e0"


@pytest.fixture(scope="module")
def default():
    return load_partition("faces")


@pytest.fixture(scope="module")
def many():
    """Traits, moments and labels of 2,000 people; no image is rendered."""
    subjects = sample_subjects(2000, 1)
    moments = sample_moments(subjects, 1)
    return subjects, moments, compute_labels(subjects, moments)


def test_images_are_identical_in_every_process():
    code = f"from forgetbench.datasets import load_partition; print(load_partition('faces', {SMALL!r}).train.sha256)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == TRAIN_SHA256
    assert load_partition("faces", SMALL).train.sha256 == TRAIN_SHA256


def test_default_has_expected_parts_and_shapes(default):
    people_of = {part: set(images.identities.tolist()) for part, images in default.parts()}
    assert {part: len(numbers) for part, numbers in people_of.items()} == {
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


def test_images_are_well_exposed(default):
    level = default.train.images.mean(axis=(1, 2, 3))
    assert level.min() > 30
    assert level.max() < 235
    assert default.train.images.std(axis=(1, 2, 3)).min() > 12


def test_labels_vary_within_a_person(many):
    _, _, labels = many
    identities = labels["identity"]
    classes = [len(np.unique(labels["age"][identities == person])) for person in range(2000)]
    assert 3.0 < np.mean(classes) < 4.0  # MUFAC: 3.7
    fraction = np.array([labels["smiling"][identities == person].mean() for person in range(2000)])
    assert ((fraction > 0) & (fraction < 1)).mean() > 0.9
    assert all(len(np.unique(labels["male"][identities == person])) == 1 for person in range(200))


def test_every_label_is_frequent(many):
    _, _, labels = many
    assert np.bincount(labels["age"], minlength=8).min() / len(labels["age"]) > 0.015
    assert 0.45 < labels["male"].mean() < 0.55
    assert 0.4 < labels["smiling"].mean() < 0.6
    assert 0.6 < labels["young"].mean() < 0.8


def test_age_classes_match_mufac(many):
    subjects, moments, labels = many
    years = np.floor(compute_ages(subjects, moments))
    bounds = [(0, 6), (7, 12), (13, 19), (20, 30), (31, 45), (46, 55), (56, 66), (67, 80)]
    for number, (low, high) in enumerate(bounds):
        chosen = years[labels["age"] == number]
        assert (chosen.min(), chosen.max()) == (low, high)
    assert np.array_equal(labels["young"], labels["age"] < 4)


def test_halves_of_people_have_equal_age_distribution(many):
    """Test people and unseen people are two such halves."""
    from scipy.stats import ks_2samp

    subjects, moments, labels = many
    # one image of each person: images of one person are not independent
    first = np.unique(labels["identity"], return_index=True)[1]
    years = compute_ages(subjects, moments)[first]
    assert ks_2samp(years[:1000], years[1000:]).pvalue > 1e-3


def test_more_people_leave_test_images_unchanged():
    few, more = load_partition("faces", SMALL), load_partition("faces", SMALL | {"people": 20})
    assert few.test.sha256 == more.test.sha256
    assert few.unseen.sha256 == more.unseen.sha256
    assert np.array_equal(few.train.images, more.train.images[: len(few.train)])


def test_fewer_pictures_select_a_subset():
    few, many = load_partition("faces", SMALL | {"pictures": 3}), load_partition("faces", SMALL)
    assert len(few.train) == 36
    assert {image.tobytes() for image in few.train.images} < {image.tobytes() for image in many.train.images}
    assert few.test.sha256 == many.test.sha256


@pytest.mark.parametrize("name", ["male", "smiling", "young"])
def test_one_attribute_is_a_column_of_attributes(name):
    single, combined = (
        load_partition("faces", SMALL | {"labels": name}),
        load_partition("faces", SMALL | {"labels": "attributes"}),
    )
    column = combined.train.classes.index(name)
    assert combined.train.attributes
    assert np.array_equal(single.train.labels, combined.train.labels[:, column])
    assert np.array_equal(single.train.images, combined.train.images)


def test_age_classes_are_fine_labels_of_young():
    train = load_partition("faces", SMALL | {"labels": "young"}).train
    assert np.array_equal(train.labels, train.fine_labels < 4)
    assert train.fine_classes[0] == "a"


def test_identity_labels_split_within_person():
    partition = load_partition("faces", {"labels": "identity", "people": 20})
    assert partition.unseen is None
    assert partition.train.outputs == 20
    for _, images in partition.parts():
        assert np.array_equal(images.labels, images.identities)
    assert set(partition.train.labels) == set(partition.test.labels) == set(range(20))
    assert make_scenario("identity", {"count": 2}).draw(partition).track == "erase"


def test_traits_are_constant_and_moments_vary(many):
    subjects, moments, labels = many
    measures = compute_appearance(subjects, moments)
    for name in ("parting", "fringe", "frame", "freckle_place", "eye_distance", "brow_slant"):
        if name in measures:
            assert all(np.ptp(measures[name][labels["identity"] == person]) == 0 for person in range(50)), name
    for name in ("yaw", "light_x", "shift_x", "grin"):
        assert all(np.ptp(measures[name][labels["identity"] == person]) > 0 for person in range(50)), name


def test_large_image_resembles_small_one():
    subjects = sample_subjects(6, 3)
    measures = take_rows(compute_appearance(subjects, sample_moments(subjects, 3)), slice(0, 40))
    small = render(measures, 32, make_rng("a")).astype(float)
    large = render(measures, 64, make_rng("b")).astype(float).reshape(40, 3, 32, 2, 32, 2).mean(axis=(3, 5))
    assert np.abs(small - large).mean() < 6
