"""Files of row numbers in the forms in which people have them."""

import hashlib
import io
import json
import pickle

import numpy as np
import pytest
import torch
from support.image_sets import make_fine_partition, make_partition

from forgetbench.datasets.scenarios import make_scenario
from forgetbench.errors import UsageError

ROWS = [4, 8, 15, 16, 23, 42]
MASK = np.isin(np.arange(60), ROWS)


def draw(path, partition=None):
    return make_scenario("indices", {"path": str(path)}).draw(partition or make_fine_partition()).forget.tolist()


def numpy_bytes(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def torch_bytes(value, **options):
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def array_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


FORMS = {
    "text.txt": b"4\n8\n15\n16\n23\n42\n",
    "windows.txt": b"\xef\xbb\xbf4\r\n8\r\n15\r\n16\r\n23\r\n42\r\n",
    "utf16.txt": "4\n8\n15\n16\n23\n42\n".encode("utf-16"),
    "commas.txt": b"4, 8, 15, 16, 23, 42",
    "brackets.txt": b"[4, 8, 15, 16, 23, 42,]\n",
    "wrapped.txt": b"[ 4  8 15\n 16 23 42]\n",
    "savetxt.txt": b"4.000000000000000000e+00\n8.0e+00\n1.5e+01\n1.6e+01\n2.3e+01\n4.2e+01\n",
    "booleans.txt": "\n".join(map(str, MASK.tolist())).encode(),
    "header.csv": b"index\n4\n8\n15\n16\n23\n42\n",
    "pandas.csv": b",index\n0,4\n1,8\n2,15\n3,16\n4,23\n5,42\n",
    "series.csv": b",0\n0,4\n1,8\n2,15\n3,16\n4,23\n5,42\n",
    "columns.csv": b"file,forget_idx\na.png,4\nb.png,8\nc.png,15\nd.png,16\ne.png,23\nf.png,42\n",
    "upper.JSON": json.dumps(ROWS).encode(),
    "bom.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "object.json": json.dumps({"retain": [1, 2], "forget": ROWS}).encode(),
    "mask.json": json.dumps(MASK.tolist()).encode(),
    "column.json": json.dumps([[row] for row in ROWS]).encode(),
    "rows.npy": array_bytes(np.array(ROWS, np.uint16)),
    "floats.npy": array_bytes(np.array(ROWS, float)),
    "nonzero.npy": array_bytes(np.array(ROWS)[:, None]),
    "mask.npy": array_bytes(MASK),
    "mask8.npy": array_bytes(MASK.astype(np.uint8)),
    "maskfloat.npy": array_bytes(MASK.astype(float)),
    "npy-as.txt": array_bytes(np.array(ROWS)),
    "split-d0.npz": numpy_bytes(forget=np.array(ROWS), retain=np.array([1, 2]), labels=np.arange(60)),
    "single.npz": numpy_bytes(arr_0=np.array(ROWS)),
    "tensor.pt": torch_bytes(torch.tensor(ROWS)),
    "list.pth": torch_bytes(ROWS),
    "dictionary.pt": torch_bytes({"forget": torch.tensor(ROWS), "retain": torch.tensor([1])}),
    "mask.pt": torch_bytes(torch.from_numpy(MASK)),
    "legacy.pt": torch_bytes(torch.tensor(ROWS), _use_new_zipfile_serialization=False),
    "torch.npz": torch_bytes(torch.tensor(ROWS)),
}


@pytest.mark.parametrize("name", FORMS)
def test_index_file_is_read_in_every_form(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name])
    assert draw(tmp_path / name) == ROWS


@pytest.mark.parametrize("name", ["salun.npy", "salun.pt"])
def test_index_file_with_negative_labels_marks_rows(tmp_path, name):
    """SalUn marks rows to forget in a copy of all labels: -label - 1."""
    partition = make_partition()
    marked = np.where(MASK, -partition.train.labels - 1, partition.train.labels)
    content = array_bytes(marked) if name.endswith("npy") else torch_bytes(torch.from_numpy(marked))
    (tmp_path / name).write_bytes(content)
    assert draw(tmp_path / name, partition) == ROWS
    (tmp_path / "other.npy").write_bytes(array_bytes(np.roll(marked, 1)))
    with pytest.raises(UsageError, match=r"other\.npy has a number for each of the 60 .* 6 of them negative"):
        draw(tmp_path / "other.npy", partition)


REFUSED = {
    "rows.pkl": (
        pickle.dumps(np.array(ROWS)),
        "is a pickle, which ForgetBench never runs, .* Save the rows as an array",
    ),
    "list.pkl": (pickle.dumps(ROWS, protocol=4), "is a pickle, which ForgetBench never runs"),
    "array.pt": (torch_bytes(np.array(ROWS)), "is a pickle, which ForgetBench never runs, .* np.save"),
    "several.npz": (numpy_bytes(a=np.arange(3), b=np.arange(3)), r"contains 'a', 'b', and none is named 'forget'"),
    "state.pt": (
        torch_bytes({"a": torch.ones(2), "b": torch.ones(2)}),
        "contains 'a', 'b', and none is named 'forget'",
    ),
    "notes.docx": (b"PK\x03\x04 no archive", "is a zip archive that cannot be read, or contains no arrays. Accepted"),
    "pointer.npy": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer.*git lfs pull"),
    "page.txt": (b"<!DOCTYPE html><html></html>", "is a web page.*Accepted are row numbers"),
    "empty.txt": (b"", "is an empty file.*Accepted"),
    "blank.txt": (b"\n\n", "is empty. Accepted"),
    "cut.txt": (b"[4, 8, 15", "is cut off: not all of its brackets are closed"),
    "cut.npy": (array_bytes(np.array(ROWS))[:-5], "is a damaged .npy file. Copy it from its source again"),
    "latin.txt": (b"4\n\xe9\n", "is neither text in UTF-8 nor an array. Accepted"),
    "words.txt": (b"4\ntwo\n", "contains 'two' where a row number is expected. Accepted"),
    "half.npy": (array_bytes(np.array([0.5])), "contains 0.5, but row numbers are whole numbers"),
    "nan.npy": (array_bytes(np.array([1.0, np.nan])), "contains nan, but row numbers are whole"),
    "pairs.csv": (b"4,0\n8,1\n", "has 2 columns without names. Keep only the column of row numbers"),
    "names.csv": (
        b"id,label\n4,0\n8,1\n",
        "has the columns 'id', 'label', and none is named 'forget'. Name the column of row numbers 'forget'",
    ),
    "ragged.json": (b"[[1, 2], [3]]", "is no list of numbers, but nested lists"),
    "bad.json": (b'{"forget": [1,', "is not valid JSON"),
    "matrix.npy": (array_bytes(np.ones((2, 3), int)), r"has shape \(2, 3\), but a one-dimensional list is needed"),
    "scalar.npy": (array_bytes(np.array(3)), r"has shape \(\), but a one-dimensional list is needed"),
    "short.npy": (array_bytes(np.zeros(5, bool)), "has 5 booleans, but there are 60 training images"),
    "far.txt": (b"1\n60\n", "lists row 60; training rows are 0 to 59. Check that it belongs to this image set"),
    "negative.txt": (b"1\n-1\n", "lists row -1; training rows are 0 to 59"),
    "twice.txt": (b"5\n1\n5\n", "lists row 5 twice. Remove the repetitions"),
    "thrice.txt": (b"5\n5\n5\n", "lists row 5 3 times. Remove the repetitions"),
    "repeated.txt": (b"9 9 7 7 5 5 1", "lists 3 rows more than once, such as row 5. Remove the repetitions"),
    "complex.npy": (array_bytes(np.array([1j])), "contains values of type complex128, but row numbers are whole"),
    "objects.npy": (b"\x93NUMPY\x01\x00\x16\x00{'descr': '|O', 'f': 1}", "is an array of Python objects.*np.save"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_index_file_refusal_says_what_it_is(tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=rf"scenario 'indices': .*{name.replace('.', '[.]')} {message}"):
        draw(tmp_path / name)


def test_index_file_hash_is_that_of_its_bytes(tmp_path):
    (tmp_path / "rows.pt").write_bytes(FORMS["tensor.pt"])
    known = hashlib.sha256(FORMS["tensor.pt"]).hexdigest()
    options = {"path": str(tmp_path / "rows.pt"), "sha256": known}
    assert make_scenario("indices", options).draw(make_fine_partition()).forget.tolist() == ROWS


@pytest.mark.parametrize("name", ["s.npz", "s.pt", "s.txt"])
def test_memorised_scores_are_read_in_the_same_forms(tmp_path, name):
    scores = np.random.default_rng(0).permutation(60) / 60
    forms = {
        "s.npz": numpy_bytes(scores=scores),
        "s.pt": torch_bytes(torch.from_numpy(scores)),
        "s.txt": "\n".join(map(str, scores.tolist())).encode(),
    }
    (tmp_path / name).write_bytes(forms[name])
    split = make_scenario("memorised", {"count": 6, "scores": str(tmp_path / name)}).draw(make_fine_partition())
    assert split.forget.tolist() == sorted(np.argsort(-scores)[:6].tolist())
    (tmp_path / name).write_bytes(b"\x93NUMPY")
    with pytest.raises(UsageError, match=rf"{name} is a damaged .npy file"):
        make_scenario("memorised", {"count": 6, "scores": str(tmp_path / name)}).draw(make_fine_partition())
