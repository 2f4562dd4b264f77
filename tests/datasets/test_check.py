import shutil
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from support.image_sets import CARD

from forgetbench.datasets import datasets, load_partition
from forgetbench.datasets.check import check_image_set, check_partition, prepare, terms_of_use
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError


def toy_set(seed, people, count=20, **changes):
    columns = {
        "images": np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8),
        "labels": np.arange(count) % 2,
        "classes": ("a", "b"),
        "identities": people + np.arange(count) // 4,
    }
    return ImageSet(**(columns | changes))


def toy(train=None, validation=None, test=None, unseen=None):
    return Partition(
        "toy",
        train or toy_set(0, 0),
        validation or toy_set(1, 10),
        test or toy_set(2, 20),
        unseen or toy_set(3, 30),
        CARD,
    )


def problems_of(partition):
    return [(problem.kind, problem.message, problem.serious) for problem in check_partition(partition)]


def test_check_partition_sound_has_no_problem():
    assert problems_of(toy()) == []


def test_check_partition_finds_image_in_two_parts():
    images = toy_set(2, 20).images.copy()
    images[[3, 7]] = toy_set(0, 0).images[[1, 2]]
    assert problems_of(toy(test=toy_set(2, 20, images=images))) == [
        (
            "repeated across parts",
            "2 images of test are also in train, byte for byte: row 3 = row 1, row 7 = row 2",
            True,
        )
    ]


def test_check_partition_finds_person_in_two_parts():
    assert problems_of(toy(unseen=toy_set(3, 4))) == [
        ("person in two parts", "1 people are in train and in unseen: number 4 (row 16, row 0)", True)
    ]


def test_check_partition_finds_leaks_of_published_list():
    """Row 3 of the listed rows 0 to 5 is also retained as row 12, person 1 is on both sides, 3 and 31 are the same."""
    train, unseen = toy_set(0, 0).images.copy(), toy_set(3, 30).images.copy()
    train[12] = train[3]
    unseen[5] = train[13]
    partition = replace(
        toy(toy_set(0, 0, images=train), unseen=toy_set(3, 30, images=unseen)),
        forget_lists={"published": np.arange(6)},
    )
    assert [problem.message for problem in check_partition(partition) if problem.kind == "leak as published"] == [
        "1 images of the list 'published' are also retained, byte for byte: row 3",
        "2 people, counting people who share an image as one, are in the list 'published' and in the retained "
        "images: number 0, number 1, number 3",
        "1 people, counting people who share an image as one, are in train and in unseen: number 0, number 3, "
        "number 31",
    ]
    assert not any(problem.serious for problem in check_partition(partition) if problem.kind == "leak as published")
    assert not any(problem.kind == "leak as published" for problem in check_partition(toy()))


def test_check_partition_people_as_classes_are_no_problem():
    labels = np.arange(20) % 5
    parts = [toy_set(seed, 0, labels=labels, classes=tuple("abcde"), identities=labels + 7) for seed in range(3)]
    partition = Partition("toy", *parts, None, CARD)
    assert [name for name, _, _ in problems_of(partition)] == ["too few images"] * 5


def test_check_partition_finds_repeated_and_blank_images():
    images = toy_set(0, 0).images.copy()
    images[5] = images[2]  # the label differs
    images[6] = images[4]
    images[9] = 77
    assert problems_of(toy(train=toy_set(0, 0, images=images))) == [
        (
            "contradicting labels",
            "1 training images are copies of another one with a different label: row 5 = row 2",
            True,
        ),
        (
            "repeated in training",
            "2 training images are copies of another one, byte for byte: row 5 = row 2, row 6 = row 4",
            False,
        ),
        ("blank image", "1 images of train have a single color: row 9", False),
    ]


def test_check_partition_finds_classes_without_images():
    names = ("a", "b", "c")
    parts = [toy_set(seed, 10 * seed, classes=names) for seed in range(4)]
    assert problems_of(Partition("toy", *parts, CARD)) == [
        ("too few images", "class 'c' has 0 training images", True),
        ("untested class", "class 'c' has no test image", False),
    ]


def test_check_image_set_lists_every_unreadable_file(tmp_path):
    for number in range(40):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(path)
        if number < 15:
            path.write_bytes(b"broken")
    problems = check_image_set("folder", {"size": 8}, tmp_path).problems
    assert len(problems) == 15
    assert {problem.kind for problem in problems} == {"unreadable image"}
    assert all("png: its format is not supported" in problem.message and problem.fix for problem in problems)
    with pytest.raises(UsageError, match=r"'folder' has 15 problems; `forgetbench data check`(?s:.*)and 5 more"):
        load_partition("folder", {"size": 8}, tmp_path)


def test_check_image_set_missing_files_says_where_to_get_them(tmp_path):
    problem, *others = check_image_set("cmu-faces", {"size": 64}, tmp_path).problems
    assert not others
    assert problem.serious
    assert "UCI repository" in problem.fix
    with pytest.raises(UsageError, match="Unknown option 'sise'"):
        check_image_set("cmu-faces", {"sise": 3}, tmp_path)


@pytest.mark.parametrize("name", [name for name in datasets.names() if datasets.get(name).card.embedded])
def test_embedded_image_sets_have_no_problem(name):
    assert check_image_set(name).problems == []


def test_real_image_sets_have_no_problem(real_data):
    assert check_image_set("cmu-faces", {"labels": "pose"}, real_data).problems == []
    assert check_image_set("orl", {}, real_data).problems == []


def differences(name, root, options=None):
    problems = check_image_set(name, options or {}, root).problems
    assert not any(problem.serious for problem in problems)
    return [problem.message for problem in problems if problem.kind == "not the published set"]


def test_orl_compare_with_published_names_missing_images(real_data, tmp_path):
    folder = tmp_path / "att_faces"
    shutil.copytree(real_data / "att_orl" / "att_faces", folder)
    make_writable(folder)
    (folder / "s3" / "4.pgm").rename(folder / "s3" / "4.PGM")
    assert check_image_set("orl", {}, tmp_path).problems == []
    (folder / "s3" / "4.PGM").unlink()
    (folder / "s39" / "1.pgm").rename(folder / "s39" / "11.pgm")
    shutil.rmtree(folder / "s7")
    assert differences("orl", tmp_path) == [
        f"{folder}: 12 images are missing: s3/4, s7/1, s7/2, s7/3, s7/4, s7/5, s7/6, s7/7, s7/8, s7/9, s7/10, s39/1",
        f"{folder}: 1 images are not in the published set: s39/11",
    ]


def test_cmu_compare_with_published_names_missing_images(real_data, tmp_path):
    folder = tmp_path / "cmu_faces" / "faces"
    shutil.copytree(real_data / "cmu_faces" / "faces", folder)
    make_writable(folder)
    chosen = sorted(folder.glob("*/*_up_sad_*.pgm"))[:13]
    for path in chosen[:12]:
        path.unlink()
    chosen[12].rename(chosen[12].with_suffix(".PGM"))
    names = ", ".join(path.stem for path in chosen[:12])
    assert differences("cmu-faces", tmp_path) == [f"{folder}: 12 images are missing: {names}"]


def make_writable(folder):
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


def test_terms_of_use_warn_of_people_and_redistribution():
    for name in datasets.names():
        card = datasets.get(name).card
        text = "\n".join(terms_of_use(card))
        assert card.license in text
        assert ("shows real people" in text) == card.people
        assert ("must not be redistributed" in text) == card.restricted
    restricted = {name for name in datasets.names() if datasets.get(name).card.restricted}
    assert restricted >= {"casia100", "celeba", "lfw", "mucac", "mufac", "pins"}
    assert not any(datasets.get(name).card.downloads for name in restricted)


def test_prepare_shows_terms_and_downloads_nothing_restricted(tmp_path, monkeypatch):
    lines = []
    problems = prepare("mufac", {}, tmp_path, lines.append).problems
    assert any("ForgetBench never downloads it" in line for line in lines)
    assert "ndb796" in problems[0].fix
    fetched = []
    monkeypatch.setattr(
        "forgetbench.datasets.torchvision_sets.TorchvisionLoader.prepare", lambda _, root: fetched.append(root)
    )
    assert prepare("cifar10", {}, tmp_path, lines.append).problems[0].kind == "missing image set"
    assert fetched == [tmp_path]
    with pytest.raises(UsageError, match="Name it with --root"):
        prepare("cifar10")


def noise(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def test_check_image_set_lists_all_problems_of_a_table(tmp_path):
    lines = ["path,label,identity,split"]
    for n in range(60):
        noise(tmp_path / f"{n}.png", n)
        path = f"gone{n}.png" if n in {10, 11} else f"{n}.png"
        label = "" if n in {14, 15} else "ab"[n % 2]
        identity = {24: "", 48: "p2"}.get(n, f"p{n // 4}")
        part = "tset" if n == 20 else "train" if n < 40 else "test"
        lines.append(f"{path},{label},{identity},{part}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "7.png").write_bytes(b"<html>")
    (tmp_path / "50.png").write_bytes((tmp_path / "3.png").read_bytes())
    problems = check_image_set("folder", {"size": 8}, tmp_path).problems
    text = "\n".join(f"{problem.message}. {problem.fix}" for problem in problems)
    assert [problem.kind for problem in problems] == [
        *["missing file"] * 2,
        *["wrong row"] * 4,
        "unreadable image",
        "repeated across parts",
        "person in two parts",
    ]
    for expected in (
        "row 12 of",
        "row 13 of",
        "row 16 of",
        "row 17 of",
        "row 22 of",
        "row 26 of",
        "7.png: it is a web page",
        "50.png = 3.png",
        "'p2' (8.png, 48.png)",
    ):
        assert expected in text
    assert not any("rows" in problem.message for problem in problems)
    with pytest.raises(UsageError, match="'folder' has 7 problems"):  # those of the parts are for the check alone
        load_partition("folder", {"size": 8}, tmp_path)


def test_check_image_set_returns_readable_partition(tmp_path):
    for n in range(40):
        noise(tmp_path / "ab"[n % 2] / f"{n}.png", n)
    partition, problems = check_image_set("folder", {"size": 8}, tmp_path)
    assert problems == []
    assert [len(images) for _, images in partition.parts()] == [28, 4, 8]


def test_check_partition_accepts_empty_validation():
    assert problems_of(toy(validation=toy_set(1, 10).take([]))) == []
