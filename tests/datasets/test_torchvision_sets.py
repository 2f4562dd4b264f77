"""Sets that torchvision reads, in miniature: the real formats, with the miniature's own hashes."""

import hashlib
import pickle
import struct

import numpy as np
import pytest
import torchvision.datasets
from scipy.io import savemat

from forgetbench.datasets import load_partition, make_loader
from forgetbench.datasets.check import check_image_set
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.datasets.torchvision_sets import SUPERCLASSES
from forgetbench.errors import ForgetBenchError, UsageError

SMALL = {"validation": 10}
# As published with CIFAR-100's own coarse labels: the superclass of every fine class, in alphabetical order.
COARSE = """
 4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 19 8 8 15 13
 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 16 19 2 4 6 19 5 5 8 19
 18 1 2 15 6 0 17 8 14 13"""


def pickled(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()]


def images(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    batches = [
        pickled(folder / f"data_batch_{n}", {"data": images(10, n).reshape(10, -1), "labels": list(range(10))})
        for n in range(1, 6)
    ]
    tests = [pickled(folder / "test_batch", {"data": images(20, 9).reshape(20, -1), "labels": [*range(10)] * 2})]
    meta = pickled(folder / "batches.meta", {"label_names": [f"class {n}" for n in range(10)]})
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "train_list", batches)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", tests)
    monkeypatch.setattr(
        torchvision.datasets.CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]}
    )
    return tmp_path


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    fine = sorted(name for members in SUPERCLASSES.values() for name in members)
    train, test = (
        pickled(folder / name, {"data": images(100 * n, n).reshape(100 * n, -1), "fine_labels": [*range(100)] * n})
        for name, n in (("train", 2), ("test", 1))
    )
    meta = pickled(folder / "meta", {"fine_label_names": fine})
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "train_list", [train])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "test_list", [test])
    monkeypatch.setattr(
        torchvision.datasets.CIFAR100, "meta", {"filename": meta[0], "key": "fine_label_names", "md5": meta[1]}
    )
    return tmp_path


def test_cifar10_keeps_order_of_batches(cifar10):
    partition = load_partition("cifar10", SMALL, cifar10)
    assert [len(part) for _, part in partition.parts()] == [50, 10, 10]
    assert np.array_equal(partition.train.images, np.concatenate([images(10, n) for n in range(1, 6)]))
    assert partition.train.classes[3] == "class 3"


def test_damaged_file_is_refused(cifar10):
    (cifar10 / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"damaged")
    (cifar10 / "cifar-10-batches-py" / "test_batch").unlink()
    wrong = r"wrong: .*/data_batch_2, .*/test_batch \(missing\)\. Remove the damaged files; .*data prepare"
    with pytest.raises(
        UsageError, match=rf"files in .* are missing or damaged\. Expected: cifar-10.*{wrong}"
    ) as raised:
        load_partition("cifar10", SMALL, cifar10)
    assert "download=True" not in str(raised.value)


def test_cifar20_has_superclasses_of_cifar100(cifar100):
    hundred = load_partition("cifar100", SMALL, cifar100)
    assert (hundred.train.outputs, len(hundred.train)) == (100, 200)
    twenty = load_partition("cifar20", SMALL, cifar100)
    assert np.array_equal(twenty.train.fine_labels, hundred.train.labels)
    assert np.array_equal(twenty.train.labels, np.array(COARSE.split(), dtype=int)[hundred.train.labels])
    assert twenty.train.classes[0] == "aquatic_mammals"
    assert twenty.train.fine_classes[69] == "rocket"
    split = make_scenario("subclass", {"subclasses": ["rocket"]}).draw(twenty)
    assert set(twenty.train.fine_labels[split.forget]) == {69}


def test_svhn_maps_label_ten_to_zero(tmp_path, monkeypatch):
    parts = {}
    for name, count in (("train", 30), ("test", 20)):
        path = tmp_path / f"{name}_32x32.mat"
        savemat(path, {"X": images(count, count).transpose(2, 3, 1, 0), "y": np.arange(count)[:, None] % 10 + 1})
        parts[name] = ["", path.name, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", parts)
    partition = load_partition("svhn", SMALL, tmp_path)
    assert np.array_equal(partition.train.images, images(30, 30))
    assert partition.train.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]  # 10 means 0


def idx(raw):
    """Files in the format of MNIST below a folder; returns the MD5 of each."""
    raw.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 20)):
        pixels = images(count, count)[:, 0, :28, :28]
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    return {
        path.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in sorted(raw.iterdir())
    }


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnist_sets_are_verified_by_hash(tmp_path, monkeypatch, name, folder):
    raw = tmp_path / folder / "raw"
    monkeypatch.setattr(type(make_loader(name)), "raw_md5", idx(raw))
    partition = load_partition(name, SMALL, tmp_path)
    assert partition.train.images.shape == (30, 1, 28, 28)
    assert np.array_equal(partition.train.images[:, 0], images(30, 30)[:, 0, :28, :28])
    assert len(partition.train.classes) == 10
    assert load_partition(name, SMALL, tmp_path).sha256 == partition.sha256
    labels = raw / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x03")
    with pytest.raises(UsageError, match=rf"{labels} is not the published file, whose MD5 is .*Remove it; .*prepare"):
        load_partition(name, SMALL, tmp_path)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnist_sets_refuse_other_files(tmp_path, monkeypatch, name, folder):
    """By the published hashes, and in place of the raw files too."""
    hashes = idx(tmp_path / folder / "raw")
    problems = check_image_set(name, SMALL, tmp_path).problems
    assert len(problems) == 4
    assert f"{tmp_path / folder / 'raw' / 'train-images-idx3-ubyte'} is not the published file" in problems[0].message
    monkeypatch.setattr(type(make_loader(name)), "raw_md5", hashes)
    (tmp_path / folder / "processed").mkdir()
    with pytest.raises(UsageError, match="processed is from an old version of torchvision"):
        load_partition(name, SMALL, tmp_path)


def test_load_never_downloads(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("load tried to download")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UsageError, match=r"are missing or damaged\. .*data_batch_1 \(missing\)"):
        load_partition("cifar10", SMALL, tmp_path)


def test_prepare_failed_download_is_reported(tmp_path, monkeypatch):
    def broken(url, *_, **__):
        raise OSError(f"no way to {url}")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", broken)
    message = "'cifar10' could not be downloaded: no way to https.*or get the files elsewhere .*put them into"
    with pytest.raises(ForgetBenchError, match=message):
        make_loader("cifar10").prepare(tmp_path)
