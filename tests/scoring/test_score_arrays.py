"""Scoring logits from any source."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import forgetbench
from forgetbench.errors import UsageError
from forgetbench.importers.arrays import score_arrays
from forgetbench.importers.npz import read_npz
from forgetbench.metrics import confidence, svc_non_members
from forgetbench.metrics.classic_mia import BOARD_SVC_ROWS
from forgetbench.scoring.score import reference_bands, score


@pytest.fixture
def task(simulate):
    return simulate()


def both(one, two):
    return {name: np.concatenate([one[0][name], two[0][name]]) for name in one[0]}


def test_score_arrays_complete_equals_a_board(task):
    references, controls, originals = task.models(), task.models(), task.models(memory=2.0)
    contestant = task.models(memory=1.0)
    found = score_arrays(contestant[0], both(references, controls), task.labels[0], original=originals[0], name="mine")
    bands = reference_bands(task.labels, references, controls, originals, "match-oracle")
    expected = score(
        contestant, name="mine", references=references, labels=task.labels, bands=bands, originals=originals
    )
    told = {name: value for name, value in found.metrics.items() if name in expected.metrics}
    assert found.model_copy(update={"metrics": told}) == expected
    others = {name: value for name, value in found.metrics.items() if name not in expected.metrics}
    assert others["h-mean"].reason == "not computable: needs test-forgotten"
    assert all(value.value is None and value.reason for value in others.values())
    assert found.exclusion_reason == ""


def test_score_arrays_without_originals_says_so(task):
    found = score_arrays(task.models(memory=1.0)[0], both(task.models(), task.models()), task.labels[0])
    assert found.unranked_reason.startswith("no originals were given")
    assert found.ranking[:2] == ("gap.forget", "lira.forget")
    assert found.distance is not None
    assert not found.distance.within_band
    assert found.metrics["h-mean"].reason == "not computable: needs test-forgotten, originals"
    assert found.metrics["aus"].value is None


def test_score_arrays_few_oracles_gives_values_without_bands(task):
    found = score_arrays(task.models(memory=1.0)[0], task.models()[0], task.labels[0])
    assert found.distance is None
    assert found.unranked_reason.startswith("6 oracles")
    assert found.metrics["lira.forget"].value > 0.55
    assert found.metrics["lira.forget"].band is None
    assert found.metrics["nomus"].value is not None
    for name in ("forgetting-quality", "neurips-score", "w1.forget"):  # raw values would read as something else
        assert found.metrics[name].value is None
        assert found.metrics[name].reason


def test_score_arrays_all_rows_are_read(simulate):
    task = simulate(seeds=1, rows={"forget": 40, "retain": 700, "test": 700})
    (unlearned,), (oracle,), labels = task.models(memory=1.0), task.models(), task.labels[0]
    retain, test, forget = (confidence(unlearned[name], labels[name])[0] for name in ("retain", "test", "forget"))
    for all_rows, limit in ((False, BOARD_SVC_ROWS), (True, None)):
        card = score_arrays(unlearned, oracle, labels, all_rows=all_rows)
        assert card["mia.svc-confidence"].value == svc_non_members(retain, test, forget, max_rows=limit)


def test_score_arrays_probe_needs_no_bands(simulate):
    rows = {"forget": 40, "retain": 120, "test": 120, "validation": 60, "test-forgotten": 30}
    task = simulate(seeds=3, classes=4, rows=rows)
    labels = task.labels[0] | {"forget": np.zeros(40, int), "test-forgotten": np.zeros(30, int)}
    random = np.random.default_rng(0)

    def models(signal):
        return task.models()[0] | {
            f"features:{name}": random.normal(size=(3, len(labels[name]), 8))
            + signal * np.eye(8)[labels[name]] * (labels[name] > 0)[:, None]
            for name in ("forget", "retain", "validation", "test-forgotten")
        }

    found = score_arrays(models(3.0), models(3.0), labels, original=models(3.0), track="erase")
    assert found.metrics["probe"].value is not None
    alone = score_arrays(models(3.0), models(3.0), labels, track="erase")
    assert alone.metrics["probe"].value is None


def test_score_arrays_one_oracle_rarely_flags_a_collapse(simulate):
    task = simulate(seeds=1, classes=4, rows={"forget": 50, "retain": 80, "test": 1000})
    collapsed = [
        "collapsed" in score_arrays(task.models()[0], task.models()[0], task.labels[0]).flags for _ in range(40)
    ]
    assert sum(collapsed) <= 1
    worse = task.models()[0]
    worse["test"] = np.roll(worse["test"], 1, axis=2)
    card = score_arrays(worse, task.models()[0], task.labels[0])
    assert "collapsed" in card.flags
    assert card.unranked_reason.startswith("1 oracle for 1 unlearned model: bands need twice as many")


def test_score_arrays_one_model_one_oracle_scores(task):
    one = [{name: array[0] for name, array in side[0].items()} for side in (task.models(memory=1.0), task.models())]
    found = score_arrays(*one, task.labels[0])
    right = [(side["test"].argmax(1) == task.labels[0]["test"]).mean() for side in one]
    assert found.metrics["gap.test"].value == pytest.approx(right[0] - right[1])
    assert "at least three models" in found.metrics["lira.forget"].reason


def test_score_paths_equals_arrays(task, tmp_path):
    arrays = {
        "mine": task.models(memory=1.0)[0],
        "oracle": both(task.models(), task.models()),
        "labels": task.labels[0],
    }
    paths = [tmp_path / f"{name}.npz" for name in arrays]
    for path, content in zip(paths, arrays.values(), strict=True):
        np.savez(path, **content)
    assert forgetbench.score(*paths) == score_arrays(*arrays.values(), name="mine")


def test_read_npz_unusable_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"There is no file .*none\.npz"):
        read_npz(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UsageError, match="npz file"):
        read_npz(tmp_path / "text.npz")
    np.savez(tmp_path / "object.npz", forget=np.array([{}], dtype=object))
    with pytest.raises(UsageError, match="npz file"):
        read_npz(tmp_path / "object.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UsageError, match="one array for each"):
        read_npz(tmp_path / "one.npy")


def test_score_arrays_wrong_call_is_refused(task):
    mine, oracle, labels = task.models()[0], task.models()[0], task.labels[0]
    with pytest.raises(UsageError, match="unlearned: test missing"):
        score_arrays({name: array for name, array in mine.items() if name != "test"}, oracle, labels)
    with pytest.raises(UsageError, match="at least as many oracles"):
        score_arrays(mine, {name: array[:3] for name, array in oracle.items()}, labels)
    with pytest.raises(UsageError, match="the subsets are"):
        score_arrays(mine, oracle, labels | {"trian": labels["test"]})
    mine["forget"][3, 5, 0] = np.nan
    with pytest.raises(UsageError, match="unlearned: forget: nan in row 5 of model 3"):
        score_arrays(mine, oracle, labels)


def test_score_arrays_imports_no_torch():
    code = "import sys, forgetbench.importers.arrays, forgetbench.auditing.criteria; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def npz_of(task):
    """What the command takes, with everything that a board needs."""
    return {
        "unlearned": dict(task.models(memory=1.0)[0]),
        "oracle": both(task.models(), task.models()),
        "labels": dict(task.labels[0]),
        "original": dict(task.models(memory=2.0)[0]),
    }


def drop(name):
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def put(name, change):
    return lambda arrays: arrays | {name: change(arrays[name])}


def of_all(change):
    return lambda arrays: {name: change(array) for name, array in arrays.items()}


ONE_HOT = np.eye(5, dtype=np.int64)


@pytest.mark.parametrize(
    ("role", "change", "message"),
    [
        ("labels", drop("test"), "labels: test missing; labels of forget, retain, test are needed"),
        ("labels", drop("forget"), "labels: forget missing"),
        ("labels", drop("retain"), "labels: retain missing"),
        ("labels", put("retain", lambda array: array[:0]), "labels: retain is empty"),
        ("labels", put("forget", lambda array: array[:0]), "labels: forget is empty"),
        ("unlearned", put("forget", lambda array: array[:, :0]), "unlearned: forget is empty"),
        ("labels", put("test", lambda array: array.astype(str)), "labels: test: whole numbers expected"),
        (
            "labels",
            put("test", lambda array: array / 2),
            "test: whole numbers expected, but the type is float64",
        ),
        ("labels", put("test", lambda array: array + 3), "labels: test: .* in row .*; expected 0 to 4"),
        ("labels", put("test", lambda array: array.astype(float)), r"labels: test: whole numbers.*\.astype\(int\)"),
        (
            "labels",
            of_all(lambda array: array + 1),
            "labels: .*classes are 1 to 5, but they count from 0.*subtract",
        ),
        (
            "labels",
            put("forget", lambda array: np.full_like(array, 5)),
            "labels: forget: 5 in row 0; expected 0 to 4",
        ),
        ("labels", of_all(lambda array: array[:, None]), r"labels: .*\(n,\), but the shape is .*labels\.ravel\(\)"),
        (
            "unlearned",
            lambda arrays: arrays | {"features:test": np.zeros((6, 7, 3))},
            "unlearned: features:test has 7 rows, but there are 200 labels of test",
        ),
        (
            "oracle",
            lambda arrays: arrays | {"features:test": np.zeros((12, 200, 3)), "features:forget": np.zeros((12, 60, 4))},
            "oracle: features:forget has 4 features, but features:test has 3: record the same layer",
        ),
        (
            "labels",
            put("test", lambda array: array[:-1]),
            r"test has the shape \(.*, 200 examples, but there are 199 labels. Expected is \(models",
        ),
        ("labels", put("test", lambda array: array[:, None, None]), r"labels: test: .*the shape is \(200, 1, 1\)"),
        ("labels", put("test", lambda array: ONE_HOT[array]), "the same in every subset; there are: forget"),
        ("labels", of_all(lambda array: ONE_HOT[array]), "one-hot .*labels.argmax"),
        (
            "labels",
            lambda arrays: arrays | {"groups:test": np.zeros(190, int)},
            "groups:test has 190 rows, but test has 200",
        ),
        (
            "labels",
            lambda arrays: arrays | {"groups:test": np.zeros(210, int)},
            "groups:test has 210 rows, but test has 200",
        ),
        (
            "labels",
            lambda arrays: arrays | {"groups:unseen": np.zeros(9, int)},
            "groups:unseen has 9 rows, but unseen has 0",
        ),
        ("labels", lambda arrays: arrays | {"unseen": np.zeros(9, int)}, "unlearned: no logits on unseen"),
        (
            "oracle",
            put("test", lambda array: array.astype(str)),
            "oracle: test: real numbers expected, but the type is <U",
        ),
        ("oracle", put("test", lambda array: np.ma.masked_less(array, 0)), "oracle: test: some values are masked"),
        ("labels", put("test", lambda array: np.ma.masked_equal(array, 0)), "labels: test: some values are masked"),
        ("unlearned", put("retain", lambda array: array + 1j), "unlearned: retain: real numbers.*complex128"),
        ("unlearned", put("retain", lambda array: array[..., :4]), "unlearned: retain has 4 outputs, but forget has 5"),
        ("oracle", of_all(lambda array: np.concatenate([array, array[..., :1]], axis=2)), "the same outputs.*oracle 6"),
        ("oracle", put("test", lambda array: array[:9]), "oracle: test has 9 models, but forget has 12"),
        ("unlearned", lambda arrays: arrays | {"trian": arrays["test"]}, "unlearned: the subsets are .*, not trian"),
        (
            "original",
            of_all(lambda array: np.concatenate([array, array[:1]])),
            "original: 7 models, but 6 were unlearned",
        ),
    ],
)
def test_score_arrays_mismatch_names_argument_and_subset(task, role, change, message):
    arrays = npz_of(task)
    arrays[role] = change(arrays[role])
    with pytest.raises(UsageError, match=message):
        score_arrays(arrays["unlearned"], arrays["oracle"], arrays["labels"], original=arrays["original"])
    if role != "original":
        with pytest.raises(UsageError, match=message):
            score_arrays(arrays["unlearned"], arrays["oracle"], arrays["labels"])


def test_score_arrays_too_many_originals_are_refused(task):
    arrays = npz_of(task)
    more = {name: np.concatenate([array, array[:1]]) for name, array in arrays["original"].items()}
    half = {name: array[:6] for name, array in arrays["oracle"].items()}
    with pytest.raises(UsageError, match="original: 7 models"):
        score_arrays(arrays["unlearned"], half, arrays["labels"], original=more)


def test_score_arrays_few_oracles_are_counted(task):
    arrays = npz_of(task)
    nine = {name: array[:9] for name, array in arrays["oracle"].items()}
    found = score_arrays(arrays["unlearned"], nine, arrays["labels"])
    told = "9 oracles for 6 unlearned models: bands need twice as many oracles as unlearned models, 12"
    assert found.unranked_reason == told


def test_score_arrays_attributes_are_not_one_hot(task):
    arrays = npz_of(task)
    random = np.random.default_rng(0)
    labels = {name: random.integers(0, 2, (len(array), 5)) for name, array in arrays["labels"].items()}
    assert score_arrays(arrays["unlearned"], arrays["oracle"], labels).metrics["gap.forget"].value is not None


def test_score_command_erase_track_needs_its_subset(task, simulate, tmp_path, capsys):
    from forgetbench.cli import main

    erase = simulate(rows={"forget": 60, "retain": 80, "test": 100, "test-forgotten": 40})
    for place, found in (("erase", npz_of(erase)), ("other", npz_of(task))):
        (tmp_path / place).mkdir()
        for name, arrays in found.items():
            np.savez(tmp_path / place / f"{name}.npz", **arrays)

    def call(place, *more):
        files = {"--unlearned": "unlearned", "--oracle": "oracle", "--labels": "labels"}
        words = [word for key, name in files.items() for word in (key, str(tmp_path / place / f"{name}.npz"))]
        with pytest.raises(SystemExit) as ended:
            main(["score", *words, "--json", *more])
        return ended.value.code, "".join(capsys.readouterr())

    code, said = call("erase", "--track", "erase")
    assert code == 0
    assert '"track": "erase"' in said
    code, said = call("other", "--track", "erase")
    assert code == 2
    assert "labels: test-forgotten missing" in " ".join(said.split())


def test_read_npz_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, forget=np.random.default_rng(0).normal(size=(50, 50)))
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(UsageError, match="npz file"):
        read_npz(path)
