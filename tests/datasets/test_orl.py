"""ORL: a miniature in its format, and the real files if they are available."""

import numpy as np

from forgetbench.datasets import load_partition


def pgm(seed: int, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    return f"P5\n{width} {height}\n255\n".encode() + pixels.tobytes()


def test_orl_splits_within_person(tmp_path):
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


def test_real_orl_has_published_counts(real_data):
    partition = load_partition("orl", {}, real_data)
    assert [len(images) for _, images in partition.parts()] == [240, 40, 120]
    assert np.bincount(partition.train.labels).tolist() == [6] * 40
