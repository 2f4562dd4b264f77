"""Commands for image sets, index files and the store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from forgetbench.cli import main
from forgetbench.datasets._files import cached_arrays
from forgetbench.store import Store
from forgetbench.tasks.task import read_task

TASK = """
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


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "task.toml"
    path.write_text(TASK)
    return path


def run(task: Path, indices: Path) -> int:
    return call("run", task, "--method", "finetune:epochs=1", "--executor", "local", "--forget-indices", indices)


def test_run_forget_indices_creates_a_separate_board(
    task: Path, tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "forget_idx.npy", np.array([5, 2, 40]))
    assert run(task, tmp_path / "forget_idx.npy") == 0
    assert "Forget the rows of forget_idx.npy" in capsys.readouterr().out
    [folder] = (own_home / "runs/test/mlp").iterdir()
    assert folder.name.startswith("random-indices-")
    manifest = json.loads((folder / "finetune-epochs=1/manifest.json").read_text())
    assert manifest["task"] == f"test/mlp/{folder.name}"
    assert "run test/mlp/random --method" in manifest["command"]
    assert manifest["command"].endswith("--forget-indices forget_idx.npy")
    [pack] = (own_home / f"packs/test/mlp/{folder.name}").iterdir()
    assert np.load(pack / "rows-d0.npz")["forget"].tolist() == [2, 5, 40]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", np.array([3, 60]), "lists row 60; training rows are 0 to 59"),
        ("a.npy", np.array([-1, 6]), "lists row -1"),
        ("a.npy", np.array([3, 3]), "lists row 3 twice"),
        ("a.npy", np.array([0.5]), "row numbers are whole numbers"),
        ("a.npy", np.array([[1, 2]]), "one-dimensional list"),
        ("a.npy", np.zeros(3, bool), "has 3 booleans, but there are 60"),
        ("a.npy", np.ones(60, bool), "all 60 training images would be forgotten"),
        ("a.npy", np.array([{"a": 1}], dtype=object), "is an array of Python objects, which ForgetBench never"),
        ("a.json", '{"a": [1], "b": [2]}', "contains 'a', 'b', and none is named 'forget'"),
        ("a.txt", "1\ntwo\n", "contains 'two' where a row number is expected"),
        ("a.txt", "", "is an empty file"),
    ],
)
def test_run_invalid_index_file_is_refused_before_training(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: object, message: str
) -> None:
    if isinstance(content, np.ndarray):
        np.save(tmp_path / name, content, allow_pickle=True)
    else:
        (tmp_path / name).write_text(str(content))
    assert run(task, tmp_path / name) == 2
    output = " ".join(capsys.readouterr().err.split())
    assert any(part in output for part in message.split("|")), output
    assert "Traceback" not in output


def test_run_missing_index_file_is_refused(task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(task, tmp_path / "nowhere.npy") == 2
    assert "nowhere.npy does not exist" in capsys.readouterr().err


def test_run_says_which_files_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(40):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (8, 8), 6 * number).save(path)
    (tmp_path / "images" / "a" / "new[1].avif").write_bytes(b"")
    images = 'image_set = { name = "folder", options = { size = 8, gray = true } }'
    text = TASK.replace('image_set = { name = "digits", options = { train = 60, validation = 50 } }', images)
    (tmp_path / "task.toml").write_text(text)
    command = ("run", tmp_path / "task.toml", "--method", "finetune:epochs=1", "--executor", "local")
    assert call(*command, "--root", tmp_path / "images", "--seeds", "2") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("test/mlp/random: ")]
    [note] = [line for line in lines if "ignored" in line]
    assert "are ignored, because their format is not supported: 1 .avif. Save images in one of" in note


def test_data_check_groups_problems_of_one_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(40):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        PIL.Image.new("L", (8, 8), 6 * number).save(path)
        if number < 9:
            path.write_bytes(b"broken")
    command = ("data", "check", "folder", "--root", tmp_path, "--option", "size=8")
    assert call(*command) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("! unreadable image: ") for line in lines) == 5
    assert "    ... and 4 more of this kind; `forgetbench data check folder --json` lists all." in lines
    assert call(*command, "--json") == 1
    problems = json.loads(capsys.readouterr().out)
    assert sum(problem["kind"] == "unreadable image" for problem in problems) == 9


def test_data_list_names_the_origin_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", "list", "--json") == 0
    cards = {card["name"]: card for card in json.loads(capsys.readouterr().out)}
    assert len(cards) >= 18
    assert all(card["license"] for card in cards.values())
    assert call("data", "list", "m*") == 0
    output = capsys.readouterr().out
    assert "on request" in output
    assert "downloaded by data prepare" in output
    assert "digits" not in output


def test_store_tidy_keeps_artifacts_of_image_sets(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cached_arrays({"files": "decoded"}, lambda _: {"images": np.zeros(1000, np.uint8)})
    store = Store()
    for task in ("0" * 64, read_task("digits/cnn/class").key):
        store.write({"task": task, "role": "original"}, lambda _: None)
    (store.root / "ff" / ".aside-of-a-key").mkdir(parents=True)
    (own_home / "runs" / "a" / ".aside-of-a-run").mkdir(parents=True)
    assert call("store", "tidy", "--dry-run") == 0
    assert "1 artifacts and 2 leftovers, 0.0 MiB: would be removed" in capsys.readouterr().out
    assert call("store", "tidy") == 0
    assert not list(own_home.rglob(".aside*"))
    assert sorted(key["role"] for _, key in store.artifacts()) == ["images", "original"]
    assert call("store", "prune", "--images") == 0  # the name in earlier versions
    assert [key["role"] for _, key in store.artifacts()] == ["original"]
    assert store.root.is_relative_to(own_home)


def test_data_check_prints_contents_and_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(40):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(path)
    command = ("data", "check", "folder", "--root", tmp_path, "--option", "size=8")
    assert call(*command) == 0
    output = capsys.readouterr()
    assert [line.split() for line in output.out.splitlines() if line.startswith(("train", "test"))] == [
        ["train", "28", "2"],
        ["test", "8", "2"],
    ]
    assert "classes: a, b" in output.out
    assert "no problem found" in output.err
    (tmp_path / "a" / "0.png").write_bytes(b"")
    assert call(*command) == 1
    output = capsys.readouterr()
    assert "! unreadable image: " in output.out
    assert "a/0.png: the file is empty.\n    Copy the file from its source again" in output.out
    assert "1 problems to fix (!), 0 warnings (-)" in output.err
    assert call(*command, "--json") == 1
    assert [one["kind"] for one in json.loads(capsys.readouterr().out)] == ["unreadable image"]
