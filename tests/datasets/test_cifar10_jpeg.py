import io
import tarfile
import time

import numpy as np
import PIL.Image
import pytest

from forgetbench.datasets import load_partition, make_loader
from forgetbench.datasets.cifar10_jpeg import CLASSES
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.errors import UsageError

SMALL = {"validation": 10}


def jpeg(label: int, number: int) -> bytes:
    """An image of one color that encodes its label (red) and number (green)."""
    stream = io.BytesIO()
    PIL.Image.new("RGB", (32, 32), (label * 25, number * 20, 128)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def decode_colors(images):
    """Decode label and number from the colors."""
    return np.round(images.images[:, 0, 16, 16] / 25).astype(int), np.round(images.images[:, 1, 16, 16] / 20).astype(
        int
    )


@pytest.fixture(params=["folder", "cifar10_jpeg.tar.xz", "cifar10_jpeg.tar"])
def root(request, tmp_path):
    """A miniature: 8 training and 3 test images of every class, in a scrambled order of the labels."""
    base = tmp_path / "cifar10_jpeg"
    base.mkdir()
    members = {
        f"{part}/{name}/{number:04d}.jpg": jpeg(label, number)
        for part, count in (("train", 8), ("test", 3))
        for label, name in enumerate(CLASSES)
        for number in range(count)
    }
    if request.param == "folder":
        for name, content in members.items():
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            (base / name).write_bytes(content)
    else:
        with tarfile.open(base / request.param, "w:xz" if request.param.endswith("xz") else "w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 8)).astype(np.uint8)
    np.save(base / "train_labels_original_order.npy", labels)
    return tmp_path


def test_training_rows_are_in_original_order(root):
    partition = load_partition("cifar10-jpeg", SMALL, root)
    labels = np.load(root / "cifar10_jpeg" / "train_labels_original_order.npy")
    assert np.array_equal(partition.train.labels, labels)
    label_of_rows, number = decode_colors(partition.train)
    assert np.array_equal(label_of_rows, labels)
    for label in range(10):  # the k-th image of a class is its file number k
        assert number[labels == label].tolist() == list(range(8))
        first = int(np.flatnonzero(labels == label)[0])
        assert partition.train.source(first).endswith(f"train/{CLASSES[label]}/0000.jpg")
    assert [len(images) for _, images in partition.parts()] == [80, 10, 20]
    for images in (partition.test, partition.validation):
        assert np.array_equal(decode_colors(images)[0], images.labels)


def test_compare_with_published_names_missing_numbers(root):
    """The miniature has the first 8 of 5,000 and the first 3 of 1,000 in every class."""
    sentences = make_loader("cifar10-jpeg").compare_with_published(root)
    assert len(sentences) == 20
    assert "train/airplane/<number>.jpg: 4,992 images are missing: 8, 9, 10, " in sentences[0]
    assert sentences[0].endswith(" and 4,980 more")


def test_compare_with_published_finds_gap_in_full_class(tmp_path, monkeypatch):
    monkeypatch.setattr("forgetbench.datasets.cifar10_jpeg.PUBLISHED", {"train": 8, "test": 3})
    for part, count in (("train", 8), ("test", 3)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                path = tmp_path / part / name / f"{number:04d}.{'JPG' if number % 2 else 'jpeg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(label, number))
    options = SMALL | {"order": "class"}
    assert len(load_partition("cifar10-jpeg", options, tmp_path).train) == 80
    loader = make_loader("cifar10-jpeg", options)
    assert loader.compare_with_published(tmp_path) == []
    (tmp_path / "train" / "cat" / "0003.JPG").rename(tmp_path / "train" / "cat" / "0008.jpg")
    assert [sentence.split("/<number>.jpg: ")[1] for sentence in loader.compare_with_published(tmp_path)] == [
        "1 images are missing: 3",
        "1 images are not in the published set: 8",
    ]


def test_second_load_decodes_nothing(root, monkeypatch):
    first = load_partition("cifar10-jpeg", SMALL, root)
    monkeypatch.setattr("forgetbench.datasets.cifar10_jpeg.decode_images", None)
    assert load_partition("cifar10-jpeg", SMALL, root).sha256 == first.sha256


def test_options_select_stratified_subset(root):
    partition = load_partition("cifar10-jpeg", SMALL | {"train": 40, "test": 10}, root)
    assert [len(images) for _, images in partition.parts()] == [40, 10, 10]
    assert np.bincount(partition.train.labels).tolist() == [4] * 10
    with pytest.raises(UsageError, match="the train set has 80 images"):
        load_partition("cifar10-jpeg", SMALL | {"train": 81}, root)
    with pytest.raises(UsageError, match="the test set has 30 images"):
        load_partition("cifar10-jpeg", {"validation": 30}, root)


def test_missing_order_file_error_suggests_class_order(root):
    (root / "cifar10_jpeg" / "train_labels_original_order.npy").unlink()
    with pytest.raises(UsageError, match="set option order to 'class'"):
        load_partition("cifar10-jpeg", SMALL, root)
    train = load_partition("cifar10-jpeg", SMALL | {"order": "class"}, root).train
    assert np.array_equal(train.labels, np.repeat(np.arange(10), 8))
    assert np.array_equal(decode_colors(train)[0], train.labels)


def test_order_file_with_wrong_counts_is_refused(root):
    np.save(root / "cifar10_jpeg" / "train_labels_original_order.npy", np.zeros(80, np.uint8))
    with pytest.raises(UsageError, match=r"has \[80, 0, .* labels of each class, but there are \[8, 8"):
        load_partition("cifar10-jpeg", SMALL, root)


def test_broken_archive_error_names_it(tmp_path):
    (tmp_path / "cifar10_jpeg.tar.xz").write_bytes(b"\xfd7zXZ\x00broken")
    np.save(tmp_path / "train_labels_original_order.npy", np.zeros(1, np.uint8))
    with pytest.raises(UsageError, match=r"cifar10_jpeg\.tar\.xz cannot be read as an archive"):
        load_partition("cifar10-jpeg", SMALL, tmp_path)


@pytest.mark.slow
def test_real_archive_loads_fast_and_in_order(real_data):
    start = time.perf_counter()
    partition = load_partition("cifar10-jpeg", {}, real_data)
    first = time.perf_counter() - start
    labels = np.load(real_data / "cifar10_jpeg" / "train_labels_original_order.npy")
    assert np.array_equal(partition.train.labels, labels)
    assert [len(images) for _, images in partition.parts()] == [50000, 1000, 9000]
    assert len(make_scenario("random", {"fraction": 0.1}).draw(partition).forget) == 5000
    start = time.perf_counter()
    load_partition("cifar10-jpeg", {}, real_data)
    assert time.perf_counter() - start < 3
    assert first < 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"garbage", "cannot be read; expected is an array of numbers from 0 to 9"),
        (np.full(80, -1, np.int64), "has label -1 at position 0"),
        (np.full(80, 10, np.int64), "has label 10 at position 0"),
        (np.zeros(80, np.float64), r"contains float64 \(80,\)"),
        (np.zeros((8, 10), np.uint8), r"contains uint8 \(8, 10\)"),
    ],
)
def test_wrong_order_file_error_names_it(root, content, message):
    path = root / "cifar10_jpeg" / "train_labels_original_order.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(
        UsageError, match=rf"(?s)train_labels_original_order\.npy {message}.*set option order to 'class'"
    ):
        load_partition("cifar10-jpeg", SMALL, root)


def test_copies_of_a_test_image_stay_in_one_part(tmp_path):
    for part, count in (("train", 2), ("test", 8)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                path = tmp_path / part / name / f"{number:04d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(label, number // 2 if part == "test" else number + 6))
    partition = load_partition("cifar10-jpeg", {"validation": 30, "order": "class"}, tmp_path)
    assert len(partition.validation) + len(partition.test) == 80
    seen = [
        set(zip(*map(np.ndarray.tolist, decode_colors(part)), strict=True))
        for part in (partition.validation, partition.test)
    ]
    assert not seen[0] & seen[1]


def test_archive_with_a_prefix_that_is_not_utf8_is_read(tmp_path):
    """Names are spelled out, so that messages and records can be written."""
    with tarfile.open(tmp_path / "cifar10_jpeg.tar", "w") as archive:
        for part, count in (("train", 2), ("test", 2)):
            for label, name in enumerate(CLASSES):
                for number in range(count):
                    info = tarfile.TarInfo(f"b\udce9b\udce9/{part}/{name}/{number}.jpg")
                    content = jpeg(label, number)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    train = load_partition("cifar10-jpeg", SMALL | {"order": "class"}, tmp_path).train
    assert train.source(0) == r"b\udce9b\udce9/train/airplane/0.jpg"
