"""Runs end to end, on a task of a few seconds: resumed, damaged, killed, failed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forgetbench.datasets.types import ImageSet, Partition
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.reference import ReferenceBundle, check_run, read_pack
from forgetbench.evidence.run import read_run
from forgetbench.remote import pull as afar
from forgetbench.remote.pull import ImportedOriginals, import_originals
from forgetbench.reporting.tables import board_table
from forgetbench.runner.config import RunConfig
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import TaskRun, run
from forgetbench.scoring.scorer import Scorer, rank_runs
from forgetbench.tasks.task import Task, read_task


@pytest.fixture
def task_file(write_task: Callable[..., Path]) -> Path:
    return write_task("mislabelled", "rate = 0.3, known = 0.5", seeds=3)


@pytest.fixture
def task(task_file: Path) -> Task:
    return read_task(str(task_file))


def go(task: Task, home: Path, *names: str, files: tuple[str, ...] = (), engine: str = "local") -> TaskRun:
    options = RunConfig(home=home, device="cpu", engine=engine, workers=2)
    [done] = run([task], lambda one: parse_methods(names, files, one.setting), options)
    return done


def pack_of(done: TaskRun) -> ReferenceBundle:
    assert done.reference is not None
    return done.reference


def bits(home: Path) -> dict[str, bytes]:
    """Every array of packs and runs."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for part in ("packs", "runs")
        for path in (home / part).rglob("*.npz")
    }


def test_run_evidence_matches_its_bundle(task: Task, tmp_path: Path) -> None:
    done = go(task, tmp_path / "home", "finetune:epochs=1")
    found, pack = read_run(done.runs[0]), read_pack(pack_of(done).folder)
    assert check_run(found, pack) == []
    manifest = found.manifest
    assert manifest.row == "finetune:epochs=1"
    assert manifest.method.parameters["epochs"] == 1
    assert [(model.draw, model.seed) for model in manifest.models] == [(0, 0), (0, 1), (0, 2)]
    assert {model.original for model in manifest.models} == set(pack.card.originals)
    assert manifest.cost.flops is not None
    assert 0 < manifest.cost.flops < manifest.cost.retrain_flops  # type: ignore[operator]
    assert manifest.cost.retrain_seconds  # everything was trained here, alone
    assert "--method finetune:epochs=1 --seeds 3" in manifest.command
    assert pack.card.counts["0"] == {"forget": 9, "retain": 42, "withheld": 9, "validation": 50, "test": 1687}
    logits = found.logits(0, 0)["forget"]
    assert logits.dtype == np.float16
    assert (logits.max(axis=1) == 0).all()


def test_run_second_time_computes_nothing(task: Task, tmp_path: Path) -> None:
    first = go(task, tmp_path, "finetune")
    manifest = (first.runs[0] / "manifest.json").read_bytes()
    second = go(task, tmp_path, "finetune")
    assert first.computed == 3 * 3 + 3
    assert second.computed == 0
    assert (second.runs[0] / "manifest.json").read_bytes() == manifest


def test_run_more_seeds_train_only_the_missing(task: Task, tmp_path: Path) -> None:
    go(task, tmp_path, "finetune")
    more = go(task.with_counts(seeds=4), tmp_path, "finetune")
    assert more.computed == 3 + 1


def test_run_engines_give_equal_bits(task: Task, tmp_path: Path) -> None:
    go(task, tmp_path / "a", "finetune", "random-label", engine="local")
    go(task, tmp_path / "b", "finetune", "random-label", engine="processes")
    first, second = bits(tmp_path / "a"), bits(tmp_path / "b")
    assert first
    assert first == second


def test_run_damaged_artifacts_are_recomputed_equal(task: Task, tmp_path: Path) -> None:
    go(task, tmp_path, "finetune")
    before = bits(tmp_path)
    files = [path for path in (tmp_path / "store").rglob("*") if path.suffix in {".safetensors", ".npz"}]
    for path in files[::3]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    again = go(task, tmp_path, "finetune")
    assert again.computed > 0
    assert bits(tmp_path) == before


@pytest.mark.parametrize("after", [1, 6])
def test_run_killed_resumes(task: Task, tmp_path: Path, after: int, task_file: Path) -> None:
    """Kill -9, then the same command: what was finished is not repeated, and the bits are those of a run in peace."""
    go(task, tmp_path / "peace", "finetune")
    home = tmp_path / "home"
    environment = {**os.environ, "FORGETBENCH_HOME": str(home)}
    words = [sys.executable, "-m", "forgetbench", "run", str(task_file), "--method", "finetune"]
    words += ["--executor", "local", "--json"]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    models = "store/??/[0-9a-f]*/weights.safetensors"
    until = time.monotonic() + 300
    while len(list(home.glob(models))) < after and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in home.glob(models)}
    assert len(finished) >= after
    done = go(task, home, "finetune")
    assert done.computed <= 12 - max(0, len(finished) - 1)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert bits(home) == bits(tmp_path / "peace")


def test_run_failing_method_is_a_row_and_others_go_on(task: Task, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom forgetbench.methods import Method\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Bad(Method):\n    'Fails.'\n"
        "    def unlearn(self, model, request):\n        raise ValueError('no luck')\n"
    )
    done = go(task, tmp_path / "home", "finetune", files=(f"{file}:Bad",))
    good, bad = (read_run(folder).manifest for folder in done.runs)
    assert good.status == "ok"
    assert (bad.status, bad.reason, bad.models) == ("failed", "ValueError: no luck", ())
    assert bad.method.source is not None
    assert "no luck" in bad.method.source
    standing = rank_runs(Scorer(pack_of(done)), [read_run(folder) for folder in done.runs])
    assert [card.status for card in standing.scorecards] == ["ok", "ok", "ok", "failed"]


OWN = (
    "import torch, copy\nfrom dataclasses import dataclass\nfrom forgetbench.methods import Method\n"
    "@dataclass(frozen=True, kw_only=True)\nclass Own(Method):\n    'Trains originals of its own.'\n"
    "    def training_loss(self, network, images, labels):\n        return {loss}\n"
    "    def unlearn(self, model, request):\n        return copy.deepcopy(model)\n"
)


@pytest.mark.parametrize(
    ("loss", "status", "reason"),
    [
        ("network(images).sum() * float('nan')", "diverged", "training its own original: own: Training diverged"),
        ("network(images, 1, 2)", "failed", "TypeError"),
        ("torch.nn.functional.cross_entropy(network(images), labels)", "ok", ""),  # and unlearning is the identity
    ],
)
def test_run_failing_own_originals_stop_no_other_row(
    task: Task, tmp_path: Path, loss: str, status: str, reason: str
) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("{loss}", loss))
    done = go(task, tmp_path / "home", "finetune", files=(f"{file}:Own",))
    good, own = (read_run(folder).manifest for folder in done.runs)
    assert good.status == "ok"
    assert own.status == status
    assert reason in own.reason
    standing = rank_runs(Scorer(pack_of(done)), [read_run(folder) for folder in done.runs])
    assert [card.status for card in standing.scorecards] == ["ok", "ok", "ok", status]


def test_rank_runs_other_originals_is_a_failed_row(task: Task, tmp_path: Path) -> None:
    done = go(task, tmp_path / "home", "finetune", "ssd")
    path = done.runs[1] / "manifest.json"
    manifest = json.loads(path.read_text())
    for model in manifest["models"]:
        model["original"] = "0" * 64
    path.write_text(json.dumps(manifest))
    standing = rank_runs(Scorer(pack_of(done)), [read_run(folder) for folder in done.runs])
    assert [card.status for card in standing.scorecards] == ["ok", "ok", "ok", "failed"]
    assert "not unlearned from this board's originals" in standing.scorecards[-1].reason


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_cache_keys_follow_the_images(task: Task, tmp_path: Path, part: str) -> None:
    """One pixel of one picture: what was answered, or unlearned, before is not taken for what is asked now."""
    from forgetbench.runner.context import TaskContext
    from forgetbench.runner.data import ExecutionEnv

    def bench(partition: Partition | None = None) -> TaskContext:
        made = TaskContext(task, ExecutionEnv(str(tmp_path / "store")))
        if partition is not None:
            made.data.partition = partition
        return made

    before = bench()
    images = getattr(before.data.partition, part)
    pixels = images.images.copy()
    pixels[0, 0, 0, 0] ^= 1
    after = bench(replace(before.data.partition, **{part: replace(images, images=pixels)}))
    assert before.keys.predictions("w", 0) != after.keys.predictions("w", 0)
    assert before.keys.imported("w", "o", 0) != after.keys.imported("w", "o", 0)
    same_model = before.keys.model("original", 0, 0) == after.keys.model("original", 0, 0)
    assert same_model is (part != "train")


def test_cache_keys_name_the_loss_of_attributes(task: Task, tmp_path: Path) -> None:
    """Their loss became a mean; models of tasks with classes keep their keys."""
    from forgetbench.runner.context import TaskContext
    from forgetbench.runner.data import ExecutionEnv

    context = TaskContext(task, ExecutionEnv(str(tmp_path / "store")))
    assert "attributes" not in context.keys.model("original", 0, 0)["components"]

    def with_attributes(images: ImageSet) -> ImageSet:
        return replace(images, labels=np.stack([images.labels % 2, images.labels // 5], axis=1), classes=("odd", "big"))

    parts = {name: with_attributes(images) for name, images in context.data.partition.parts()}
    context.data.partition = replace(context.data.partition, **parts)
    assert context.keys.model("original", 0, 0)["components"]["attributes"] == "mean"
    assert context.keys.predictions("w", 0)["components"]["attributes"] == "mean"


def test_request_has_the_fine_classes_of_both_sets(task: Task, tmp_path: Path) -> None:
    from forgetbench.runner.context import TaskContext
    from forgetbench.runner.data import ExecutionEnv
    from forgetbench.runner.unlearn import make_request

    context = TaskContext(task, ExecutionEnv(str(tmp_path / "store")))
    assert make_request(context, 0, 0).retain_fine_labels is None
    train = context.data.partition.train
    fine = np.arange(len(train)) % 7
    train = replace(train, fine_labels=fine, fine_classes=tuple("abcdefg"))
    context.data.partition = replace(context.data.partition, train=train)
    request, split = make_request(context, 0, 0), context.data.split(0)
    assert request.forget_fine_labels is not None
    assert request.retain_fine_labels is not None
    assert request.forget_fine_labels.tolist() == fine[split.forget].tolist()
    assert request.retain_fine_labels.tolist() == fine[split.retain].tolist()


def test_run_diverging_method_is_recorded(task: Task, tmp_path: Path) -> None:
    done = go(task, tmp_path, "finetune:lr=1e30,epochs=5")
    manifest = read_run(done.runs[0]).manifest
    assert manifest.status == "diverged"
    assert "learning rate" in manifest.reason


def test_check_run_other_task_or_arrays_are_refused(task: Task, tmp_path: Path) -> None:
    done = go(task, tmp_path / "home", "finetune")
    other = Task.model_validate({**task.model_dump(), "name": "test/mlp/other"})
    pack = pack_of(go(other, tmp_path / "home"))
    assert "this board is 'test/mlp/other'" in check_run(read_run(done.runs[0]), pack)[0]
    path = done.runs[0] / "d0-s1.npz"
    path.write_bytes((done.runs[0] / "d0-s0.npz").read_bytes())
    with pytest.raises(ForgetBenchError, match="SHA-256 differs"):
        Scorer(pack_of(done)).score(read_run(done.runs[0]))


def test_scorer_cached_scorecard_equal_and_damage_found(task: Task, tmp_path: Path) -> None:
    done = go(task, tmp_path / "home", "finetune")
    judge = Scorer(pack_of(done), scorecard_cache=tmp_path / "scores")
    run = read_run(done.runs[0])
    first = judge.score(run), judge.score_reference("Retrain")
    assert len(list((tmp_path / "scores").iterdir())) == 2
    assert first == (judge.score(run), judge.score_reference("Retrain"))
    assert first[0] == Scorer(pack_of(done)).score(run)
    (run.folder / "d0-s1.npz").write_bytes((run.folder / "d0-s0.npz").read_bytes())
    with pytest.raises(ForgetBenchError, match="SHA-256 differs"):
        judge.score(run)


def test_rank_runs_contains_the_reference_rows(task: Task, tmp_path: Path) -> None:
    done = go(task.with_counts(seeds=6), tmp_path, "none", "retrain", "random-label")
    assert len(done.runs) == 1
    standing = rank_runs(Scorer(pack_of(done), tmp_path), [read_run(folder) for folder in done.runs])
    retrain, untouched, _ = standing.scorecards
    assert (retrain.name, untouched.name) == ("Retrain", "No unlearning")
    assert untouched.distance is not None
    assert not untouched.distance.within_band
    assert "under-forgotten" in untouched.flags
    cached = json.loads(next(tmp_path.glob("bands-*.json")).read_bytes())
    assert cached["family_limit"] == standing.bands.family_limit
    assert Scorer(pack_of(done), tmp_path).bands == standing.bands
    runs = [read_run(folder) for folder in done.runs * 3]
    parallel, serial = (rank_runs(Scorer(pack_of(done), tmp_path, workers=workers), runs) for workers in (3, 1))
    assert parallel == serial
    assert parallel.scorecards[2:] == standing.scorecards[2:] * 3


def test_run_skip_oracles_starts_from_a_boards_originals(task: Task, tmp_path: Path) -> None:
    theirs = go(task, tmp_path / "theirs", "finetune")
    ours = RunConfig(home=tmp_path / "ours", device="cpu", engine="local", skip_oracles=True)
    with pytest.raises(UsageError, match="forgetbench pack pull test/mlp/mislabelled"):
        run([task], lambda one: parse_methods(["finetune"], [], one.setting), ours)
    assert import_originals(task, pack_of(theirs).folder, ours) == ImportedOriginals(3, ())
    [done] = run([task], lambda one: parse_methods(["finetune"], [], one.setting), ours)
    assert done.reference is None
    assert check_run(read_run(done.runs[0]), pack_of(theirs)) == []
    assert bits(tmp_path / "ours") == {
        name: data for name, data in bits(tmp_path / "theirs").items() if name.startswith("runs/")
    }
    assert len(list((tmp_path / "ours" / "store").rglob("weights.safetensors"))) == 3


def test_import_originals_reports_replaced_ones(task: Task, tmp_path: Path) -> None:
    options = RunConfig(home=tmp_path, device="cpu", engine="local")
    [mine] = run([task], lambda _: [], options)
    [pack] = [path.parent for path in tmp_path.rglob("pack.json")]
    others = [(pack / "models" / f"s{seed}.safetensors").read_bytes() for seed in (1, 0, 2)]
    card = json.loads((pack / "pack.json").read_text())
    for seed, weights in enumerate(others):
        (pack / "models" / f"s{seed}.safetensors").write_bytes(weights)
        card["originals"][seed] = hashlib.sha256(weights).hexdigest()
    (pack / "pack.json").write_text(json.dumps(card))
    assert mine.reference is not None
    assert import_originals(task, pack, options) == ImportedOriginals(3, (0, 1))
    assert import_originals(task, pack, options) == ImportedOriginals(3, ())


def test_pull_board_keeps_local_originals_separate(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Task.model_validate({**task.model_dump(), "seeds": 2})
    theirs = pack_of(go(other, tmp_path / "theirs")).folder
    go(other, tmp_path / "ours")
    store = tmp_path / "ours" / "store"
    before = {path: path.read_bytes() for path in store.rglob("*.*")}
    monkeypatch.setattr(afar, "read_task", lambda _: task)
    monkeypatch.setattr(afar, "pull_bundle", lambda *given, **_: shutil.copytree(theirs, given[2]))
    found, options = afar.pull_board(task.name, "http://board", RunConfig(home=tmp_path / "ours", device="cpu"))
    assert found.seeds == 2
    assert options.home.parent == tmp_path / "ours" / "boards"
    assert afar.pull_board(task.name, "http://board", RunConfig(home=tmp_path / "ours", device="cpu"))[1] == options
    assert {path: path.read_bytes() for path in store.rglob("*.*")} == before
    assert len(list((options.home / "store").rglob("weights.safetensors"))) == 2


def test_import_originals_of_another_task_is_refused(task: Task, tmp_path: Path) -> None:
    theirs = go(task, tmp_path / "theirs")
    recipe = task.recipe.model_copy(update={"epochs": 7})
    other = Task.model_validate({**task.model_dump(), "recipe": recipe.model_dump()})
    with pytest.raises(UsageError, match="differs from the local definition"):
        import_originals(other, pack_of(theirs).folder, RunConfig(home=tmp_path / "ours"))
    damaged = pack_of(theirs).folder / "models" / "s1.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ForgetBenchError, match="missing or damaged"):
        import_originals(task, pack_of(theirs).folder, RunConfig(home=tmp_path / "ours"))


RESTRICTED = "iau:gradient_restriction=true,lr="


def test_run_own_originals_are_shared_between_rows(task: Task, tmp_path: Path) -> None:
    task = task.with_counts(seeds=2)
    done = go(task, tmp_path, f"{RESTRICTED}0.001", f"{RESTRICTED}0.002")
    assert done.computed == 2 * (3 + 1 + 2)  # three sets of models, one of their own, two sets unlearned
    slow, fast = (read_run(folder) for folder in done.runs)
    assert slow.manifest.originals == fast.manifest.originals
    assert slow.manifest.models != fast.manifest.models
    more = go(task, tmp_path, f"{RESTRICTED}0.001,restriction=0.01")
    assert more.computed == 2 * (1 + 1)


def test_run_own_originals_are_recorded_and_reported(task: Task, tmp_path: Path) -> None:
    done = go(task.with_counts(seeds=2), tmp_path, f"{RESTRICTED}0.001", "finetune")
    pack, found = pack_of(done), read_run(done.runs[0])
    assert check_run(found, pack) == []
    assert [record.file for record in found.manifest.originals] == ["originals/d0-s0.npz", "originals/d0-s1.npz"]
    assert {record.weights for record in found.manifest.originals} == {
        model.original for model in found.manifest.models
    }
    assert not {record.weights for record in found.manifest.originals} & set(pack.card.originals)
    own = [np.load(done.runs[0] / record.file)["test"].argmax(axis=1) for record in found.manifest.originals]
    right = float(np.mean([answers == pack.labels[0]["test"] for answers in own]))
    cost = found.manifest.cost
    assert cost.training_flops is not None
    assert cost.retrain_flops is not None
    assert cost.training_flops > 2 * cost.retrain_flops  # gradients of gradients, and the forgotten rows too
    standing = rank_runs(Scorer(pack), [read_run(folder) for folder in done.runs])
    assert standing.scorecards[2].own_originals == pytest.approx(right)
    assert standing.scorecards[3].own_originals is None
    table = board_table(standing, pack.card)
    assert any(f"its own originals (test accuracy {100 * right:.1f} %, the board's" in note for note in table.notes)
    assert table.records[2]["own_originals_accuracy"] == pytest.approx(right)


def test_check_run_wrong_own_originals_are_refused(task: Task, tmp_path: Path) -> None:
    done = go(task.with_counts(seeds=2), tmp_path, f"{RESTRICTED}0.001")
    found, pack = read_run(done.runs[0]), pack_of(done)

    def problems(**changes: object) -> str:
        return "; ".join(check_run(replace(found, manifest=found.manifest.model_copy(update=changes)), pack))

    first, second = found.manifest.originals
    assert "missing: [(0, 0), (0, 1)]" in problems(originals=())
    assert "missing: [(0, 1)]" in problems(originals=(first, first))
    other = second.model_copy(update={"weights": "0" * 64})
    assert "d0-s1.npz was not unlearned from the original of seed 1" in problems(originals=(first, other))
    plain = found.manifest.method.model_copy(update={"changes_training": False})
    assert "its method does not change original training" in problems(method=plain)
    (done.runs[0] / second.file).write_bytes((done.runs[0] / first.file).read_bytes())
    assert "SHA-256 differs" in problems()
