"""Scenarios published and indices."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from support.image_sets import make_fine_partition

from forgetbench.datasets.scenarios import make_scenario
from forgetbench.errors import UsageError


def test_published_uses_list_unchanged():
    partition = make_fine_partition(lists={"published": np.array([3, 1, 2])})
    assert make_scenario("published").draw(partition).forget.tolist() == [1, 2, 3]
    with pytest.raises(UsageError, match=r"Unknown list 'other'.*Available: published"):
        make_scenario("published", {"rows": "other"}).draw(partition)
    with pytest.raises(UsageError, match=r"'toy' has no published list with this split\. Scenarios that work"):
        make_scenario("published").draw(make_fine_partition())


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
    split = make_scenario("indices", {"path": str(path), "sha256": sha256.upper()}).draw(make_fine_partition())
    assert split.forget.tolist() == rows
    assert split.track == "match-oracle"
    with pytest.raises(UsageError, match=r"has SHA-256 .* it is another file"):
        make_scenario("indices", {"path": str(path), "sha256": "0" * 64}).draw(make_fine_partition())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n60\n", "lists row 60; training rows are 0 to 59"),
        ("1\n-1\n", "lists row -1"),
        ("1\n1\n", "lists row 1 twice"),
        ("one\n", "contains 'one' where a row number is expected"),
        ("", "is an empty file"),
    ],
)
def test_indices_wrong_file_error_explains_it(tmp_path, text, message):
    (tmp_path / "rows.txt").write_text(text)
    with pytest.raises(UsageError, match=message):
        make_scenario("indices", {"path": str(tmp_path / "rows.txt")}).draw(make_fine_partition())
    with pytest.raises(UsageError, match="name a file"):
        make_scenario("indices").draw(make_fine_partition())
    np.save(tmp_path / "mask.npy", np.ones(5, dtype=bool))
    with pytest.raises(UsageError, match="has 5 booleans, but there are 60"):
        make_scenario("indices", {"path": str(tmp_path / "mask.npy")}).draw(make_fine_partition())
