"""Tuning on a task of a second: equal budgets, the same proposals after a kill, and rows that say what was spent."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forgetbench.cli import main
from forgetbench.errors import UsageError
from forgetbench.evidence.reference import AuditFitness
from forgetbench.evidence.run import read_run
from forgetbench.fingerprints import scoring_fingerprint
from forgetbench.options import parse_scaled
from forgetbench.runner.config import RunConfig
from forgetbench.runner.method_spec import MethodSpec, parse_methods
from forgetbench.runner.run import run
from forgetbench.store import Store
from forgetbench.tasks.task import Setting, Task, read_task
from forgetbench.tuning.study import Outcome, Study, Trial
from forgetbench.tuning.tune import TunedMethod, choose_trial, load_best, tune

TOML = """
name = "test/mlp/mislabelled"
title = "A task of seconds"
seeds = 2
image_set = { name = "digits", options = { train = 60, validation = 100 } }
network = { name = "mlp", options = { hidden = [8] } }
recipe = { epochs = 3, batch_size = 20, lr = 0.05 }
scenario = { name = "mislabelled", options = { rate = 0.3, known = 0.5 } }
"""
OWN = """
from dataclasses import dataclass
from forgetbench.methods import Method, param

@dataclass(frozen=True, kw_only=True)
class Silent(Method):
    "Says nothing of what to search."
    lr: float = param(0.1, gt=0)

    def unlearn(self, model, request):
        raise RuntimeError("no good")
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "task.toml"
    path.write_text(TOML)
    return path


def go(task: Path, home: Path, *names: str, trials: int, files: tuple[str, ...] = ()) -> list[TunedMethod]:
    one = read_task(str(task))
    options = RunConfig(home=home, device="cpu", engine="local")
    return tune(one, parse_methods(names, files, one.setting), options, trials=trials)


def record(found: list[TunedMethod]) -> list[list[Trial]]:
    return [list(one.trials) for one in found]


def test_development_task_has_other_key_and_streams(task: Path) -> None:
    one = read_task(str(task))
    assert one.key  # a key that was computed before must not be carried over
    other = one.development()
    assert other.key != one.key
    assert other.stream("split") != one.stream("split")
    assert other.stream("original-init", 0) != one.stream("original-init", 0)
    assert (other.recipe, other.scenario, other.image_set) == (one.recipe, one.scenario, one.image_set)


def test_tune_equal_budget_first_trial_is_defaults(task: Path, tmp_path: Path) -> None:
    found = go(task, tmp_path / "home", "finetune", "random-label:epochs=2", "gs-lora", trials=4)
    assert [len(one.trials) for one in found] == [4, 4, 0]  # gs-lora does not apply to this network
    finetune, relabelled, _ = found
    assert finetune.trials[0].parameters == {"epochs": "0.2x", "lr": "1x"}
    assert set(relabelled.trials[0].parameters) == {"lr"}  # what was named is not searched
    assert all(0.05 <= parse_scaled(trial.parameters["epochs"])[0] <= 0.4 for trial in finetune.trials)
    assert len({str(trial.parameters) for trial in finetune.trials}) == 4
    assert finetune.best is not None
    assert finetune.best.value == min(trial.value for trial in finetune.trials if trial.status == "ok")
    assert relabelled.spec.label.startswith("random-label:epochs=2")
    # more trials later continue the same study
    more = go(task, tmp_path / "home", "finetune", trials=5)
    assert record(more)[0][:4] == record(found)[0]


def test_load_best_takes_the_best_trial_and_its_cost(task: Path, tmp_path: Path) -> None:
    one, options = read_task(str(task)), RunConfig(home=tmp_path / "home", device="cpu", engine="local")
    asked = parse_methods(("finetune", "gs-lora"), (), Setting("mlp"))
    with pytest.raises(UsageError, match=r"forgetbench tune test/mlp/mislabelled --method finetune --trials 10"):
        load_best(one, asked, options, "oracle-free")
    [finetune, _] = go(task, tmp_path / "home", "finetune", "gs-lora", trials=3)
    with pytest.raises(UsageError, match=r"with the selector oracle-free, and not with oracle.* add --selector"):
        load_best(one, asked[:1], options, "oracle")
    rows = load_best(one, asked, options, "oracle-free")
    [done] = run([one], lambda _: rows, options)
    manifest = read_run(done.runs[0]).manifest
    assert finetune.best is not None
    assert {name: manifest.method.parameters[name] for name in ("epochs", "lr")} == finetune.best.parameters
    assert (manifest.cost.tuning_trials, manifest.cost.tuning_selector) == (3, "oracle-free")
    assert read_run(done.runs[1]).manifest.status == "not-applicable"
    # the label asks for the same row again, without the study
    [again] = parse_methods((manifest.row,), (), Setting("mlp"))
    assert again.method.to_dict() == manifest.method.parameters


def test_tune_oracle_selector_has_its_own_study(task: Path, tmp_path: Path) -> None:
    short, options = read_task(str(task)), RunConfig(home=tmp_path / "home", device="cpu", engine="local")
    asked = parse_methods(("finetune",), (), Setting("mlp"))
    with pytest.raises(UsageError, match="would favor doing nothing"):  # three epochs learn no wrong label by heart
        tune(short, asked, options, trials=1, selector="oracle", seeds=3)
    one = Task.model_validate({**short.model_dump(), "recipe": {"epochs": 80, "batch_size": 20, "lr": 0.1}})
    [found] = tune(one, asked, options, trials=1, selector="oracle", seeds=3)
    assert found.trials[0].parts.keys() >= {"gap.forget", "gap.retain", "gap.test"}
    with pytest.raises(UsageError, match="not tuned"):
        load_best(one, asked, options, "oracle-free")
    # what an audit of the task found out of place chooses no trial: the same trial is judged anew
    said = AuditFitness(
        task=one.name,
        task_key=one.key,
        pack="0" * 64,
        code=scoring_fingerprint(),
        unfit={"gap.test": "third: out of place"},
    )
    path = options.results.fitness_file(one.name, one.key, one.draws, 10)  # whatever the board's count of seeds
    path.parent.mkdir(parents=True)
    stale = said.model_copy(update={"code": "0" * 64})  # other code would say otherwise, perhaps
    path.write_text(stale.model_dump_json())
    assert tune(one, asked, options, trials=1, selector="oracle", seeds=3)[0].trials == found.trials
    path.write_text(said.model_dump_json())
    [other] = tune(one, asked, options, trials=1, selector="oracle", seeds=3)
    assert other.trials[0].parts.keys() == found.trials[0].parts.keys() - {"gap.test"}
    assert other.trials[0].parameters == found.trials[0].parameters


def test_tune_failed_trials_are_counted(task: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    with pytest.raises(UsageError, match=r"does not declare what to search.*search="):
        go(task, tmp_path / "home", trials=2, files=(str(file),))
    [found] = go(task, tmp_path / "home", trials=1, files=(str(file),))
    assert found.trials[0].status == "failed"
    assert "no good" in found.trials[0].reason
    assert found.spec.label == "silent"


def test_tune_nan_predictions_diverge(task: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        OWN.replace('raise RuntimeError("no good")', "model.head.weight.data.fill_(float('nan'))\n        return model")
    )
    [found] = go(task, tmp_path / "home", trials=1, files=(str(file),))
    assert found.trials[0].status == "diverged"
    assert "NaN" in found.trials[0].reason
    options = RunConfig(home=tmp_path / "home", device="cpu", engine="local")
    [done] = run([read_task(str(task))], lambda _: [found.spec], options)
    assert read_run(done.runs[0]).manifest.status == "diverged"


def test_study_multiples_and_steps_are_searched_in_their_units(tmp_path: Path) -> None:
    space = {"lr": ("0.01x", "1x"), "epochs": ("10steps", "160steps"), "passes": ("0.05x", "0.1x"), "alpha": (0.1, 0.3)}
    defaults = {"lr": "0.0312x", "epochs": "40steps", "passes": "0.2x", "alpha": 0.1234}
    study = Study(tmp_path / "one.sqlite", "one", space, defaults, 7, {"selector": "oracle"})
    for number in range(12):
        values = study.propose()
        assert values == (defaults if number == 0 else values)
        study.add(values, Outcome("ok", value=float(number)))
    trials = [trial.parameters for trial in study.trials()]
    assert trials[0] == defaults  # as given, not rounded to three digits
    assert all(values["lr"].endswith("x") and values["epochs"].endswith("steps") for values in trials)
    rates = [float(values["lr"][:-1]) for values in trials]
    steps = [int(values["epochs"].removesuffix("steps")) for values in trials]
    assert min(rates) >= 0.01
    assert max(rates) <= 1
    assert sorted(rates)[6] < 0.5 * (0.01 + 1)  # more small rates than a search without logarithm
    assert (min(steps) >= 10, max(steps) <= 160, len(set(steps)) > 5) == (True, True, True)
    assert all(0.05 <= float(values["passes"][:-1]) <= 0.2 for values in trials)  # widened to the default


def test_study_range_in_another_unit_than_the_default_raises(tmp_path: Path) -> None:
    study = Study(tmp_path / "one.sqlite", "one", {"lr": ("0.1x", "1x")}, {"lr": 0.01}, 7, {"selector": "oracle"})
    study.propose()
    with pytest.raises(UsageError, match=r"A default of 0.01 cannot be searched from 0\.1x to 1x: use one unit"):
        study.add({"lr": 0.01}, Outcome("ok", value=1.0))


def test_choose_trial_prefers_ok_then_harmed_then_collapsed() -> None:
    failed = Trial(0, {}, "failed", None)
    collapsed, better = Trial(1, {}, "collapsed", 0.1), Trial(2, {}, "collapsed", 0.05)
    good, tie, harmed = Trial(3, {}, "ok", 0.9), Trial(4, {}, "ok", 0.9), Trial(5, {}, "harmed", 0.2)
    assert choose_trial([failed, collapsed, better, harmed, good, tie]) is good
    assert choose_trial([failed, collapsed, better, harmed]) is harmed
    assert choose_trial([failed, collapsed, better]) is better
    assert choose_trial([failed]) is failed
    assert choose_trial([]) is None


def test_method_spec_label_names_differences() -> None:
    [plain] = parse_methods(("salun:epochs=2",), (), Setting("cnn"))
    other = type(plain.method).from_dict({**plain.method.to_dict(), "lr": 1.5e-05, "resample": True})
    row = MethodSpec.of(other).with_label_diff(plain)
    assert row.label == "salun:epochs=2,lr=1.5e-05,resample=True"
    assert parse_methods((row.label,), (), Setting("cnn"))[0].method == other
    assert row.named == ("epochs", "lr", "resample")
    assert plain.with_label_diff(plain).label == "salun:epochs=2"


@pytest.mark.slow
def test_tune_killed_resumes_with_the_same_trials(task: Path, tmp_path: Path) -> None:
    names = ("finetune", "scrub", "random-label")
    whole = go(task, tmp_path / "whole", *names, trials=10)
    home = tmp_path / "killed"
    words = [sys.executable, "-m", "forgetbench", "tune", str(task), "--executor", "local", "--device", "cpu"]
    words += [word for name in names for word in ("--method", name)]
    for trials in (2, 5):  # killed twice
        process = subprocess.Popen(
            words,
            env={**os.environ, "FORGETBENCH_HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 300
        while kept(home) < trials * len(names) + 1 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert record(go(task, home, *names, trials=10)) == record(whole)
    assert models(home) == models(tmp_path / "whole")


def kept(home: Path) -> int:
    path = home / "tuning" / "test/mlp/mislabelled" / "studies.sqlite"
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return int(connection.execute("select count(*) from trials").fetchone()[0])
    except sqlite3.Error:
        return 0


def models(home: Path) -> list[str]:
    return sorted(folder.name for folder, facts in Store(home / "store").artifacts() if facts["kind"] == "unlearned")


def test_tune_command_prints_json(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    with pytest.raises(SystemExit) as left:
        main(["tune", str(task), "--method", "finetune", "--trials", "1", "--executor", "local", "--json"])
    assert not left.value.code
    [row] = json.loads(capsys.readouterr().out)
    assert row["method"] == "finetune"
    assert [trial["number"] for trial in row["trials"]] == [0]


FEW_ROWS = TOML.replace("train = 60, validation = 100", "train = 60, validation = 20").replace(
    'name = "mislabelled", options = { rate = 0.3, known = 0.5 }', 'name = "random", options = { fraction = 0.2 }'
)


def test_tune_few_validation_rows_refused_before_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetbench.metrics.population_mia.MINIMUM_CELL", 50)  # digits have no fewer than 10 rows
    path = tmp_path / "few.toml"
    path.write_text(FEW_ROWS)
    with pytest.raises(UsageError, match=r"examples.*here there are fewer\. Use --selector"):
        go(path, tmp_path / "home", "finetune", trials=1)
    assert not (tmp_path / "home").exists()


SMALL = TOML.replace("train = 60, validation = 100", "train = 60, validation = 25").replace(
    'name = "mislabelled", options = { rate = 0.3, known = 0.5 }', 'name = "random", options = { fraction = 0.2 }'
)


def test_tune_says_that_it_pooled_and_ended_at_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SMALL.replace("test/mlp/mislabelled", "test/mlp/random"))
    [nothing, finetune] = go(path, tmp_path / "home", "finetune:lr=1e-12", "finetune:lr=0.02", trials=1)
    assert nothing.best is not None
    assert nothing.untouched is not None
    pooled, why = nothing.notes
    assert "have fewer than five validation examples: the selector oracle-free pools them" in pooled
    assert "ended at doing nothing" in why
    assert finetune.untouched == nothing.untouched
    monkeypatch.setenv("FORGETBENCH_HOME", str(tmp_path / "home"))
    with pytest.raises(SystemExit) as left:
        main(["tune", str(path), "--method", "finetune:lr=1e-12", "--trials", "1", "--executor", "local"])
    assert not left.value.code
    said = " ".join("".join(capsys.readouterr()).split())
    assert "oracle-free pools them" in said
    assert "ended at doing nothing" in said


def test_tune_tasks_all_checked_before_the_first(tmp_path: Path, task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forgetbench.api.evaluation import tune_tasks

    monkeypatch.setattr("forgetbench.metrics.population_mia.MINIMUM_CELL", 50)

    path = tmp_path / "few.toml"
    path.write_text(FEW_ROWS.replace("test/mlp/mislabelled", "test/mlp/few"))
    config = RunConfig(home=tmp_path / "home", device="cpu", engine="local")
    tasks = [read_task(str(file)) for file in (task, path)]
    with pytest.raises(UsageError, match=r"^test/mlp/few: "):
        tune_tasks(["finetune"], tasks, trials=1, config=config, progress=False)
    assert not (tmp_path / "home").exists()
