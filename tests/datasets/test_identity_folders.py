import numpy as np
import PIL.Image
import pytest

from forgetbench.datasets import load_partition
from forgetbench.errors import UsageError


def write(folder, people, prefix="", start=0):
    for place, (person, count) in enumerate(people.items()):
        (folder / f"{prefix}{person}").mkdir(parents=True, exist_ok=True)
        for shot in range(count):
            rng = np.random.default_rng(1000 * start + 100 * place + shot)
            pixels = rng.integers(0, 256, (14, 12, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / f"{prefix}{person}" / f"{person}_{shot:04d}.jpg")


@pytest.mark.parametrize(
    ("name", "below", "prefix"),
    [("pins", "105_classes_pins_dataset", "pins_"), ("lfw", "lfw", ""), ("casia100", "casia100", "")],
)
def test_people_with_enough_pictures_are_divided(tmp_path, name, below, prefix):
    write(tmp_path / below, {"Ada Lovelace": 12, "Bo": 20, "Cy": 9, "Di": 10}, prefix)
    partition = load_partition(name, {"size": 8}, tmp_path)
    assert partition.train.classes == ("Ada Lovelace", "Bo", "Di")
    assert sum(len(images) for _, images in partition.parts()) == 42
    assert np.array_equal(partition.train.labels, partition.train.identities)
    assert set(partition.train.labels) == set(partition.test.labels) == {0, 1, 2}
    assert load_partition(name, {"size": 8}, tmp_path / below).sha256 == partition.sha256
    assert load_partition(name, {"size": 8, "pictures": 9}, tmp_path).train.outputs == 4
    with pytest.raises(UsageError, match=r"1 people have 15 pictures or more.*the most is 20"):
        load_partition(name, {"size": 8, "pictures": 15}, tmp_path)


def test_a_test_set_of_its_own_is_kept(tmp_path):
    write(tmp_path / "casia100" / "train", {"1": 10, "2": 10})
    write(tmp_path / "casia100" / "test", {"1": 10, "2": 10}, start=1)
    partition = load_partition("casia100", {"size": 8}, tmp_path)
    assert [len(images) for _, images in partition.parts()] == [20, 2, 18]


def test_folders_without_the_prefix_are_no_people(tmp_path):
    write(tmp_path / "pins", {"Ada": 12, "Bo": 12}, "pins_")
    write(tmp_path / "pins", {"notes": 12})
    assert load_partition("pins", {"size": 8}, tmp_path).train.outputs == 2
