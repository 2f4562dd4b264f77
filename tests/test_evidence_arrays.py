"""Evidence files that are damaged: each is refused in words, whatever zipfile or numpy raises."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.arrays import CLIP, encode, read_arrays, write_arrays

ARRAYS = {"forget": np.zeros((50, 4), np.float16), "test": np.ones((9, 4), np.float16)}


def rewritten(path, change):
    """The file again, one member's bytes changed, with check sums that fit."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["forget.npy"] = change(members["forget.npy"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"(50, 4), }", b"((50, 4, }"),  # a header that is no Python
        lambda data: data.replace(b"'descr'", b"'gibberish'"),
        lambda data: data[:100],
        lambda _: b"",
    ],
)
def test_read_arrays_damaged_array_is_refused(tmp_path, change):
    path = tmp_path / "evidence.npz"
    write_arrays(path, ARRAYS)
    assert read_arrays(path).keys() == ARRAYS.keys()
    rewritten(path, change)
    for expected in (None, {name: array.shape for name, array in ARRAYS.items()}):
        with pytest.raises(ForgetBenchError, match="not a readable evidence file"):
            read_arrays(path, expected)


def test_read_arrays_damaged_stream_is_refused(tmp_path):
    path = tmp_path / "evidence.npz"
    np.savez_compressed(path, forget=np.random.default_rng(0).normal(size=(50, 50)).astype(np.float16))
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(ForgetBenchError, match="not a readable evidence file"):
        read_arrays(path)


def test_encode_clips_logits_whose_difference_overflows():
    found = encode(np.array([[3e38, -3e38, 3e38]], np.float32), attributes=False)
    np.testing.assert_array_equal(found, np.array([[0, -CLIP, 0]], np.float16))
