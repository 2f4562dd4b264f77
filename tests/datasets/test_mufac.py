"""MUFAC: a miniature in its format, the public index of its images, and the real images if they are available."""

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from forgetbench.datasets import load_partition, make_loader
from forgetbench.datasets._perceptual_hash import perceptual_hash
from forgetbench.datasets._sampling import connected_groups
from forgetbench.datasets.check import check_image_set, published_leaks
from forgetbench.datasets.mufac import PUBLISHED, TABLES, clean_rows
from forgetbench.errors import UsageError
from forgetbench.store import file_digest
from forgetbench.tasks.task import read_task

SMALL = {"size": 16}


def scene(seed: int) -> PIL.Image.Image:
    """A smooth image: perceptual hashes of noise would be arbitrary."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return PIL.Image.fromarray(coarse).resize((128, 128), PIL.Image.Resampling.BICUBIC)


def write_tables(folder: Path, tables: dict[str, list[tuple[str, str, str, str, int]]]) -> None:
    """Tables of (family, person, age class, file name, seed of the image)."""
    for table, rows in tables.items():
        images = folder / f"{table}_images"
        images.mkdir(parents=True, exist_ok=True)
        lines = ["family_id,person_id,age_class,image_path"]
        for family, person, age_class, name, seed in rows:
            scene(seed).save(images / name, "JPEG", quality=90)
            lines.append(f"{family},{person},{age_class},{name}")
        (folder / f"custom_{table}_dataset.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    """Forty families of two people with three images each; F0002's daughter is repeated under F0031."""
    tables: dict[str, list] = {table: [] for table in TABLES}
    for family in range(1, 41):
        table = "train" if family <= 24 else "val" if family <= 32 else "test"
        for person in ("D", "GM"):
            for shot in (1, 2, 3):
                age_class = "abcdefgh"[(family + shot) % 8]
                suffix = "JPG" if shot == 2 else "jpg"
                number = "" if (family, shot) == (5, 3) else str(shot)
                name = f"F{family:04d}_AGE_{person}_{10 * shot}_{age_class}{number}.{suffix}"
                original = 2 if (family, person) == (31, "D") else family
                tables[table].append(
                    (f"F{family:04d}", person, age_class, name, 1000 * original + 10 * shot + (person == "D"))
                )
    write_tables(tmp_path / "mufac", tables)
    return tmp_path


@pytest.fixture
def forty(monkeypatch):
    """The first forty rows are the published ones: 13 people, and one image of a fourteenth."""
    monkeypatch.setattr("forgetbench.datasets.mufac.FORGET_ROWS", 40)


def assert_validation_people_are_separate(partition):
    """Validation people are in no other part, and their images are not either."""
    others = [images for part, images in partition.parts() if part != "validation"]
    assert not set(partition.validation.identities) & set(np.concatenate([part.identities for part in others]))
    shown = {image.tobytes() for images in others for image in images.images}
    assert not shown & {image.tobytes() for image in partition.validation.images}


@pytest.mark.usefixtures("forty")
def test_legacy_split_matches_the_published_one(root):
    """People with unseen images (F0002 D) or with some images to forget are not drawn for validation."""
    partition = load_partition("mufac", SMALL | {"split": "legacy"}, root)
    assert [len(images) for _, images in partition.parts()] == [135, 9, 48, 48]  # a tenth of 34 people, three images
    assert partition.forget_lists["published"].tolist() == list(range(40))
    assert partition.train.classes == tuple("abcdefgh")
    assert np.unique(partition.train.identities, return_counts=True)[1].tolist() == [3] * 45
    assert_validation_people_are_separate(partition)
    named = load_partition("mufac", SMALL | {"split": "legacy"}, root / "mufac")
    assert named.sha256 == partition.sha256


def test_legacy_split_without_retained_people_is_refused(root):
    """All 144 rows are among the first 1,500."""
    with pytest.raises(UsageError, match="without an image to forget or to test on, and there are 0"):
        load_partition("mufac", SMALL | {"split": "legacy"}, root)


def test_compare_with_published_reports_other_tables(root, monkeypatch):
    loader = make_loader("mufac")
    folder = root / "mufac"
    assert loader.compare_with_published(root)[0] == (
        f"{folder / 'custom_train_dataset.csv'} has 144 rows; the published table has 10,025"
    )
    assert len(loader.compare_with_published(root)) == 3
    known = {name: (rows, PUBLISHED[name][1]) for name, rows in (("train", 144), ("val", 48), ("test", 48))}
    monkeypatch.setattr("forgetbench.datasets.mufac.PUBLISHED", known)
    assert [sentence.split(" as ")[1] for sentence in loader.compare_with_published(root)] == [
        "many rows",
        "many rows",
        "many rows",
    ]
    hashes = {name: file_digest(folder / f"custom_{name}_dataset.csv") for name in TABLES}
    known = {name: (rows, hashes[name]) for name, (rows, _) in known.items()}
    monkeypatch.setattr("forgetbench.datasets.mufac.PUBLISHED", known)
    assert loader.compare_with_published(root) == []


def test_person_split_joins_people_who_share_images(root):
    partition = load_partition("mufac", SMALL | {"split": "person"}, root)
    people = [set(images.identities.tolist()) for _, images in partition.parts()]
    assert sum(len(images) for _, images in partition.parts()) == 237  # three images are there twice
    assert sum(map(len, people)) == len(set.union(*people)) == 79
    assert [len(numbers) for numbers in people] == [47, 8, 12, 12]


@pytest.mark.usefixtures("forty")
def test_clean_split_has_no_repeated_images(root):
    partition = load_partition("mufac", SMALL | {"split": "clean"}, root)
    assert [len(images) for _, images in partition.parts()] == [135, 9, 48, 48]
    assert_validation_people_are_separate(partition)
    assert np.array_equal(partition.train.first_copy, np.arange(135))


def test_clean_rows_matches_manual_result(monkeypatch):
    """Rows 0 and 1 are to be forgotten, 2 to 4 retained, then three of val and four of test."""
    monkeypatch.setattr("forgetbench.datasets.mufac.FORGET_ROWS", 2)
    tables = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    hashes = np.array([9, 1, 9, 2, 2, 3, 3, 4, 4, 5, 5, 1], dtype=np.uint64)
    selected = [
        1,
        2,
        3,
        5,
        9,
    ]
    # row 0 is retained, 4 repeats 3, 6 repeats 5, 7 and 8 are one image; 8 remains, since 7 is removed from val
    assert np.flatnonzero(clean_rows(tables, hashes)).tolist() == sorted([*selected, 8])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "F0003,D,e,F0003_AGE_D_10_e1.jpg",
            "F0003,S,e,F0003_AGE_D_10_e1.jpg",
            r"row 14 of .*train.*: person_id and the",
        ),
        (
            "F0003,D,e,F0003_AGE_D_10_e1.jpg",
            "F0003,D,e,F0003_AGE_D_10_e9.jpg",
            r"row 14 of .*names a missing file: .*e9\.jpg",
        ),
        ("family_id,person_id", "family,person_id", "has no column family_id"),
    ],
)
def test_wrong_row_error_names_it(root, old, new, message):
    table = root / "mufac" / "custom_train_dataset.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=message):
        load_partition("mufac", SMALL, root)


def test_perceptual_hash_matches_cosine_transform():
    image = scene(3)
    small = np.asarray(image.convert("L").resize((32, 32), PIL.Image.Resampling.LANCZOS), dtype=float)
    cosine = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(32) + 1) / 64)
    low = cosine @ small @ cosine.T
    digits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert perceptual_hash(image) == int(digits, 2)


def test_perceptual_hash_is_robust_to_recompression(tmp_path):
    for seed in range(20):
        scene(seed).save(tmp_path / "a.jpg", quality=70)
        with PIL.Image.open(tmp_path / "a.jpg") as saved:
            assert (perceptual_hash(saved) ^ perceptual_hash(scene(seed))).bit_count() <= 6
    assert len({perceptual_hash(scene(seed)) for seed in range(20)}) == 20


@pytest.fixture(scope="module")
def index(real_data):
    with (real_data / "mufac" / "index.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def column(index, *names):
    return np.unique(["/".join(row[name] for name in names) for row in index], return_inverse=True)[1]


def test_published_index_gives_published_counts(index):
    subset = np.array([row["subset"] for row in index])
    hashes = np.array([int(row["phash"], 16) for row in index], dtype=np.uint64)
    people = connected_groups(column(index, "family_id", "person_id"), column(index, "phash"))
    assert len(np.unique(people)) == 820
    assert len(set(zip(people.tolist(), column(index, "merged_person").tolist(), strict=True))) == 820
    tables = np.array([TABLES.index(row["split"]) for row in index])
    selected = clean_rows(tables, hashes)
    counts = {name: int((selected & (subset == name)).sum()) for name in ("forget", "retain", "val", "test")}
    assert counts == {"forget": 1065, "retain": 5513, "val": 1211, "test": 1118}


@pytest.mark.parametrize("table", TABLES)
def test_published_hashes_match_the_index(index, table):
    """The index names every row of the three tables, in their order."""
    columns = ("family_id", "person_id", "age_class", "image_path")
    rows = [[row[name] for name in columns] for row in index if row["split"] == table]
    text = "".join(",".join(row) + "\n" for row in [columns, *rows])
    assert (len(rows), hashlib.sha256(text.encode()).hexdigest()) == PUBLISHED[table]


@pytest.fixture(scope="module")
def mufac():
    """The real images: they must not be redistributed, so that no machine is required to have them."""
    folder = os.environ.get("FORGETBENCH_MUFAC")
    if not folder:
        pytest.skip("FORGETBENCH_MUFAC names no folder of MUFAC's images")
    return Path(folder)


@pytest.mark.slow
def test_real_images_match_the_index(mufac, index):
    legacy = load_partition("mufac", {"size": 32, **read_task("mufac/resnet18/legacy").image_set.options}, mufac)
    assert [len(images) for _, images in legacy.parts()] == [9775, 250, 1539, 1504]
    assert legacy.forget_lists["published"].tolist() == list(range(1500))
    shown = np.concatenate([legacy.train.labels, legacy.validation.labels])
    assert np.bincount(shown).tolist() == [2121, 1951, 1728, 1216, 1487, 814, 444, 264]
    assert np.bincount(legacy.test.labels).tolist() == [375, 367, 270, 239, 173, 79, 32, 4]
    assert_validation_people_are_separate(legacy)
    counted = [
        sentence.split(": ")[0].replace(", counting people who share an image as one,", "")
        for sentence in published_leaks(legacy)
    ]
    assert counted == [
        "18 images of the list 'published' are also retained, byte for byte",
        "3 people are in the list 'published' and among the retained",
        "2 people are in train and in unseen",
        "2 people are in test and in unseen",
    ]
    person = load_partition("mufac", {"split": "person", "size": 32}, mufac)
    assert sum(len(np.unique(images.identities)) for _, images in person.parts()) == 820
    assert sum(len(images) for _, images in person.parts()) == len({row["phash"] for row in index})
    clean = load_partition("mufac", {"size": 32, **read_task("mufac/resnet18/clean").image_set.options}, mufac)
    assert [len(images) for _, images in clean.parts()] == [1065 + 5513 - 166, 166, 1211, 1118]
    assert len(clean.forget_lists["published"]) == 1065
    assert_validation_people_are_separate(clean)


def test_check_image_set_lists_all_problems(root, monkeypatch):
    monkeypatch.setattr("forgetbench.datasets.mufac.FORGET_ROWS", 40)
    table = root / "mufac" / "custom_train_dataset.csv"
    text = table.read_text().replace("F0003,D,e,F0003_AGE_D_10_e1.jpg", "F0003,S,e,F0003_AGE_D_10_e1.jpg")
    table.write_text(text.replace("F0004,D,f,F0004_AGE_D_10_f1.jpg", "F0004,D,f,F0004_AGE_D_10_f9.jpg"))
    (root / "mufac" / "val_images" / "F0025_AGE_D_10_c1.jpg").write_bytes(b"<html>")
    problems = check_image_set("mufac", SMALL | {"split": "legacy"}, root).problems
    fixes = {problem.kind: problem.fix for problem in problems if problem.serious}
    assert {"wrong row", "missing file", "unreadable image", "repeated across parts"} <= fixes.keys()
    assert "Correct the row" in fixes["wrong row"]


def test_people_are_named_after_their_families(root, monkeypatch):
    monkeypatch.setattr("forgetbench.datasets.mufac.FORGET_ROWS", 40)
    legacy = load_partition("mufac", SMALL | {"split": "legacy"}, root).train
    assert legacy.people[legacy.identities[0]] == "F0001 D"
    joined = load_partition("mufac", SMALL | {"split": "person"}, root)
    assert "F0002 D = F0031 D" in joined.train.people
