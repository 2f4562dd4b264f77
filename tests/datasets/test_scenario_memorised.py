"""Scenario memorised, and the scores that it ranks by."""

from __future__ import annotations

import numpy as np
import pytest
from support.image_sets import CARD, make_fine_image_set, make_fine_partition

from forgetbench.datasets.scenarios import make_scenario
from forgetbench.datasets.scenarios.memorised import atypicality
from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import UsageError
from forgetbench.store import file_digest


def test_atypicality_matches_all_distances():
    """Against all distances, one by one."""
    images = make_fine_image_set(40, 5, side=8)
    flat = images.images.reshape(40, -1).astype(int)
    for row, score in enumerate(atypicality(images, block=7)):
        distance = ((flat - flat[row]) ** 2).sum(axis=1)
        same = (images.labels == images.labels[row]) & (np.arange(40) != row)
        assert score == distance[same].min() / distance[images.labels != images.labels[row]].min()


def test_atypicality_of_large_images_uses_cell_means():
    images = make_fine_image_set(20, 6, side=8)
    enlarged = ImageSet(images.images.repeat(4, axis=2).repeat(4, axis=3), images.labels, images.classes)
    assert np.array_equal(atypicality(enlarged), atypicality(images))


def test_memorised_finds_mislabelled_images():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    pixels = np.clip(60 + 120 * labels[:, None, None, None] + rng.normal(0, 20, (200, 1, 8, 8)), 0, 255).astype(
        np.uint8
    )
    wrong = np.array([3, 50, 111, 190])
    labels[wrong] ^= 1
    train = ImageSet(pixels, labels, ("a", "b"))
    partition = Partition("toy", train, train, train, None, CARD)
    assert make_scenario("memorised", {"count": 4}).draw(partition).forget.tolist() == wrong.tolist()
    assert not set(make_scenario("memorised", {"which": "least", "count": 20}).draw(partition).forget) & set(wrong)


def test_memorised_ranks_by_scores_from_file(tmp_path):
    partition = make_fine_partition()
    scores = np.random.default_rng(0).permutation(60).astype(float)
    np.save(tmp_path / "s.npy", scores)
    ranked = np.argsort(-scores)
    for which, rows in (("most", ranked[:6]), ("least", ranked[-6:]), ("middle", ranked[27:33])):
        options = {"which": which, "count": 6, "scores": str(tmp_path / "s.npy")}
        assert make_scenario("memorised", options).draw(partition).forget.tolist() == sorted(rows.tolist())
    known = {"count": 6, "scores": str(tmp_path / "s.npy"), "sha256": file_digest(tmp_path / "s.npy")}
    assert make_scenario("memorised", known).draw(partition).forget.tolist() == sorted(ranked[:6].tolist())
    np.save(tmp_path / "s.npy", scores[:-1])
    with pytest.raises(UsageError, match=rf"has SHA-256 .*, not {known['sha256']}: it is another file"):
        make_scenario("memorised", known).draw(partition)
    with pytest.raises(UsageError, match=r"must contain 60 finite scores, .*; it has shape \(59,\)"):
        make_scenario("memorised", {"count": 6, "scores": str(tmp_path / "s.npy")}).draw(partition)
    with pytest.raises(UsageError, match=r"none\.npy cannot be read: No such file"):
        make_scenario("memorised", {"count": 6, "scores": str(tmp_path / "none.npy")}).draw(partition)
