"""Folders of runs: every row has its own, whatever its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.leaderboard import TASK, World

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.run import read_run
from forgetbench.remote import submit as remote
from forgetbench.runner.config import NullProgress, RunConfig
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.results import Results, folder_name
from forgetbench.runner.run import run
from forgetbench.tasks.task import Task


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("finetune", "finetune"),
        ("gs-lora++", "gs-lora++"),
        ("finetune:epochs=1", "finetune-epochs=1"),
        ("ssd:alpha=3,dampening=0.5", "ssd-alpha=3-dampening=0.5"),
        ("My_Method.2", "My_Method.2"),
        ("scrub:lr=1e-05", "scrub-lr=1e-05"),
    ],
)
def test_folder_name_of_plain_label_has_no_hash(label: str, name: str) -> None:
    assert folder_name(label) == name


LABELS = [
    *("我的方法", "方法", "あ", "é", "e\u0301", "Ω", "🙂", "Ⅷ", "m²", "\u202ex", "~", "~x", "$HOME", "x\n", "", " "),
    *(".", "..", "...", "-", "/", "../x", "x/..", "a b", "a/b", "a\\b", "a:b", "a-b", "a--b", "a,b", "a b ", "A b"),
    *("con", "CON", "nul", "nul.txt", "Aux", "com1", "lpt9.x", "conin$", "prn", "a.", "a", ".a", "-a", "a*", "a?"),
    *('a"', "a|b", "<a>", "x" * 80, "x" * 81, "x" * 200, "y" + "x" * 199, "ssd:alpha=3", "ssd-alpha=3"),
    *("ssd:alpha=3,beta=4", "ssd-alpha=3-beta=4", "ssd:alpha=3-beta=4", "ssd:alpha=3,beta=4,"),
]
DEVICES = {"con", "prn", "aux", "nul", "conin$", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(10))}


@pytest.mark.parametrize("label", LABELS)
def test_folder_name_is_accepted_by_every_system(label: str) -> None:
    name = folder_name(label)
    assert name.isascii()
    assert 0 < len(name) <= 80
    assert not set(name) & set('<>:"/\\|?*\0 \n')
    assert name[0] not in ".-~"
    assert name[-1] not in ". "
    assert name.split(".")[0].lower() not in DEVICES


def test_folder_name_differs_for_every_label() -> None:
    assert len({folder_name(label) for label in LABELS}) == len(LABELS)


def place_run(results: Results, label: str, start: int = 300) -> Path:
    """Write a run with this label where results put it."""
    folder = results.run_folder(TASK, label)
    World().write_run(folder, "scrub", start=start, method={"label": label})
    return folder


def test_run_folder_of_another_row_is_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that ignores case, where the folder of one row is found under the name of the other."""
    results = Results(tmp_path)
    first = place_run(results, "My-Method")
    monkeypatch.setattr("forgetbench.runner.results.folder_name", lambda _: "My-Method")
    second = place_run(results, "my-method", start=400)
    assert second.name.startswith("my-method-")
    assert results.run_folder(TASK, "My-Method") == first
    assert results.run_folder(TASK, "my-method") == second


def test_run_folder_of_earlier_versions_is_found_again(tmp_path: Path) -> None:
    results = Results(tmp_path)
    World().write_run(tmp_path / "runs" / TASK / "my-method", "scrub", method={"label": "my method"})
    assert results.run_folder(TASK, "my method").name == "my-method"
    assert results.run_folder(TASK, "my-method").name.startswith("my-method-")


def test_run_folder_avoids_what_is_no_run(tmp_path: Path) -> None:
    results = Results(tmp_path)
    World().write_run(tmp_path / "runs" / TASK / "scrub", "scrub")
    above, inner = TASK.rpartition("/")[0], TASK.rpartition("/")[2]
    assert results.run_folder(above, inner).name.startswith(f"{inner}-")  # that name is the folder of a task
    damaged = tmp_path / "runs" / TASK / "scrub" / "manifest.json"
    damaged.write_text("{")
    assert results.run_folder(TASK, "scrub") == damaged.parent


def test_import_logits_never_replaces_other_files(tmp_path: Path) -> None:
    from forgetbench.store import replace_folder

    results = Results(tmp_path)
    place_run(results, "scrub")
    with pytest.raises(ForgetBenchError, match=r"random-10 is in the way: it has other files and no manifest.json"):
        replace_folder(tmp_path / "runs" / TASK, lambda _: None, marker="manifest.json")
    assert results.run_folder(TASK, "scrub").is_dir()


METHOD = """
from dataclasses import dataclass
from forgetbench.methods import Method


@dataclass(frozen=True, kw_only=True)
class {name}(Method):
    "Does nothing."

    def unlearn(self, model, request):
        return model
"""


def test_method_class_of_any_name_is_a_row_of_its_own(make_task: Callable[..., Task], tmp_path: Path) -> None:
    names = ["方法", "我的方法"]
    for name in names:
        (tmp_path / f"{name}.py").write_text(METHOD.format(name=name), encoding="utf-8")
    rows = parse_methods([], [str(tmp_path / f"{name}.py") for name in names], "mlp")
    config = RunConfig(home=tmp_path / "home", device="cpu", engine="local")
    [done] = run([make_task("random", "fraction = 0.1", epochs=1)], lambda _: rows, config)
    assert [read_run(folder).manifest.row for folder in done.runs] == names
    assert len(set(done.runs)) == 2


def test_method_class_with_a_built_in_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(METHOD.format(name="Finetune"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"Finetune in .*mine.py has the name of a method .* such as 'finetune-own'"):
        parse_methods([], [str(path)], "mlp")


def test_logits_of_two_names_are_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = []
    monkeypatch.setattr(remote, "import_logits", lambda *words: targets.append(words[-1]))
    monkeypatch.setattr(remote, "pull_bundle", lambda *_: None)
    monkeypatch.setattr(remote, "read_pack", lambda *_, **__: None)
    for place, name in (("a/logits", "方法"), ("b/logits", "我的方法"), ("c/logits", "mine")):
        (tmp_path / place).mkdir(parents=True)
        np.savez(tmp_path / place / "d0-s0.npz", forget=np.zeros((1, 2)))
        (tmp_path / place / "method.toml").write_text(f'name = "{name}"\n', encoding="utf-8")
        config = RunConfig(home=tmp_path / "home", device="cpu")
        remote.prepare_submission(str(tmp_path / place), "https://x.example.org", TASK, config, NullProgress())
    assert len(set(targets)) == 3
    assert {target.parent for target in targets} == {tmp_path / "home" / "runs" / TASK}
