"""Correct and wrong calls: output, exit status, and messages that say how to fix the call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forgetbench.cli import main
from forgetbench.datasets.scenarios import scenarios
from forgetbench.networks import networks

GOOD = """
name = "test/mlp/random"
title = "Seconds"
seeds = 2
image_set = { name = "digits", options = { train = 60, validation = 50 } }
network = { name = "mlp", options = { hidden = [8] } }
recipe = { epochs = 2 }
scenario = { name = "random", options = { fraction = 0.2 } }
"""


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exited:
        main([str(word) for word in arguments])
    return int(exited.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The message of a usage error, which exits with 2 and prints no result."""
    assert call(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return " ".join(output.err.split())


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "task.toml"
    path.write_text(GOOD)
    return path


def modify(task: Path, old: str, new: str) -> Path:
    assert old in GOOD
    task.write_text(GOOD.replace(old, new))
    return task


@pytest.mark.parametrize("kind", ["tasks", "datasets", "methods", "attacks", "metrics", "scenarios", "networks"])
def test_list_names_can_be_shown(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", kind, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(row["title"] for row in rows)
    if kind == "networks":
        return
    for row in rows[:: 1 + len(rows) // 15]:  # a sample of long lists
        assert call("show", kind[:-1], row["name"]) == 0
        assert row["name"] in capsys.readouterr().out


def test_shown_docstrings_are_plain_text() -> None:
    documents = {name: part.get(name).__doc__ or "" for part in (scenarios, networks) for name in part.names()}
    assert {"indices", "stream", "cnn"} <= set(documents)
    assert not [name for name, text in documents.items() if "``" in text or ":`" in text]


def test_list_pattern_selects_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "tasks", "faces/vit/*", "--json") == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert names == ["faces/vit/identity", "faces/vit/stream-3"]


def test_run_is_scored_and_reported(task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", task, "--method", "finetune:epochs=1", "--executor", "local", "--device", "cpu", "--json") == 0
    output = capsys.readouterr()
    [board] = json.loads(output.out)
    assert [row["method"] for row in board["rows"]] == ["Retrain", "No unlearning", "finetune:epochs=1"]
    assert "a board needs 6 for ranks" in board["notes"][0]
    folder = output.err.rsplit("evidence: ", 1)[1].strip()
    assert call("score", folder, "--json") == 0
    card = json.loads(capsys.readouterr().out)
    assert card["metrics"]["gap.forget"]["value"] == board["rows"][2]["gap.forget"]
    for format_, expected in (("markdown", "| rank | method |"), ("csv", "task,method,"), ("latex", r"\toprule")):
        output = tmp_path / f"boards.{format_}"
        assert call("report", "--format", format_, "--output", output) == 0
        assert expected in output.read_text()
    assert call("report", "--format", "html", "--output", tmp_path / "boards.html") == 0
    page = (tmp_path / "boards.html").read_text()
    assert page.count('<img src="data:image/svg+xml;base64,') == 5
    assert "http" not in page
    assert call("report", "--figure", "seeds", "--figure", "ranks", "--output", tmp_path / "pictures") == 0
    assert len(list((tmp_path / "pictures").glob("test-mlp-random-*.svg"))) == 2
    assert call("report", "--method", "nothing*") == 2
    assert call("report", "--figure", "critical-difference", "--output", tmp_path / "cd.svg") == 2
    capsys.readouterr()
    assert call("score", folder) == 0
    assert "gap.forget" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digits/cnn/clas"], "Unknown task 'digits/cnn/clas'. Did you mean 'digits/cnn/class'"),
        (["run"], "Name a task"),
        (["run", "digits/cnn/class", "--method", "sdd"], "Unknown method 'sdd'. Did you mean 'ssd'"),
        (["run", "digits/cnn/class", "--method", "ssd:alpa=1"], "'alpa'. Did you mean 'alpha'"),
        (["run", "digits/cnn/class", "--method", "ssd:alpha=-1"], "alpha must be a number > 0, not -1"),
        (["run", "digits/cnn/class", "--method", "ssd:alpha"], "'alpha' has no value"),
        (["run", "digits/cnn/class", "--method", "ssd", "--method", "ssd"], "Duplicate method: ssd"),
        (["run", "digits/cnn/class", "--method-file", "nowhere.py:Mine"], "There is no file nowhere.py"),
        (["run", "digits/cnn/class", "--device", "cuda:99"], "Device 'cuda:99' is not available"),
        (["run", "digits/cnn/class", "--seeds", "1"], "seeds: Input should be greater than or equal to 2"),
        (["list", "task"], "Choose from"),
        (["show", "metric", "lira.forgt"], "Did you mean 'lira.forget'"),
        (["show", "dataset", "mufak"], "Did you mean 'mufac'"),
        (["score", "nowhere"], "is not a run"),
        (["report"], "There are no results of that name here"),
        (["report", "--figure", "paretto", "--output", "x.svg"], "Available: pareto"),
        (["report", "--figure", "pareto"], "--output ranks.svg"),
        (["nonsense"], "nonsense"),
        (["check-method", "sdd"], "Did you mean 'ssd'"),
        (["submit", "nowhere", "--server", "https://example.org"], "is not a run"),
        (["admin", "token", "create", "x", "--scope", "everything"], "Choose from"),
    ],
)
def test_wrong_call_explains_how_to_fix_it(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], own_home: Path
) -> None:
    assert message in refused(capsys, *arguments)
    assert list(own_home.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"digits"', '"digts"', "Unknown image set 'digts'. Did you mean 'digits'"),
        ("train = 60", "trane = 60", "image set 'digits': Unknown option 'trane'. Did you mean 'train'"),
        ("train = 60", "train = 6", "image set 'digits': train must be a whole number in [20, 1700], not 6"),
        ('"mlp"', '"mpl"', "Unknown network 'mpl'. Did you mean 'mlp'"),
        ("hidden", "hiden", "hiden"),
        ('"random"', '"rndom"', "Unknown scenario 'rndom'. Did you mean 'random'"),
        ("fraction = 0.2", "fraction = 1.5", "scenario 'random': fraction must be a number in (0, 1) or None, not 1.5"),
        ('"random"', '"identity"', "has no identities"),
        ("epochs = 2", "epoch = 2", "Did you mean 'epochs'"),
    ],
)
def test_run_wrong_task_file_is_refused_before_training(
    old: str, new: str, message: str, task: Path, capsys: pytest.CaptureFixture[str], own_home: Path
) -> None:
    output = refused(capsys, "run", modify(task, old, new), "--method", "finetune", "--executor", "local")
    assert message in output
    assert not list(own_home.rglob("*.safetensors"))


def test_run_missing_data_folder_names_the_option(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["run", "orl/cnn/identity", "--method", "finetune", "--executor", "local"]
    assert "name the data folder with --root" in refused(capsys, *arguments)
    assert "is neither in" in refused(capsys, *arguments, "--root", tmp_path)


def test_run_unreadable_image_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        (tmp_path / "folder" / name / "1.png").write_bytes(b"no image")
    text = GOOD.replace('name = "digits", options = { train = 60, validation = 50 }', 'name = "folder"')
    (tmp_path / "task.toml").write_text(text)
    output = refused(
        capsys,
        "run",
        tmp_path / "task.toml",
        "--method",
        "finetune",
        "--executor",
        "local",
        "--root",
        tmp_path / "folder",
    )
    assert "1.png" in output


def test_run_table_row_without_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "index.csv").write_text("path,label\nnowhere.png,cat\n")
    text = GOOD.replace("options = { train = 60, validation = 50 }", 'options = { table = "index.csv" }').replace(
        '"digits"', '"folder"'
    )
    (tmp_path / "task.toml").write_text(text)
    output = refused(
        capsys, "run", tmp_path / "task.toml", "--method", "finetune", "--executor", "local", "--root", folder
    )
    assert "nowhere.png" in output
    assert "2" in output


def test_score_run_of_other_task_definition_is_refused(
    task: Path, capsys: pytest.CaptureFixture[str], own_home: Path
) -> None:
    run = ["--method", "finetune", "--executor", "local", "--json"]
    assert call("run", task, *run) == 0
    capsys.readouterr()
    [pack] = (path.parent for path in (own_home / "packs").rglob("pack.json"))
    assert call("run", modify(task, "epochs = 2", "epochs = 3"), *run) == 0
    other = capsys.readouterr().err.rsplit("evidence: ", 1)[1].strip()
    assert call("score", other, "--pack", pack) == 1
    assert "of another definition of 'test/mlp/random'" in capsys.readouterr().err
