"""Links, other formats and archives that were unpacked too deep: every loader treats them alike."""

import shutil

import numpy as np
import PIL.Image
import pytest

from forgetbench.datasets import load_partition, make_loader
from forgetbench.errors import UsageError

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_image(path, seed, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path, kind)


def make(name, root):
    """A miniature of an image set; returns its folder of class folders."""
    people = ("ada", "bo", "cy")
    if name == "orl":
        names = [f"s{person}/{shot}.pgm" for person in (1, 2, 3) for shot in range(1, 11)]
        base = root / "att_orl" / "att_faces"
    elif name == "cmu-faces":
        poses, moods = ("straight", "left", "right", "up"), ("neutral", "happy", "sad", "angry")
        names = [f"{person}/{person}_{pose}_{mood}_open.pgm" for person in people for pose in poses for mood in moods]
        base = root / "cmu_faces" / "faces"
    elif name == "cifar10-jpeg":
        names = [f"{part}/{label}/{n}.jpg" for part in ("train", "test") for label in CIFAR for n in range(5)]
        base = root / "cifar10_jpeg"
    else:
        prefix = "pins_" if name == "pins" else ""
        parts = ("train/", "test/") if name == "casia100" else ("",)
        names = [f"{part}{prefix}{p}/{p}_{n:04d}.jpg" for part in parts for p in people for n in range(12)]
        base = root / {"pins": "PINS", "lfw": "lfw", "casia100": "casia100", "folder": "images"}[name]
    for seed, path in enumerate(names):
        write_image(base / path, seed)
    return base


OPTIONS = {
    "folder": {"size": 8, "path": "images"},
    "orl": {"size": 8},
    "cmu-faces": {"size": 8},
    "pins": {"size": 8},
    "lfw": {"size": 8},
    "casia100": {"size": 8},
    "cifar10-jpeg": {"order": "class", "validation": 10},
}


def class_folder(name, base):
    """A folder that contains images of one class."""
    inner = base / "train" if name in ("casia100", "cifar10-jpeg") else base
    return sorted(path for path in inner.iterdir() if path.is_dir())[0]


@pytest.mark.parametrize("name", OPTIONS)
def test_linked_class_folder_is_read(name, tmp_path):
    base = make(name, tmp_path / "data")
    expected = load_partition(name, OPTIONS[name], tmp_path / "data").sha256
    folder = class_folder(name, base)
    shutil.move(folder, tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved", target_is_directory=True)
    (folder / "loop").symlink_to(tmp_path / "data", target_is_directory=True)
    assert load_partition(name, OPTIONS[name], tmp_path / "data").sha256 == expected


@pytest.mark.parametrize("name", OPTIONS)
def test_broken_link_is_named(name, tmp_path):
    base = make(name, tmp_path / "data")
    folder = class_folder(name, base)
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path / "gone", target_is_directory=True)
    with pytest.raises(UsageError, match=rf"{folder} is a link to .*gone, which does not exist\. Restore what it"):
        load_partition(name, OPTIONS[name], tmp_path / "data")


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "cifar10-jpeg"])
def test_other_formats_are_noted(name, tmp_path):
    base = make(name, tmp_path / "data")
    assert make_loader(name, OPTIONS[name]).load(tmp_path / "data").notes == ()
    (class_folder(name, base) / "new.avif").write_bytes(b"")
    (class_folder(name, base) / "old.jfif").write_bytes(b"")
    [note] = load_partition(name, OPTIONS[name], tmp_path / "data").notes
    assert "avif" in note
    assert "jfif are JPEG: rename them to .jpg" in note


@pytest.mark.parametrize(
    ("name", "outer", "deeper"),
    [
        ("orl", "att_orl", "att_orl/att_faces"),
        ("cmu-faces", "cmu_faces", "cmu_faces"),
        ("cifar10-jpeg", "cifar10_jpeg", "cifar10_jpeg"),
    ],
)
def test_archive_unpacked_too_deep_is_found(name, outer, deeper, tmp_path):
    """The folder of the archive's name once more around it."""
    make(name, tmp_path / "data")
    (tmp_path / "root" / outer).mkdir(parents=True)
    shutil.move(tmp_path / "data" / outer, tmp_path / "root" / outer / "archive")
    place = tmp_path / "root" / outer / "archive" / deeper.removeprefix(outer).lstrip("/")
    with pytest.raises(UsageError, match=rf"It is in {place}: name that folder with --root"):
        load_partition(name, OPTIONS[name], tmp_path / "root")
    load_partition(name, OPTIONS[name], place)
