"""bfloat16 on every device: a field of the recipe for training, unlearning and predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from support.training import make_examples, make_network, make_recipe, same_weights
from torch import nn

from forgetbench.evidence import environment as facts
from forgetbench.evidence.run import read_run
from forgetbench.methods._fisher import importance_per_batch
from forgetbench.reproduction.reproduce import is_same_platform
from forgetbench.runner.config import RunConfig
from forgetbench.runner.context import TaskContext
from forgetbench.runner.data import ExecutionEnv
from forgetbench.runner.jobs import PrepareJob
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import run
from forgetbench.runner.train import prepare_task
from forgetbench.tasks.task import Task
from forgetbench.training import fit, predict, predict_features


def with_precision(task: Task, precision: str) -> Task:
    return Task.model_validate({**task.model_dump(), "recipe": {**task.recipe.model_dump(), "precision": precision}})


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    return make_task("random", "fraction = 0.2")


def write_cpuinfo(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(facts, "CPUINFO", path)


def test_fit_in_bfloat16_repeats_its_own_bits():
    examples = make_examples(64)
    recipes = [make_recipe(epochs=4, precision=precision) for precision in ("by-device", "bfloat16", "bfloat16")]
    first, second, third = (fit(make_network(), examples, recipe, 1) for recipe in recipes)
    assert same_weights(second, third)
    assert not same_weights(first, second)
    assert all(value.dtype == torch.float32 for value in second.parameters())


def test_first_step_in_bfloat16_goes_the_way_of_float32():
    examples, start = make_examples(64), torch.nn.utils.parameters_to_vector(make_network().parameters())
    recipes = [make_recipe(epochs=1, batch_size=64, precision=precision) for precision in ("by-device", "bfloat16")]
    trained = [fit(make_network(), examples, recipe, 1).parameters() for recipe in recipes]
    exact, rounded = ((torch.nn.utils.parameters_to_vector(parameters) - start).detach() for parameters in trained)
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.99
    assert float(rounded.norm()) == pytest.approx(float(exact.norm()), rel=0.05)


def test_predict_in_bfloat16_has_a_float32_head():
    network, examples = make_network(), make_examples(50)
    logits = torch.tensor(predict(network, examples, bfloat16=True))
    features = torch.tensor(predict_features(network, examples, bfloat16=True))
    exact = torch.tensor(predict_features(network, examples))
    assert not torch.equal(features, exact)
    torch.testing.assert_close(features, exact, rtol=0.05, atol=0.05)
    with torch.no_grad():
        torch.testing.assert_close(logits, network.head(features))
    assert (logits.bfloat16().float() != logits).any(1).all()
    assert all(value.is_contiguous() for value in network.parameters())


def test_importance_per_batch_in_bfloat16_is_close():
    network, examples = make_network(), make_examples(24)
    exact, rounded = (
        importance_per_batch(network, examples.batches(8), bfloat16=bfloat16) for bfloat16 in (False, True)
    )
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32
        assert rounded[name].is_contiguous()
        assert not torch.equal(rounded[name], value)
        assert float((rounded[name] - value).norm() / value.norm()) < 0.2


def test_importance_per_batch_gives_losses_float32():
    seen = []

    def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(logits.dtype)
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    importance_per_batch(make_network(), make_examples(8).batches(8), losses, bfloat16=True)
    assert seen == [torch.float32]


def test_recipe_bfloat16_without_mixed_precision_is_refused():
    with pytest.raises(ValidationError, match="precision bfloat16 needs mixed_precision = true"):
        make_recipe(precision="bfloat16", mixed_precision=False)


def test_task_key_has_only_a_precision_that_is_not_the_default(task):
    assert with_precision(task, "by-device").key == task.key
    assert with_precision(task, "bfloat16").key != task.key


def test_artifact_keys_have_the_precision(task, tmp_path):
    env = ExecutionEnv(str(tmp_path))
    keys = [
        TaskContext(with_precision(task, name), env).keys.model("original", 0, 0) for name in ("by-device", "bfloat16")
    ]
    assert [key["precision"] for key in keys] == ["float32", "bfloat16"]


def test_bfloat16_on_a_gpu_is_that_of_mixed_precision(task, tmp_path):
    data = TaskContext(with_precision(task, "bfloat16"), ExecutionEnv(str(tmp_path), device="cuda")).data
    assert data.precision == "bfloat16, float32 (IEEE)"
    assert data.precision_notice == ""


@pytest.mark.parametrize(
    ("cpuinfo", "unit"),
    [
        ("model name\t: A\nflags\t\t: fpu avx512_bf16 amx_bf16\n", "amx"),
        ("flags\t\t: fpu avx512_bf16\n", "avx512"),
        ("Features\t: fp asimd bf16\n", "arm"),
        ("flags\t\t: fpu avx2\n", "none"),
        ("", "none"),
    ],
)
def test_environment_names_instructions_for_bfloat16(tmp_path, monkeypatch, cpuinfo, unit):
    write_cpuinfo(tmp_path, cpuinfo, monkeypatch)
    assert facts.environment()["bfloat16"] == unit


def test_bfloat16_emulated_is_noticed_when_prepared(task, tmp_path, monkeypatch):
    env = ExecutionEnv(str(tmp_path))
    write_cpuinfo(tmp_path, "flags : avx2\n", monkeypatch)
    slow, plain = (
        prepare_task(PrepareJob(task=with_precision(task, name), env=env)).notices for name in ("bfloat16", "by-device")
    )
    assert any("test/mlp/random computes in bfloat16" in notice and "slower than float32" in notice for notice in slow)
    assert not any("bfloat16" in notice for notice in plain)
    write_cpuinfo(tmp_path, "flags : amx_bf16\n", monkeypatch)
    assert not any(
        "bfloat16" in notice
        for notice in prepare_task(PrepareJob(task=with_precision(task, "bfloat16"), env=env)).notices
    )


def test_run_in_bfloat16_records_it(task, tmp_path):
    task = with_precision(task, "bfloat16")
    config = RunConfig(home=tmp_path / "home", device="cpu", engine="local", workers=1)
    [done] = run([task], lambda one: parse_methods(["finetune:epochs=1"], [], one.setting), config)
    manifest = read_run(done.runs[0]).manifest
    assert manifest.environment["precision"] == "bfloat16"
    assert manifest.task_key == task.key
    assert done.reference.card.definition["recipe"]["precision"] == "bfloat16"


def test_same_platform_needs_the_same_instructions():
    here, there = ({"processor": "AMD EPYC", "bfloat16": unit} for unit in ("avx512", "none"))
    assert is_same_platform(here, here)
    assert not is_same_platform(here, there)
