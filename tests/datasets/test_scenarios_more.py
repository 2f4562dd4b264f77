"""Subclasses, few shots, streams, memorised images, published lists and index files."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetbench.datasets.scenarios import make_scenario
from forgetbench.datasets.scenarios.memorised import atypicality
from forgetbench.datasets.scenarios.stream import split_of_step
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.store import file_digest

CARD = DatasetCard(name="toy", title="Toy", description="Noise.", license="CC0")


def toy_set(count, seed, *, repeats=0, side=3):
    """Two classes of three finer ones each; eight people."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, side, side), dtype=np.uint8)
    for target in rng.integers(0, count, repeats):
        images[target] = images[rng.integers(0, count)]
    fine = np.arange(count) % 6
    return ImageSet(images, fine // 3, ("low", "high"), rng.integers(0, 8, count), fine, tuple("uvwxyz"))


def toy_partition(seed=0, lists=None, **kind):
    parts = [toy_set(count, seed + place, **kind) for place, count in enumerate((60, 18, 24))]
    return Partition("toy", *parts, None, CARD, lists or {})


def test_subclass_forgets_fine_class_and_retains_class():
    partition = toy_partition()
    split = make_scenario("subclass", {"subclasses": ["v", 5]}).draw(partition)
    assert split.track == "erase"
    assert set(partition.train.fine_labels[split.forget]) == {1, 5}
    assert set(partition.train.labels[split.retain]) == {0, 1}
    assert set(partition.test.fine_labels[split.test_forgotten]) == {1, 5}
    assert set(partition.validation.fine_labels[split.validation]) == {0, 2, 3, 4}
    with pytest.raises(UsageError, match=r"Unknown class 'a'.*Available: u, v, w"):
        make_scenario("subclass", {"subclasses": "a"}).draw(partition)


def test_subclass_draws_cover_all_fine_classes():
    partition = toy_partition()
    drawn = [set(partition.train.fine_labels[make_scenario("subclass").draw(partition, g).forget]) for g in range(6)]
    assert set().union(*drawn) == set(range(6))


def test_few_shot_gives_shots_and_withholds_others():
    partition = toy_partition()
    scenario = make_scenario("few-shot", {"classes": "high", "shots": 4})
    first, second = scenario.draw(partition, 0), scenario.draw(partition, 1)
    assert (len(first.forget), len(first.withheld), len(first.retain)) == (4, 26, 30)
    assert set(partition.train.labels[first.forget]) == set(partition.train.labels[first.withheld]) == {1}
    assert first.forget.tolist() != second.forget.tolist()
    assert set(partition.test.labels[first.test_forgotten]) == {1}
    with pytest.raises(UsageError, match=r"class 'high' has only 30 training images, .* 30 shots none is withheld"):
        make_scenario("few-shot", {"classes": "high", "shots": 30}).draw(partition)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(2, 5), st.sampled_from(["random", "identity"]), st.integers(0, 10))
def test_stream_requests_are_disjoint_and_complete(seed, steps, of, repeats):
    partition = toy_partition(seed, repeats=repeats)
    try:
        split = make_scenario("stream", {"of": of, "steps": steps, "count": 1 if of == "identity" else 7}).draw(
            partition
        )
    except UsageError:  # repeated images have joined most people
        return
    assert len(split.requests) == steps
    asked = np.concatenate(split.requests)
    assert np.array_equal(np.sort(asked), split.forget)
    side = np.full(60, -1)
    for step, rows in enumerate(split.requests):
        side[rows] = step
        current = split_of_step(partition, split, step)
        assert np.array_equal(current.forget, rows)
        assert np.array_equal(
            current.withheld, np.sort(asked[np.isin(asked, np.concatenate(split.requests[:step] or ([],)))])
        )
        assert len(current.retain) == 60 - sum(map(len, split.requests[: step + 1]))
    assert np.array_equal(current.retain, split.retain)
    assert np.array_equal(side, side[partition.train.first_copy])


def test_stream_of_classes_accumulates_forgotten_classes():
    rows = np.arange(60)
    train = ImageSet(toy_set(60, 0).images, rows % 5, tuple("abcde"))
    partition = Partition("toy", train, train.take(rows[:20]), train.take(rows[:20]), None, CARD)
    split = make_scenario("stream", {"of": "class", "steps": 3, "count": 1}).draw(partition)
    assert split.track == "erase"
    gone = [set(train.labels[split_of_step(partition, split, step).test_forgotten]) for step in range(3)]
    assert [len(classes) for classes in gone] == [1, 2, 3]
    assert gone[0] < gone[1] < gone[2] == set(train.labels[split.test_forgotten])
    with pytest.raises(ForgetBenchError, match="step 3 is not in a stream of 3"):
        split_of_step(partition, split, 3)
    with pytest.raises(UsageError, match="5 requests of 1 would forget all 5 classes"):
        make_scenario("stream", {"of": "class", "steps": 5, "count": 1}).draw(partition)


def test_atypicality_matches_all_distances():
    """Against all distances, one by one."""
    images = toy_set(40, 5, side=8)
    flat = images.images.reshape(40, -1).astype(int)
    for row, score in enumerate(atypicality(images, block=7)):
        distance = ((flat - flat[row]) ** 2).sum(axis=1)
        same = (images.labels == images.labels[row]) & (np.arange(40) != row)
        assert score == distance[same].min() / distance[images.labels != images.labels[row]].min()


def test_atypicality_of_large_images_uses_cell_means():
    images = toy_set(20, 6, side=8)
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
    partition = toy_partition()
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
    with pytest.raises(UsageError, match=r"must contain 60 finite scores; it has shape \(59,\)"):
        make_scenario("memorised", {"count": 6, "scores": str(tmp_path / "s.npy")}).draw(partition)
    with pytest.raises(UsageError, match="cannot be read as an array of scores"):
        make_scenario("memorised", {"count": 6, "scores": str(tmp_path / "none.npy")}).draw(partition)


def test_published_uses_list_unchanged():
    partition = toy_partition(lists={"published": np.array([3, 1, 2])})
    assert make_scenario("published").draw(partition).forget.tolist() == [1, 2, 3]
    with pytest.raises(UsageError, match=r"Unknown list 'other'.*Available: published"):
        make_scenario("published", {"rows": "other"}).draw(partition)
    with pytest.raises(UsageError, match=r"'toy' has no published list with this split\. Scenarios that work"):
        make_scenario("published").draw(toy_partition())


@pytest.mark.parametrize("kind", ["npy", "json", "txt", "mask"])
def test_indices_reads_every_file_format(tmp_path, kind):
    rows = [4, 8, 15, 16, 23, 42]
    path = tmp_path / f"rows.{'npy' if kind == 'mask' else kind}"
    if kind == "npy":
        np.save(path, np.array(rows, dtype=np.uint16))
    elif kind == "mask":
        np.save(path, np.isin(np.arange(60), rows))
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(str, rows)) + "\n")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    split = make_scenario("indices", {"path": str(path), "sha256": sha256.upper()}).draw(toy_partition())
    assert split.forget.tolist() == rows
    assert split.track == "match-oracle"
    with pytest.raises(UsageError, match=r"has SHA-256 .* it is another file"):
        make_scenario("indices", {"path": str(path), "sha256": "0" * 64}).draw(toy_partition())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n60\n", "lists row 60; training rows are 0 to 59"),
        ("1\n-1\n", "lists row -1"),
        ("1\n1\n", "lists 1 rows twice"),
        ("one\n", "cannot be read as a list of rows"),
        ("", "cannot be read as a list of rows: expected is a one-dimensional list of integers"),
    ],
)
def test_indices_wrong_file_error_explains_it(tmp_path, text, message):
    (tmp_path / "rows.txt").write_text(text)
    with pytest.raises(UsageError, match=message):
        make_scenario("indices", {"path": str(tmp_path / "rows.txt")}).draw(toy_partition())
    with pytest.raises(UsageError, match="name a file"):
        make_scenario("indices").draw(toy_partition())
    np.save(tmp_path / "mask.npy", np.ones(5, dtype=bool))
    with pytest.raises(UsageError, match="has 5 booleans, but there are 60"):
        make_scenario("indices", {"path": str(tmp_path / "mask.npy")}).draw(toy_partition())
