"""Models that were unlearned elsewhere: originals out, checkpoints in, and a run like any other."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.reference import check_run, read_pack
from forgetbench.evidence.run import read_run
from forgetbench.importers.checkpoints import ExternalMethod, export_originals, import_checkpoints
from forgetbench.runner.artifacts import WEIGHTS
from forgetbench.runner.config import RunConfig
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import run
from forgetbench.scoring.scorer import Scorer, rank_runs
from forgetbench.tasks.task import Task


@pytest.fixture(scope="module")
def task(make_task: Callable[..., Task]) -> Task:
    return make_task("random", "fraction = 0.1", draws=2)


@pytest.fixture(scope="module")
def options(task: Task, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Where one method has run, and its unlearned models were kept."""
    found = RunConfig(home=tmp_path_factory.mktemp("home"), device="cpu", engine="local", keep_models=True)
    run([task], lambda one: parse_methods(["finetune:epochs=1"], [], one.setting), found)
    return found


@pytest.fixture
def checkpoints(task: Task, options: RunConfig, tmp_path: Path) -> Path:
    """The models of that method as files, as if they had been made elsewhere."""
    folder = tmp_path / "unlearned"
    folder.mkdir()
    for card in (options.home / "store").glob("??/*/artifact.json"):
        key = json.loads(card.read_bytes())["key"]
        if key["kind"] == "unlearned":
            name = f"d{key['draw']}-s{key['seed']}.safetensors"
            shutil.copyfile(card.parent / WEIGHTS, folder / name)
    assert len(list(folder.iterdir())) == task.draws * task.seeds
    return folder


def test_import_checkpoints_gives_equal_bits(task: Task, options: RunConfig, checkpoints: Path) -> None:
    made = read_run(options.results.runs / task.name / "finetune-epochs=1")
    seen = read_run(import_checkpoints(task, checkpoints, ExternalMethod("my own code"), options))
    for theirs, ours in zip(made.manifest.models, seen.manifest.models, strict=True):
        assert (theirs.draw, theirs.seed, theirs.arrays) == (ours.draw, ours.seed, ours.arrays)
        assert theirs.share_changed == ours.share_changed
        assert theirs.original == ours.original
        assert (ours.seconds, ours.notes) == (None, {})
        assert ours.weights
    method, cost = seen.manifest.method, seen.manifest.cost
    assert (method.name, method.label, method.observed) == ("my-own-code", "my own code", True)
    assert not made.manifest.method.observed
    assert (cost.flops, cost.seconds) == (None, None)
    pack = read_pack(next(options.home.glob("packs/**/pack.json")).parent)
    assert check_run(seen, pack) == []
    standing = rank_runs(Scorer(pack), [made, seen])
    mine, theirs = standing.scorecards[3], standing.scorecards[2]
    assert mine.metrics == theirs.metrics
    assert mine.cost.flops is None


def test_import_stated_cost_is_recorded(task: Task, options: RunConfig, checkpoints: Path) -> None:
    folder = import_checkpoints(task, checkpoints, ExternalMethod("told", flops=1e6, seconds=2.5), options)
    cost = read_run(folder).manifest.cost
    assert (cost.flops, cost.seconds) == (1e6, 2.5)


def test_import_same_checkpoints_change_nothing(task: Task, options: RunConfig, checkpoints: Path) -> None:
    folder = import_checkpoints(task, checkpoints, ExternalMethod("twice"), options)
    before = (folder / "manifest.json").read_bytes()
    assert import_checkpoints(task, checkpoints, ExternalMethod("twice"), options) == folder
    assert (folder / "manifest.json").read_bytes() == before


def _drop(state: dict[str, torch.Tensor]) -> None:
    del state["head.weight"]


def _rename(state: dict[str, torch.Tensor]) -> None:
    state["classifier.weight"] = state.pop("head.weight")


def _reshape(state: dict[str, torch.Tensor]) -> None:
    state["head.weight"] = state["head.weight"][:, :3].contiguous()


def _poison(state: dict[str, torch.Tensor]) -> None:
    state["head.weight"][2, 1] = float("nan")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_drop, r"d1-s0.safetensors does not fit the network of test/mlp/random: missing head.weight"),
        (
            _rename,
            "missing head.weight; unknown classifier.weight. Save the state dict of a copy of the original that "
            "`forgetbench import-checkpoints test/mlp/random --export-originals DIR` wrote",
        ),
        (_reshape, r"head.weight has shape \(10, 3\), expected \(10, 16\)"),
        (_poison, "d1-s0.safetensors contains values that are not finite, in head.weight: the model diverged"),
    ],
)
def test_import_checkpoint_of_another_network_is_refused(
    task: Task, options: RunConfig, checkpoints: Path, harm: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    path = checkpoints / "d1-s0.safetensors"
    state = load_file(path)
    harm(state)
    save_file(state, path)
    with pytest.raises(UsageError, match=said):
        import_checkpoints(task, checkpoints, ExternalMethod("bad"), options)
    assert not (options.results.runs / task.name / "bad").exists()


def test_import_overflowing_model_is_refused(task: Task, options: RunConfig, checkpoints: Path) -> None:
    path = checkpoints / "d0-s1.safetensors"
    state = load_file(path)
    state["head.weight"] = state["head.weight"] * 0 + 3e38
    save_file(state, path)
    with pytest.raises(ForgetBenchError, match=r"d0-s1.safetensors: the predictions on \w+ are not finite"):
        import_checkpoints(task, checkpoints, ExternalMethod("bad"), options)


def test_import_wrong_files_are_named(task: Task, options: RunConfig, checkpoints: Path) -> None:
    with pytest.raises(UsageError, match=r"also contains d1-s0.safetensors, d1-s1.safetensors"):
        import_checkpoints(task.with_counts(draws=1), checkpoints, ExternalMethod("bad"), options)
    shutil.copyfile(checkpoints / "d0-s0.safetensors", checkpoints / "d0-s1.safetensors")
    with pytest.raises(UsageError, match=r"d0-s1.safetensors is the same file as d0-s0.safetensors"):
        import_checkpoints(task, checkpoints, ExternalMethod("bad"), options)
    (checkpoints / "d0-s1.safetensors").write_bytes(b"no such thing")
    with pytest.raises(UsageError, match=r"d0-s1.safetensors cannot be read as weights: it is neither safetensors nor"):
        import_checkpoints(task, checkpoints, ExternalMethod("bad"), options)
    for name in ("d0-s0", "d0-s1"):
        (checkpoints / f"{name}.safetensors").write_bytes(b"<!DOCTYPE html><html></html>")
    with pytest.raises(UsageError, match=r"d0-s\d.safetensors cannot be read as weights: .* web page"):
        import_checkpoints(task, checkpoints, ExternalMethod("bad"), options)
    (checkpoints / "d0-s1.safetensors").rename(checkpoints / "model_1.pt")
    with pytest.raises(
        UsageError, match=r"lacks d0-s1.safetensors: .* It contains model_1.pt. Add the files under these names"
    ):
        import_checkpoints(task, checkpoints, ExternalMethod("bad"), options)
    with pytest.raises(UsageError, match="does not exist"):
        import_checkpoints(task, checkpoints / "nowhere", ExternalMethod("bad"), options)


def test_import_without_originals_says_where_to_get_them(task: Task, checkpoints: Path, tmp_path: Path) -> None:
    elsewhere = RunConfig(home=tmp_path / "elsewhere", device="cpu", engine="local")
    with pytest.raises(UsageError, match=r"originals of seeds \[0, 1\] .* --export-originals DIR --seeds 2"):
        import_checkpoints(task, checkpoints, ExternalMethod("x"), elsewhere)


def test_import_any_name_is_a_row_of_its_own(task: Task, options: RunConfig, checkpoints: Path) -> None:
    folder = options.results.runs / task.name
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    names = ["我的方法", "方法", "me thod", "me-thod", "mé", "m²", "aux", "x" * 200]
    made = [import_checkpoints(task, checkpoints, ExternalMethod(name), options) for name in names]
    assert len(set(made)) == len(names)
    assert all(path.parent == folder for path in made)
    assert [read_run(path).manifest.row for path in made] == names
    assert import_checkpoints(task, checkpoints, ExternalMethod("me\u0301"), options) == made[4]  # composed é
    assert {path: path.read_bytes() for path in before} == before


def test_import_reads_what_the_checkpoint_option_reads(task: Task, options: RunConfig, checkpoints: Path) -> None:
    plain = read_run(import_checkpoints(task, checkpoints, ExternalMethod("plain"), options))
    states = {path: load_file(path) for path in sorted(checkpoints.iterdir())}
    for number, (path, state) in enumerate(states.items()):
        path.unlink()
        name = path.with_suffix((".pt", ".pth", ".bin", ".ckpt")[number % 4])
        torch.save({"model_state_dict": {f"module._orig_mod.{key}": one for key, one in state.items()}}, name)
    torch.save({"lr": 0.1}, checkpoints / "optimizer.pt")
    wrapped = read_run(import_checkpoints(task, checkpoints, ExternalMethod("wrapped"), options))
    for first, second in zip(plain.manifest.models, wrapped.manifest.models, strict=True):
        assert first.arrays == second.arrays
    shutil.copyfile(checkpoints / "d0-s0.pt", checkpoints / "d0-s0.bin")
    with pytest.raises(UsageError, match=r"contains both d0-s0.bin and d0-s0.pt. Remove one"):
        import_checkpoints(task, checkpoints, ExternalMethod("bad"), options)


def test_import_torchscript_says_what_to_save(task: Task, options: RunConfig, checkpoints: Path) -> None:
    with zipfile.ZipFile(checkpoints / "d0-s0.safetensors", "w") as archive:
        archive.writestr("m/constants.pkl", "")
    with pytest.raises(UsageError, match=r"d0-s0.safetensors .* a TorchScript archive.*torch.jit.load"):
        import_checkpoints(task, checkpoints, ExternalMethod("bad"), options)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("me\u0301", "mé"),
        ("my own code", "my-own-code"),
        ("m²+", "m"),
        ("हिन्दी", "हिन्दी"),
        ("..x", "x"),
        ("a\u200cb", "a-b"),
    ],
)
def test_external_method_name_is_made_of_words(name: str, method: str) -> None:
    assert ExternalMethod(name).method == method


@pytest.mark.parametrize("name", ["a\nb", "a\udce9", "\u202eabc", "a\x00", "a\x1b[31m"])
def test_import_unprintable_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"\(--name\) contains '\\.*', which is not printable"):
        ExternalMethod(name)


@pytest.mark.parametrize("name", ["", "...", "ssd", "x" * 201])
def test_import_reserved_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        ExternalMethod(name)


def test_export_originals_contains_all_that_is_needed(task: Task, options: RunConfig, tmp_path: Path) -> None:
    """Follow the guide: load, unlearn (a step up the forget set's loss), save, observe."""
    place = tmp_path / "export"
    export_originals(task, place, options)
    guide = (place / "README.md").read_text()
    assert guide.startswith("# The originals of test/mlp/random\n")
    assert "to seed 1." in guide
    from forgetbench.runner.context import TaskContext

    bench = TaskContext(task, options.env())
    (tmp_path / "unlearned").mkdir()
    for draw in range(2):
        split = np.load(place / f"split-d{draw}.npz")
        assert len(split["forget"]) == 6
        assert sorted(np.concatenate([split["forget"], split["retain"]]).tolist()) == list(range(60))
        images = torch.from_numpy(np.array(bench.data.partition.train.images[split["forget"]])).float() / 255
        labels = torch.from_numpy(split["labels"][split["forget"]])
        for seed in range(2):
            network = bench.data.network_spec.build(0)
            network.load_state_dict(load_file(place / "originals" / f"s{seed}.safetensors"))
            before = torch.nn.functional.cross_entropy(network(images), labels)
            before.backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    assert parameter.grad is not None
                    parameter.add_(0.5 * parameter.grad)
                assert torch.nn.functional.cross_entropy(network(images), labels) > before
            save_file(network.state_dict(), tmp_path / "unlearned" / f"d{draw}-s{seed}.safetensors")
    seen = read_run(import_checkpoints(task, tmp_path / "unlearned", ExternalMethod("ascent by hand"), options))
    pack = read_pack(next(options.home.glob("packs/**/pack.json")).parent)
    card = Scorer(pack).score(seen)
    assert card.metrics["shift.forget"].value is not None
    with pytest.raises(UsageError, match="is not empty"):
        export_originals(task, place, options)
