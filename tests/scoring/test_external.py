"""Scoring logits of other suites."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.scoring.external import read_arrays, score_files, score_logits
from forgetbench.scoring.score import reference_bands, score


@pytest.fixture
def task(simulate):
    return simulate()


def both(one, two):
    return {name: np.concatenate([one[0][name], two[0][name]]) for name in one[0]}


def test_with_everything_it_is_a_board(task):
    references, controls, originals = task.models(), task.models(), task.models(memory=2.0)
    contestant = task.models(memory=1.0)
    found = score_logits(contestant[0], both(references, controls), task.labels[0], originals=originals[0], name="mine")
    bands = reference_bands(task.labels, references, controls, originals, "match-oracle")
    expected = score(
        contestant, name="mine", references=references, labels=task.labels, bands=bands, originals=originals
    )
    assert found == expected
    assert found.unranked == ""


def test_without_originals_nobody_knows_what_is_feasible(task):
    found = score_logits(task.models(memory=1.0)[0], both(task.models(), task.models()), task.labels[0])
    assert found.informational.startswith("no originals were given")
    assert found.ranking[:2] == ("gap.forget", "lira.forget")
    assert found.distance is not None
    assert not found.distance.inside
    assert "h-mean" not in found.metrics


def test_without_controls_there_are_values_and_no_bands(task):
    found = score_logits(task.models(memory=1.0)[0], task.models()[0], task.labels[0])
    assert found.distance is None
    assert found.informational.startswith("6 oracles")
    assert found.metrics["lira.forget"].value > 0.55
    assert found.metrics["lira.forget"].band is None
    assert found.metrics["nomus"].value is not None


def test_one_model_against_one_oracle(task):
    one = [{name: array[0] for name, array in side[0].items()} for side in (task.models(memory=1.0), task.models())]
    found = score_logits(*one, task.labels[0])
    right = [(side["test"].argmax(1) == task.labels[0]["test"]).mean() for side in one]
    assert found.metrics["gap.test"].value == pytest.approx(right[0] - right[1])
    assert "at least three models" in found.metrics["lira.forget"].reason


def test_files(task, tmp_path):
    arrays = {
        "mine": task.models(memory=1.0)[0],
        "oracle": both(task.models(), task.models()),
        "labels": task.labels[0],
    }
    paths = [tmp_path / f"{name}.npz" for name in arrays]
    for path, content in zip(paths, arrays.values(), strict=True):
        np.savez(path, **content)
    assert score_files(*paths) == score_logits(*arrays.values(), name="mine")


def test_files_that_will_not_do(tmp_path):
    with pytest.raises(UsageError, match="npz file"):
        read_arrays(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UsageError, match="npz file"):
        read_arrays(tmp_path / "text.npz")
    np.savez(tmp_path / "object.npz", forget=np.array([{}], dtype=object))
    with pytest.raises(UsageError, match="npz file"):
        read_arrays(tmp_path / "object.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UsageError, match="one array for each"):
        read_arrays(tmp_path / "one.npy")


def test_wrong_calls(task):
    mine, oracle, labels = task.models()[0], task.models()[0], task.labels[0]
    with pytest.raises(UsageError, match="unlearned: test missing"):
        score_logits({name: array for name, array in mine.items() if name != "test"}, oracle, labels)
    with pytest.raises(UsageError, match="at least as many oracles"):
        score_logits(mine, {name: array[:3] for name, array in oracle.items()}, labels)
    with pytest.raises(UsageError, match="the subsets are"):
        score_logits(mine, oracle, labels | {"trian": labels["test"]})
    mine["forget"][3, 5, 0] = np.nan
    with pytest.raises(UsageError, match="unlearned: forget: nan in row 5 of model 3"):
        score_logits(mine, oracle, labels)


def test_scoring_needs_no_torch():
    code = "import sys, forgetbench.scoring.external, forgetbench.scoring.audit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
