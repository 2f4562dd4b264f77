"""Examples: views, batches and augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.training import make_examples

from forgetbench.errors import UsageError
from forgetbench.training import Examples
from forgetbench.training.data import augment_batch, batch_sizes


@pytest.mark.parametrize("kind", ["crop", "crop-reflect"])
def test_augment_batch_crop_is_window_of_padded_image(kind):
    images = torch.randint(0, 256, (40, 2, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cropped = augment_batch(images, (kind,), 2, torch.Generator().manual_seed(1))
    mode = {"crop": "constant", "crop-reflect": "reflect"}[kind]
    shifts = set()
    for image, result in zip(images.numpy(), cropped.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode=mode)
        windows = [
            (y, x) for y in range(5) for x in range(5) if np.array_equal(padded[:, y : y + 5, x : x + 6], result)
        ]
        assert windows
        shifts.update(windows)
    assert len(shifts) > 10


def test_augment_batch_flip_mirrors_half_of_images():
    images = torch.randint(0, 256, (400, 1, 3, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flipped = augment_batch(images, ("flip",), 4, torch.Generator().manual_seed(1))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert bool((mirrored | (flipped == images).flatten(1).all(1)).all())
    assert 150 < int(mirrored.sum()) < 250


def test_batches_unknown_augmentation_is_refused():
    with pytest.raises(UsageError, match="rotate"):
        next(iter(make_examples().batches(4, 0, ("rotate",))))


@given(count=st.integers(1, 200), size=st.integers(1, 64))
def test_batch_sizes_cover_all_and_none_is_one(count, size):
    sizes = batch_sizes(count, size)
    assert sum(sizes) == count
    assert sizes[-1] > 1 or size == 1 or count == 1
    assert max(sizes) <= size + 1


@given(count=st.integers(1, 30), size=st.integers(1, 9), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=30)
def test_batches_shuffled_epoch_is_a_permutation(count, size, seed):
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 2, 2)
    examples = Examples(images, torch.arange(count))
    seen = torch.cat([labels for _, labels in examples.batches(size, seed)])
    assert sorted(seen.tolist()) == list(range(count))
    pixels = torch.cat([batch[:, 0, 0, 0] for batch, _ in examples.batches(size, seed)])
    assert torch.allclose(pixels * 255, seen.float())


def test_examples_views_share_images_and_copy_labels():
    examples = make_examples()
    view = examples.take([3, 1]).take(torch.tensor([1]))
    assert view.labels.tolist() == [examples.labels.tolist()[1]]
    assert torch.equal(view.images, examples.images[1:2])
    assert view._images.data_ptr() == examples._images.data_ptr()
    view.labels.fill_(9)
    assert 9 not in view.labels.tolist()
    joined = view.join(examples.relabel(torch.zeros(21, dtype=torch.int64)))
    assert len(joined) == 22
    assert joined._images.data_ptr() == examples._images.data_ptr()
    separate = view.join(make_examples(2, seed=1))
    assert torch.equal(separate.images[1:], make_examples(2, seed=1).images)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2)),
    ],
)
def test_examples_wrong_types_or_shapes_are_refused(images, labels):
    with pytest.raises(UsageError):
        Examples(images, labels)
