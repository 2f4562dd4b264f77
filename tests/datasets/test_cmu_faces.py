"""CMU Face Images: a miniature in its format, and the real files if they are available."""

import hashlib
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from forgetbench.datasets import cmu_faces, load_partition
from forgetbench.datasets.check import check_image_set
from forgetbench.datasets.cmu_faces import EMBEDDED, EMBEDDED_SHA256, CmuFaces
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


def test_identity_labels_split_within_person(cmu):
    partition = load_partition("cmu-faces", {}, cmu)
    assert [len(images) for _, images in partition.parts()] == [153, 26, 77]
    numbers = (1, 2, 3, 4, 5, 6, 7, 12)
    assert partition.train.classes == tuple(f"person-{number:02}" for number in numbers)
    assert set(partition.train.labels) == set(partition.test.labels) == set(range(8))
    assert partition.train.images.shape[1:] == (1, 32, 32)
    assert load_partition("cmu-faces", {}, cmu / "cmu_faces").sha256 == partition.sha256


@pytest.mark.parametrize("labels", ["expression", "pose", "sunglasses"])
def test_other_labels_split_by_person(cmu, labels):
    partition = load_partition("cmu-faces", {"labels": labels}, cmu)
    people = [set(images.identities.tolist()) for _, images in partition.parts()]
    assert [len(numbers) for numbers in people] == [3, 1, 2, 2]
    assert len(set.union(*people)) == 8
    counts = np.bincount(partition.train.labels)
    assert counts.min() == counts.max() == 3 * 32 / len(partition.train.classes)


def test_wrong_file_names_are_refused(cmu):
    for name in ("an2i_down_sad_open.pgm", "at33_left_sad_open.pgm", "an2i.pgm"):
        stray = cmu / "cmu_faces" / "faces" / "an2i" / name
        stray.write_bytes(pgm(0, 128, 120))
        with pytest.raises(UsageError, match=rf"{name} is not a file name of CMU Face.* Expected: .*poses straight"):
            load_partition("cmu-faces", {}, cmu)
        stray.unlink()


def test_damaged_image_error_names_it(cmu):
    victim = cmu / "cmu_faces" / "faces" / "bpm" / "bpm_up_sad_open.pgm"
    content = victim.read_bytes()
    victim.write_bytes(content[:100])
    with pytest.raises(UsageError, match=r"bpm_up_sad_open\.pgm: it is truncated: .*Copy the file from its source"):
        load_partition("cmu-faces", {}, cmu)
    victim.write_bytes(content)


def test_the_package_has_the_published_images(real_data):
    own = load_partition("cmu-faces", {"labels": "expression"})
    files = load_partition("cmu-faces", {"labels": "expression"}, real_data)
    assert own.sha256 == files.sha256
    assert own.train.people == files.train.people == tuple(f"person-{number:02}" for number in range(1, 21))
    assert not own.train.sources


def test_the_package_needs_no_files_and_no_folder(tmp_path):
    for root in (None, tmp_path):
        partition = load_partition("cmu-faces", {}, root)
        assert sum(len(images) for _, images in partition.parts()) == 624
        assert len(partition.train.classes) == 20
    assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() == EMBEDDED_SHA256
    assert EMBEDDED.stat().st_size < 1_000_000
    notice = (Path(__file__).parents[2] / "NOTICE").read_text("utf-8")
    for text in (EMBEDDED_SHA256, "CC BY 4.0", "free of charge for any educational purpose"):
        assert text in notice
    assert "CC BY 4.0" in CmuFaces.card.license
    assert "educational" in CmuFaces.card.license


def test_other_sizes_and_other_builds_need_the_files(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="needs files, but no data folder was named"):
        load_partition("cmu-faces", {"size": 64})
    monkeypatch.setattr(cmu_faces, "EMBEDDED", tmp_path / "absent.npz")
    with pytest.raises(UsageError, match="needs files, but no data folder was named"):
        load_partition("cmu-faces", {})


def test_a_damaged_package_file_is_named(monkeypatch, tmp_path):
    (tmp_path / "cmu_faces.npz").write_bytes(EMBEDDED.read_bytes()[:-1])
    monkeypatch.setattr(cmu_faces, "EMBEDDED", tmp_path / "cmu_faces.npz")
    with pytest.raises(UsageError, match=r"cmu_faces\.npz is damaged.*Install ForgetBench again"):
        load_partition("cmu-faces", {})


def test_empty_folder_error_says_where_to_get_images(tmp_path):
    (tmp_path / "faces").mkdir()
    with pytest.raises(UsageError, match=r"There is no image in .*UCI repository, number 124"):
        load_partition("cmu-faces", {}, tmp_path)


def test_real_cmu_faces_have_published_counts(real_data):
    identity = load_partition("cmu-faces", {}, real_data)
    assert sum(len(images) for _, images in identity.parts()) == 624
    assert identity.train.outputs == 20
    assert np.bincount(np.concatenate([images.labels for _, images in identity.parts()])).min() == 28  # mitchell
    expression = load_partition("cmu-faces", {"labels": "expression"}, real_data)
    assert [len(np.unique(images.identities)) for _, images in expression.parts()] == [10, 2, 4, 4]
    split = make_scenario("identity", {"count": 2}).draw(expression)
    assert 56 <= len(split.forget) <= 64
    assert split.track == "match-oracle"


def test_check_image_set_lists_all_problems(cmu, tmp_path):
    shutil.copytree(cmu, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "cmu_faces" / "faces" / "an2i"
    (folder / "an2i_down_sad_open.pgm").write_bytes(pgm(0, 128, 120))
    (folder / "an2i_up_sad_open.pgm").write_bytes(b"P5")
    (folder / "an2i_left_sad_open.pgm").write_bytes(b"P5 128 120 255\n" + bytes(128 * 120))
    problems = check_image_set("cmu-faces", {}, tmp_path).problems
    assert {"wrong name", "unreadable image", "blank image"} <= {problem.kind for problem in problems}
    assert any(problem.message.endswith("a single color: an2i/an2i_left_sad_open.pgm") for problem in problems)
