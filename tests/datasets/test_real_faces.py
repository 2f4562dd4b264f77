"""CMU Face Images and ORL: miniatures in their formats, and the real files where they are at hand."""

import shutil
import zlib

import numpy as np
import pytest

from forgetbench.datasets import load_partition
from forgetbench.datasets.check import check_image_set
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.errors import UsageError

POSES = ("straight", "left", "right", "up")
EXPRESSIONS = ("neutral", "happy", "sad", "angry")
EYES = ("open", "sunglasses")


def pgm(seed: int, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    return f"P5\n{width} {height}\n255\n".encode() + pixels.tobytes()


@pytest.fixture(scope="module")
def cmu(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    names = [f"{pose}_{expression}_{eyes}" for pose in POSES for expression in EXPRESSIONS for eyes in EYES]
    for person in ("an2i", "at33", "boland", "bpm", "ch4f", "cheyer", "choon", "kk49"):
        folder = root / "cmu_faces" / "faces" / person
        folder.mkdir(parents=True)
        for place, name in enumerate(names):
            (folder / f"{person}_{name}.pgm").write_bytes(pgm(zlib.crc32(f"{person}{place}".encode()), 128, 120))
        (folder / f"{person}_left_sad_open_2.pgm").write_bytes(pgm(0, 64, 60))
        (folder / f"{person}_left_sad_open_4.pgm").write_bytes(pgm(0, 32, 30))
        (folder / f"{person}_up_sad_open.bad").write_bytes(b"damaged")
    return root


def test_cmu_identity_divides_every_persons_pictures(cmu):
    partition = load_partition("cmu-faces", {}, cmu)
    assert [len(images) for _, images in partition.parts()] == [153, 26, 77]
    assert partition.train.classes == ("an2i", "at33", "boland", "bpm", "ch4f", "cheyer", "choon", "kk49")
    assert set(partition.train.labels) == set(partition.test.labels) == set(range(8))
    assert partition.train.images.shape[1:] == (1, 32, 32)
    assert load_partition("cmu-faces", {}, cmu / "cmu_faces").sha256 == partition.sha256


@pytest.mark.parametrize("labels", ["expression", "pose", "sunglasses"])
def test_cmu_other_labels_keep_people_apart(cmu, labels):
    partition = load_partition("cmu-faces", {"labels": labels}, cmu)
    people = [set(images.identities.tolist()) for _, images in partition.parts()]
    assert [len(who) for who in people] == [3, 1, 2, 2]
    assert len(set.union(*people)) == 8
    counts = np.bincount(partition.train.labels)
    assert counts.min() == counts.max() == 3 * 32 / len(partition.train.classes)


def test_cmu_names_outside_the_grammar_are_refused(cmu):
    for name in ("an2i_down_sad_open.pgm", "at33_left_sad_open.pgm", "an2i.pgm"):
        stray = cmu / "cmu_faces" / "faces" / "an2i" / name
        stray.write_bytes(pgm(0, 128, 120))
        with pytest.raises(UsageError, match=rf"{name} is no name of CMU Face Images: expected is .*poses straight"):
            load_partition("cmu-faces", {}, cmu)
        stray.unlink()


def test_cmu_a_damaged_picture_is_named(cmu):
    victim = cmu / "cmu_faces" / "faces" / "bpm" / "bpm_up_sad_open.pgm"
    content = victim.read_bytes()
    victim.write_bytes(content[:100])
    with pytest.raises(UsageError, match=r"bpm_up_sad_open\.pgm: it is truncated: .*Copy the file again"):
        load_partition("cmu-faces", {}, cmu)
    victim.write_bytes(content)


def test_cmu_an_empty_folder_is_explained(tmp_path):
    (tmp_path / "faces").mkdir()
    with pytest.raises(UsageError, match=r"There is no picture below .*UCI repository, number 124"):
        load_partition("cmu-faces", {}, tmp_path)


def test_orl_is_divided_within_people(tmp_path):
    for person in range(1, 13):
        folder = tmp_path / "att_orl" / "att_faces" / f"s{person}"
        folder.mkdir(parents=True)
        for shot in range(1, 11):
            (folder / f"{shot}.pgm").write_bytes(pgm(100 * person + shot, 92, 112))
    partition = load_partition("orl", {"size": 16}, tmp_path)
    assert [len(images) for _, images in partition.parts()] == [72, 12, 36]
    assert partition.train.classes[:3] == ("s1", "s2", "s3")  # s2 before s10
    assert np.bincount(partition.train.labels).tolist() == [6] * 12
    assert load_partition("orl", {"size": 16}, tmp_path / "att_orl" / "att_faces").sha256 == partition.sha256


def test_the_real_cmu_faces(real_data):
    identity = load_partition("cmu-faces", {}, real_data)
    assert sum(len(images) for _, images in identity.parts()) == 624
    assert identity.train.outputs == 20
    assert np.bincount(np.concatenate([images.labels for _, images in identity.parts()])).min() == 28  # mitchell
    expression = load_partition("cmu-faces", {"labels": "expression"}, real_data)
    assert [len(np.unique(images.identities)) for _, images in expression.parts()] == [10, 2, 4, 4]
    split = make_scenario("identity", {"count": 2}).draw(expression)
    assert 56 <= len(split.forget) <= 64
    assert split.track == "match-oracle"


def test_the_real_orl(real_data):
    partition = load_partition("orl", {}, real_data)
    assert [len(images) for _, images in partition.parts()] == [240, 40, 120]
    assert np.bincount(partition.train.labels).tolist() == [6] * 40


def test_cmu_everything_that_is_wrong_is_listed_at_once(cmu, tmp_path):
    shutil.copytree(cmu, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "cmu_faces" / "faces" / "an2i"
    (folder / "an2i_down_sad_open.pgm").write_bytes(pgm(0, 128, 120))
    (folder / "an2i_up_sad_open.pgm").write_bytes(b"P5")
    (folder / "an2i_left_sad_open.pgm").write_bytes(b"P5 128 120 255\n" + bytes(128 * 120))
    problems = check_image_set("cmu-faces", {}, tmp_path).problems
    assert {"wrong name", "unreadable image", "blank image"} <= {problem.name for problem in problems}
    assert any(one.where.endswith("of one color: an2i/an2i_left_sad_open.pgm") for one in problems)
