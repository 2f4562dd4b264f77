from __future__ import annotations

import hashlib
import json
from pathlib import Path

import PIL.Image
import pytest

from forgetbench.errors import UsageError
from forgetbench.runner.context import TaskContext
from forgetbench.runner.data import ExecutionEnv
from forgetbench.tasks import task as tasks
from forgetbench.tasks.task import Task, find_tasks, names, read_task

TOML = """
name = "mine/cnn/half"
title = "Mine"
[image_set]
name = "digits"
[network]
name = "cnn"
[recipe]
epochs = 2
[scenario]
name = "random"
options = { fraction = 0.5 }
"""


def write(folder: Path, text: str) -> str:
    path = folder / "task.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", names())
def test_catalog_every_task_is_valid(name: str) -> None:
    task = read_task(name)
    assert task.name == name
    assert task.title
    network = "vit-b16" if task.network.name.startswith("timm/vit_base_patch16_224.") else task.network.name
    assert name.startswith(f"{task.image_set.name}/{network}/")


def test_task_key_covers_only_what_shapes_a_model(tmp_path: Path) -> None:
    task = read_task(write(tmp_path, TOML))
    same = read_task(
        write(tmp_path, TOML.replace('"Mine"', '"Ours"').replace("title", "seeds = 9\ntrack = 'erase'\ntitle"))
    )
    other = read_task(write(tmp_path, TOML.replace("epochs = 2", "epochs = 3")))
    assert same.key == task.key == task.with_counts(seeds=10, draws=3).key
    assert other.key != task.key


def test_task_key_identifies_files_by_hash(tmp_path: Path) -> None:
    def task(where: str, sha256: str) -> str:
        options = f'[network]\noptions = {{ checkpoint = "{where}", sha256 = "{sha256}" }}'
        return read_task(write(tmp_path, TOML.replace("[network]", options))).key

    assert task("here.pt", "a1") == task("there.pt", "a1") != task("here.pt", "b2")


def test_task_paths_are_not_published_or_in_the_key(tmp_path: Path) -> None:
    def task(where: Path) -> Task:
        options = f'name = "folder"\noptions = {{ path = "{where}", table = "{where / "own.csv"}", size = 16 }}'
        return read_task(write(tmp_path, TOML.replace('name = "digits"', options)))

    here, there = task(tmp_path / "here"), task(tmp_path / "there")
    assert here.key == there.key
    assert str(tmp_path) not in json.dumps(here.public())
    assert here.public()["image_set"]["options"] == {"table": "own.csv", "size": 16}
    assert str(tmp_path) in json.dumps(here.model_dump())  # which jobs are made of


def test_task_own_images_are_identified_by_content(tmp_path: Path) -> None:
    """The same pictures elsewhere are the same model; with one picture changed it is another."""

    def facts(where: str, shade: int = 0) -> dict[str, object]:
        for name in ("a", "b"):
            for number in range(20):
                path = tmp_path / where / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.new("L", (8, 8), 10 * number + (shade if number == 3 else 0) + (name == "b")).save(path)
        options = f'name = "folder"\noptions = {{ path = "{tmp_path / where}", size = 8, grey = true }}'
        task = read_task(write(tmp_path, TOML.replace('name = "digits"', options)))
        return TaskContext(task, ExecutionEnv(str(tmp_path / "store"))).keys.model("original", 0, 0)

    assert facts("here") == facts("there")
    changed = facts("elsewhere", shade=5)
    assert changed["task"] == facts("here")["task"]
    assert changed != facts("here")


def test_task_memorization_scores_need_a_hash(tmp_path: Path) -> None:
    def task(where: str, sha256: str) -> Task:
        options = f'name = "memorised"\noptions = {{ count = 5, scores = "{tmp_path / where}"{sha256} }}'
        scenario = 'name = "random"\noptions = { fraction = 0.5 }'
        return read_task(write(tmp_path, TOML.replace(scenario, options)))

    assert task("a.npy", ', sha256 = "a1"').key == task("b.npy", ', sha256 = "a1"').key
    assert task("a.npy", ', sha256 = "a1"').key != task("a.npy", ', sha256 = "b2"').key
    assert str(tmp_path) not in json.dumps(task("a.npy", ', sha256 = "a1"').public())
    (tmp_path / "a.npy").write_bytes(b"scores")
    added = f'add sha256 = "{hashlib.sha256(b"scores").hexdigest()}" to the options: it identifies the file of scores.'
    with pytest.raises(UsageError, match=rf"^Task file .*task\.toml, \[scenario\]: {added}$"):
        task("a.npy", "")


def test_task_checkpoint_needs_a_file_and_its_hash(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.pt"
    network = f'[network]\nname = "cnn"\noptions = {{ checkpoint = "{checkpoint}" }}\n'
    path = write(tmp_path, TOML.replace('[network]\nname = "cnn"\n', network))
    with pytest.raises(
        UsageError, match=rf"task\.toml, \[network\]: option checkpoint names {checkpoint}, which does not"
    ):
        read_task(path)
    checkpoint.write_bytes(b"weights")
    added = f'add sha256 = "{hashlib.sha256(b"weights").hexdigest()}" to the options: it identifies the checkpoint.'
    with pytest.raises(UsageError, match=rf"^Task file .*task\.toml, \[network\]: {added}$"):
        read_task(path)


def test_forgetting_index_file_is_another_task(tmp_path: Path) -> None:
    task = read_task("digits/cnn/class")
    (tmp_path / "forget_idx.txt").write_text("1 2 3")
    other = task.forgetting(tmp_path / "forget_idx.txt")
    sha256 = hashlib.sha256(b"1 2 3").hexdigest()
    assert other.name == f"digits/cnn/class-indices-{sha256[:8]}"
    assert other.scenario.options["sha256"] == sha256
    assert Task.model_validate(other.model_dump()) == other
    (tmp_path / "moved.txt").write_text("1 2 3")
    assert other.key != task.key
    assert task.forgetting(tmp_path / "moved.txt").key == other.key
    (tmp_path / "moved.txt").write_text("1 2 4")
    assert task.forgetting(tmp_path / "moved.txt").key != other.key
    with pytest.raises(UsageError, match="does not exist"):
        task.forgetting(tmp_path / "nowhere.npy")


def test_task_streams_are_separate_and_follow_the_name(tmp_path: Path) -> None:
    task = read_task(write(tmp_path, TOML))
    renamed = read_task(write(tmp_path, TOML.replace("half", "third")))
    seeds = [task.stream("a"), task.stream("b"), task.stream("a", 0), task.stream("a", 1), renamed.stream("a")]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert task.stream("a", 1) == task.with_counts(seeds=8).stream("a", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epochs = 2", "epoch = 2"), r"Unknown key in \[recipe\] 'epoch'. Did you mean 'epochs'"),
        (("title", "titel"), r"Unknown key 'titel'. Did you mean 'title'"),
        (("epochs = 2", "epochs = 0"), "recipe.epochs: Input should be greater than or equal to 1"),
        (("fraction = 0.5", "fraction = nan"), "scenario.options: fraction must be text, a finite number, .*not nan"),
        (("epochs = 2", "lr = inf"), "recipe.lr: Input should be a finite number"),
        (('title = "Mine"', ""), "title: Field required: add it"),
        (("[recipe]", "[recipe"), "task.toml is not valid TOML: .* Correct it there"),
        (('"mine/cnn/half"', '"Mine half"'), "name: Input should be lower-case letters a to z, digits and dashes"),
    ],
)
def test_read_task_wrong_file_names_place_and_fix(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_task(write(tmp_path, TOML.replace(*change)))


def test_read_task_accepts_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_bytes(b"\xef\xbb\xbf" + TOML.encode().replace(b"\n", b"\r\n"))
    assert read_task(str(tmp_path / "task.toml")) == read_task(write(tmp_path, TOML))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-here/x"])
def test_impossible_paths_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_task(f"{name}.toml")
    with pytest.raises(UsageError, match="does not exist"):
        read_task("digits/cnn/class").forgetting(Path(name))
    for option in ('name = "indices"\noptions = { path', 'name = "memorised"\noptions = { count = 5, scores'):
        text = TOML.replace('name = "random"\noptions = { fraction = 0.5 }', f"{option} = {json.dumps(name)} }}")
        with pytest.raises(
            UsageError, match=r"which does not exist|null character|no home folder is known for ~nobody"
        ):
            read_task(write(tmp_path, text))


def test_unknown_task_is_not_answered_with_all_names() -> None:
    for call in (lambda: read_task("imagenet-1k"), lambda: find_tasks(["imagenet/*"])):
        with pytest.raises(UsageError, match="`forgetbench list tasks` shows all") as raised:
            call()
        assert len(str(raised.value)) < 200


def test_find_tasks_by_name_pattern_and_path(tmp_path: Path) -> None:
    found = find_tasks(["digits/cnn/*", "digits/cnn/class", write(tmp_path, TOML)])
    assert [task.name for task in found] == [*names("digits/cnn/*"), "mine/cnn/half"]
    with pytest.raises(UsageError, match="Did you mean 'digits/cnn/class'"):
        find_tasks(["digits/cnn/clas"])
    with pytest.raises(UsageError, match="No task matches 'mnist/"):
        find_tasks(["mnist/*"])
    with pytest.raises(UsageError, match="does not exist"):
        find_tasks(["nowhere.toml"])


VARIANTS = """
title = "Rockets"
variant = "rocket"
image_set.name = "digits"
network.name = "cnn"
recipe = {}
scenario = { name = "class", options = { classes = [1], count = 2 } }
[variants.sea]
title = "Sea"
scenario.options.classes = [2]
"""


def test_a_catalog_file_can_have_variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CATALOG", tmp_path)
    (tmp_path / "class.toml").write_text(VARIANTS)
    (tmp_path / "class-rocket.toml").write_text(VARIANTS.replace("rocket", "own"))
    (tmp_path / "plain-10.toml").write_text(VARIANTS.replace('"rocket"', '"10"').replace("sea]", "50]"))
    assert tasks.names() == ["class", "class-rocket", "class-rocket-sea", "class-sea", "plain-10", "plain-50"]
    sea = tasks.read_task("class-sea")
    assert (sea.title, sea.scenario.options) == ("Sea", {"classes": [2], "count": 2})
    assert tasks.read_task("class-rocket-own").name == "class-rocket"
    assert tasks.read_task("plain-50").scenario.options["classes"] == [2]


def test_published_classes_are_variants_of_one_file() -> None:
    rocket = tasks.read_task("cifar20/resnet18/subclass-rocket")
    assert rocket == tasks.read_task("cifar20/resnet18/subclass")
    for name in ("mushroom", "baby", "lamp", "sea"):
        task = tasks.read_task(f"cifar20/resnet18/subclass-{name}")
        assert task.scenario.options == {"subclasses": [name]}
        assert (task.recipe, task.network) == (rocket.recipe, rocket.network)
