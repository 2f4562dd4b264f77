import dataclasses
import hashlib

import numpy as np
import pytest
from support.image_sets import CARD

from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import ForgetBenchError


def toy(count: int = 6, **changes) -> ImageSet:
    rng = np.random.default_rng(0)
    columns = {
        "images": rng.integers(0, 256, (count, 3, 4, 5), dtype=np.uint8),
        "labels": np.arange(count) % 2,
        "classes": ("no", "yes"),
        "identities": np.arange(count) // 2,
    }
    return ImageSet(**(columns | changes))


def test_image_set_is_immutable():
    images = toy()
    for column in (images.images, images.labels, images.identities):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        images.labels = images.labels


def test_take_keeps_order_and_every_column():
    taken = toy(fine_labels=np.arange(6), fine_classes=tuple("abcdef")).take([4, 1, 4])
    assert taken.labels.tolist() == [0, 1, 0]
    assert taken.identities.tolist() == [2, 0, 2]
    assert taken.fine_labels.tolist() == [4, 1, 4]
    assert np.array_equal(taken.images[0], taken.images[2])


def test_sha256_covers_every_column_and_nothing_else():
    base = toy()
    other_pixel = base.images.copy()
    other_pixel[3, 1, 2, 2] ^= 1
    variants = [
        toy(images=other_pixel),
        toy(labels=1 - base.labels),
        toy(classes=("yes", "no")),
        toy(identities=None),
        toy(identities=base.identities + 1),
        toy(fine_labels=base.labels, fine_classes=("no", "yes")),
        toy(labels=np.stack([base.labels, base.labels], 1)),
    ]
    assert len({image_set.sha256 for image_set in variants} | {base.sha256}) == len(variants) + 1
    assert toy().sha256 == base.sha256
    assert toy(images=np.asfortranarray(base.images)).sha256 == base.sha256


def test_sha256_matches_documented_bytes():
    images = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    head = b'[["a", "b"], [], [[2, 1, 2, 2], [2], null, null]]'
    expected = hashlib.sha256(head + bytes(range(8)) + (1).to_bytes(8, "little") + bytes(8)).hexdigest()
    assert ImageSet(images, np.array([1, 0]), ("a", "b")).sha256 == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((6, 4, 5), np.uint8)}, "must be uint8"),
        ({"images": np.zeros((6, 3, 4, 5), np.float32)}, "must be uint8"),
        ({"labels": np.array([0, 1, 2, 0, 1, 0])}, "found 0 to 2"),
        ({"labels": np.array([0, 1, -1, 0, 1, 0])}, "found -1 to 1"),
        ({"labels": np.zeros((6, 3), np.int64)}, "3 attributes"),
        ({"labels": np.full((6, 2), 2)}, "attributes must be 0 or 1"),
        ({"identities": np.arange(5)}, "6 images, but 5 identities"),
    ],
)
def test_image_set_inconsistent_arrays_are_refused(changes, message):
    with pytest.raises(ForgetBenchError, match=message):
        toy(**changes)


def test_first_copy_is_first_row_with_equal_bytes():
    images = toy().images.copy()
    images[4] = images[1]
    images[5] = images[1]
    assert toy(images=images).first_copy.tolist() == [0, 1, 2, 3, 1, 1]


def test_channel_statistics_match_numpy():
    images = toy(50, labels=np.zeros(50, np.int64), identities=None)
    mean, deviation = images.channel_statistics()
    unit = images.images / 255
    assert mean == pytest.approx(unit.mean((0, 2, 3)), rel=1e-9)
    assert deviation == pytest.approx(unit.std((0, 2, 3)), rel=1e-9)


def test_partition_refuses_different_parts():
    with pytest.raises(ForgetBenchError, match="test has classes"):
        Partition("toy", toy(), toy(), toy(classes=("a", "b")), None, CARD)
    with pytest.raises(ForgetBenchError, match="images of unseen"):
        Partition("toy", toy(), toy(), toy(), toy(images=np.zeros((6, 3, 5, 5), np.uint8)), CARD)
    with pytest.raises(ForgetBenchError, match=r"image set 'toy': part 'test' is empty\. Add images"):
        Partition("toy", toy(), toy(), toy().take([]), None, CARD)
