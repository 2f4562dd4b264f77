import numpy as np
import PIL.Image
import pytest

from forgetbench.datasets import load_partition, make_loader
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
def test_people_with_enough_images_are_split(tmp_path, name, below, prefix):
    write(tmp_path / below, {"Ada Lovelace": 12, "Bo": 20, "Cy": 9, "Di": 10}, prefix)
    partition = load_partition(name, {"size": 8}, tmp_path)
    assert partition.train.classes == ("Ada Lovelace", "Bo", "Di")
    assert sum(len(images) for _, images in partition.parts()) == 42
    assert np.array_equal(partition.train.labels, partition.train.identities)
    assert set(partition.train.labels) == set(partition.test.labels) == {0, 1, 2}
    assert load_partition(name, {"size": 8, "pictures": 9}, tmp_path).train.outputs == 4
    with pytest.raises(UsageError, match=r"1 people have at least 15 images.*the most is 20"):
        load_partition(name, {"size": 8, "pictures": 15}, tmp_path)


@pytest.mark.parametrize(("name", "prefix"), [("pins", "pins_"), ("lfw", ""), ("casia100", "")])
def test_data_folder_can_be_the_image_set(tmp_path, name, prefix):
    people, parts = {"Ada": 12, "Bo": 20}, [""] if name != "casia100" else ["train", "test"]
    for place, part in enumerate(parts):
        write(tmp_path / "here" / part, people, prefix, place)
        write(tmp_path / "elsewhere" / name / part, people, prefix, place)
    own = load_partition(name, {"size": 8}, tmp_path / "here")
    assert own.sha256 == load_partition(name, {"size": 8}, tmp_path / "elsewhere").sha256
    assert own.train.classes == ("Ada", "Bo")


@pytest.mark.parametrize("name", ["casia100", "lfw", "pins"])
@pytest.mark.parametrize("stem", ["{person}_{shot}", "{shot:04d}", "Ada Lovelace_{shot:04d}"])
def test_other_image_folders_are_not_mistaken_for_the_set(tmp_path, name, stem):
    """Other image sets in a data folder, one folder deep and two."""
    for folder in ("orl", "cmu_faces/faces", "."):
        for person in ("an2i", "s2"):
            for shot in range(12):
                path = tmp_path / folder / person / f"{stem.format(person=person, shot=shot)}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.new("RGB", (8, 8), (shot, 0, 0)).save(path)
    with pytest.raises(UsageError, match=rf"needs files, but {tmp_path} has no folder .*, and does not itself"):
        load_partition(name, {"size": 8}, tmp_path)


def test_compare_with_published_reports_counts(tmp_path):
    for name, prefix in (("pins", "pins_"), ("lfw", ""), ("casia100", "")):
        write(tmp_path / name, {"Ada": 12, "Bo": 1}, prefix)
    (tmp_path / "lfw" / "Bo" / "notes.jpg").write_bytes(b"not an image of LFW")
    pins, lfw, casia = (make_loader(name).compare_with_published(tmp_path) for name in ("pins", "lfw", "casia100"))
    assert pins == [
        f"{tmp_path / 'pins'} has 2 people; the published set has 105",
        f"{tmp_path / 'pins'} has 13 images; the published set has 17,534",
    ]
    assert [sentence.split(" has ")[1] for sentence in lfw] == [
        "2 people; the published set",
        "13 images; the published set",
    ]
    assert casia == [f"{tmp_path / 'casia100'} has 2 people; the published set has 100"]


def test_given_test_set_is_used(tmp_path):
    write(tmp_path / "casia100" / "train", {"1": 10, "2": 10})
    write(tmp_path / "casia100" / "test", {"1": 10, "2": 10}, start=1)
    partition = load_partition("casia100", {"size": 8}, tmp_path)
    assert [len(images) for _, images in partition.parts()] == [20, 2, 18]


def test_folders_without_prefix_are_ignored(tmp_path):
    write(tmp_path / "pins", {"Ada": 12, "Bo": 12}, "pins_")
    write(tmp_path / "pins", {"notes": 12})
    assert load_partition("pins", {"size": 8}, tmp_path).train.outputs == 2
