"""What a plan says is what a run does: numbers of jobs, operations, and what is in the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from forgetbench.cli import main
from forgetbench.runner.artifacts import WEIGHTS, read_meta
from forgetbench.runner.config import NullProgress, RunConfig
from forgetbench.runner.costs import expected_share, typical_shares
from forgetbench.runner.engines.devices import hardware
from forgetbench.runner.method_spec import MethodSpec, parse_methods
from forgetbench.runner.plan import TaskPlan, free_bytes, plan_task
from forgetbench.runner.run import TaskRun, run_tasks
from forgetbench.tasks.task import Task


def rows(task: Task) -> list[MethodSpec]:
    return parse_methods(["ssd", "finetune:epochs=1"], [], task.setting)


class Titles(NullProgress):
    def __init__(self) -> None:
        self.titles: list[str] = []

    def done(self, title: str, *, from_cache: bool) -> None:  # noqa: ARG002 - the protocol's
        self.titles.append(title)


@pytest.fixture(scope="module")
def task(make_task: Callable[..., Task]) -> Task:
    return make_task("random", "fraction = 0.2", seeds=2)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return RunConfig(home=tmp_path_factory.mktemp("home"), device="cpu", engine="local")


@pytest.fixture(scope="module")
def story(task: Task, config: RunConfig) -> tuple[TaskPlan, TaskRun, TaskPlan, list[str]]:
    """The plan before a run, the run, the plan after it, and the titles of its jobs in their order."""
    before, progress = plan_task(task, rows(task), config), Titles()
    [done] = run_tasks([task], rows, config, progress)
    return before, done, plan_task(task, rows(task), config), progress.titles


Story = tuple[TaskPlan, TaskRun, TaskPlan, list[str]]


def test_plan_counts_the_jobs_of_the_run(story: Story) -> None:
    before, done, after, titles = story
    assert (before.jobs, after.jobs) == (done.jobs, len(titles))
    assert (before.stored, after.stored) == (0, done.jobs)
    assert {group.name: group.jobs for group in before.groups} == {
        "images and splits": 1,
        "originals": 2,
        "oracles": 4,
        "FLOPs of training": 1,
        "finetune:epochs=1": 3,
        "ssd": 3,
    }


def test_plan_flops_of_one_step_match_the_count(story: Story) -> None:
    before, _, after, _ = story
    assert before.flops
    for name in ("originals", "oracles"):
        [measured], [counted] = ([group for group in plan.groups if group.name == name] for plan in (before, after))
        assert (measured.source, counted.source) == ("from a step of two images", "counted")
        assert measured.flops == pytest.approx(counted.flops, rel=1e-6)
    assert [group.source for group in before.groups[-2:]] == [
        f"a typical share of retraining ({typical_shares()[name]:.3g})" for name in ("finetune", "ssd")
    ]
    assert {group.source for group in after.groups[-2:]} == {"counted"}
    assert after.flops == 0


def test_plan_hours_are_those_of_models_made_here(
    story: Story, config: RunConfig, make_task: Callable[..., Task]
) -> None:
    before, _, after, _ = story
    assert before.hours() == {}
    more = plan_task(after.task.with_counts(seeds=3), rows(after.task), config)
    [retraining] = [group.flops for group in after.groups if group.name == "oracles"]
    seconds = [read_meta(folder)["seconds"] for folder, key in config.store.artifacts() if key["kind"] == "model"]
    assert retraining
    assert more.flops
    speed = median(retraining / second for second in seconds)
    assert more.hours() == {hardware("cpu"): pytest.approx(more.flops / speed / 3600)}
    assert more.speeds[hardware("cpu")].scope == "this task"
    assert more.speeds[hardware("cpu")].models == 6
    assert more.stored == after.jobs  # the third seed alone is missing: one original, two oracles, one of each row
    assert more.jobs - after.jobs == 5
    longer = make_task("random", "fraction = 0.2", epochs=9)
    assert plan_task(longer, [], config).speeds[hardware("cpu")].scope == "the same network"


def test_plan_disk_counts_kept_weights(story: Story, config: RunConfig) -> None:
    before, done, *_ = story
    folders = [folder for folder, key in config.store.artifacts() if key["kind"] == "model"]
    weights = (folders[0] / WEIGHTS).stat().st_size
    empty = replace(config, home=config.home / "other")
    kept = plan_task(done.task, rows(done.task), replace(empty, keep_models=True))
    assert before.disk_bytes
    assert kept.disk_bytes
    assert kept.disk_bytes - before.disk_bytes == pytest.approx(6 * weights, rel=0.2)  # a file also has a header
    arrays = sum(path.stat().st_size for path in config.store.root.rglob("*.npz"))
    assert before.disk_bytes > 0.5 * arrays
    assert free_bytes(config.home / "not" / "there") > 0


def test_plan_memory_grows_with_the_batch(story: Story, config: RunConfig) -> None:
    task = story[0].task
    small, large = (
        plan_task(task.model_copy(update={"recipe": task.recipe.model_copy(update={"batch_size": size})}), [], config)
        for size in (10, 20)
    )
    assert small.memory_bytes
    assert large.memory_bytes
    # per image: its 64 pixels, 16 hidden units and 10 outputs at least, in float32
    assert large.memory_bytes - small.memory_bytes >= 10 * 4 * (64 + 16 + 10)
    assert large.memory_bytes < 1 << 20


def test_run_counts_with_training_and_longest_first(story: Story) -> None:
    titles = story[3]
    assert titles[-7:] == [
        "finetune:epochs=1, seed 0",
        "finetune:epochs=1, seed 1",
        "FLOPs of finetune:epochs=1",
        "FLOPs of retraining",
        "ssd, seed 0",
        "ssd, seed 1",
        "FLOPs of ssd",
    ]
    assert expected_share("finetune") > expected_share("ssd") > 0
    assert expected_share("mine") == 1.0


def test_plan_without_images_counts_jobs(tmp_path: Path, make_task: Callable[..., Task]) -> None:
    task = make_task("random", "fraction = 0.2")
    options = {"name": "folder", "options": {}}
    lost = task.model_copy(update={"image_set": task.image_set.model_copy(update=options)})
    plan = plan_task(lost, rows(task), RunConfig(home=tmp_path, root=tmp_path / "none", device="cpu"))
    assert (plan.jobs, plan.stored, plan.flops, plan.hours()) == (1 + 2 + 4 + 1 + 6, None, None, {})
    assert "none" in plan.unknown


def test_plan_command_prints_totals_and_json(
    story: Story,
    config: RunConfig,
    write_task: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORGETBENCH_HOME", str(config.home))
    file = str(write_task("random", "fraction = 0.2", seeds=2))
    words = ["plan", file, "--method", "ssd", "--seeds", "3", "--device", "cpu", "--workers", "2"]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--json"])
    document = json.loads(capsys.readouterr().out)
    [one] = document["tasks"]
    assert (document["workers"], one["jobs"], one["stored"]) == (2, 15, 11)
    assert one["rows"][0]["parameters"]["dampening"] == 1.0
    assert one["hours"].keys() == {hardware("cpu")}
    with pytest.raises(SystemExit, match="0"):
        main(words)
    out, notes = capsys.readouterr()
    assert "dampening=1.0" in out
    assert "15 jobs, 11 of them in the store: 4 to run." in notes
    assert f"{hardware('cpu')}: " in notes
    assert " h by 2 workers (by 6 models of this task)." in notes
    assert "Disk: up to " in notes
    assert "for each of 2 workers" in notes
