"""Methods of strangers: what their code does to the process stays in their row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetbench.errors import UsageError
from forgetbench.evidence.environment import environment
from forgetbench.evidence.run import CHANGED_STATE, Manifest, read_run
from forgetbench.reporting.tables import board_table
from forgetbench.runner.config import RunConfig
from forgetbench.runner.context import TaskContext
from forgetbench.runner.data import ExecutionEnv, TaskData
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import TaskRun, run
from forgetbench.scoring.scorer import Scorer, rank_runs
from forgetbench.tasks.task import Task

HEAD = """
import copy, os, random, subprocess, sys, time, warnings
from dataclasses import dataclass
import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from forgetbench.methods import Method, param

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    "Does what the test says."

    def unlearn(self, model, request):
        model = copy.deepcopy(model)
"""


def write_method(folder: Path, *lines: str, name: str = "mine.py") -> str:
    """A file with a method whose `unlearn` has these lines; the address of its class."""
    path = folder / name
    path.write_text(HEAD + "".join(f"        {line}\n" for line in (*lines, "return model")), encoding="utf-8")
    return f"{path}:Mine"


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    return make_task("random", "fraction = 0.2")


def go(task: Task, home: Path, *files: str, names: tuple[str, ...] = (), **options: Any) -> TaskRun:
    config = RunConfig(home=home, device="cpu", **{"engine": "local", "workers": 1, **options})
    [done] = run([task], lambda one: parse_methods(names, files, one.setting), config)
    return done


def row(done: TaskRun, number: int = 0) -> Manifest:
    return read_run(done.runs[number]).manifest


def bits(done: TaskRun, number: int) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in done.runs[number].glob("*.npz")}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("sys.exit(0)", "SystemExit: the code called sys.exit(0). Return or raise an error instead"),
        ("quit()", "SystemExit: the code called sys.exit("),
        ("os._exit(0)", "SystemExit: the code called sys.exit(0)"),
        ("os.fork() or os._exit(0); raise ValueError('after a fork')", "ValueError: after a fork"),
        ("raise ValueError('\\udce9 \\x1b[31mred')", r"ValueError: \udce9 \x1b[31mred"),
        ("raise type('Odd', (BaseException,), {})('x' * 30000)", "Odd: xxxx"),
        ("raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})", "its message cannot be shown"),
    ],
)
def test_run_any_error_is_a_failed_row(task: Task, tmp_path: Path, line: str, reason: str) -> None:
    done = go(task, tmp_path / "home", write_method(tmp_path, line), names=("finetune",))
    assert row(done, 0).status == "ok"
    assert row(done, 1).status == "failed"
    assert reason in row(done, 1).reason


@pytest.mark.slow
def test_run_crash_is_a_failed_row_and_resumes(task: Task, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    method = write_method(tmp_path, f"os.path.exists({str(flag)!r}) or os.abort()")
    home = tmp_path / "home"
    done = go(task, home, method, engine="processes", workers=2)
    assert done.failed == ()
    assert row(done).status == "failed"
    assert "4 attempts, the last one alone: " in row(done).reason
    assert "died in the job 'mine, seed 0': it crashed (SIGABRT)" in row(done).reason
    flag.touch()
    assert go(task, home, method).computed == 2  # the models that were trained are kept


CHANGES = {
    "torch.set_grad_enabled(False)": "gradients switched off",
    "guard = torch.inference_mode(); guard.__enter__()": "inference mode",
    "torch.set_default_dtype(torch.float64)": "default dtype",
    "torch.set_default_device('meta')": "default device",
    "torch.set_num_threads(3)": "number of threads",
    "torch.use_deterministic_algorithms(True)": "deterministic algorithms",
    "torch.set_float32_matmul_precision('high')": "float32 precision",
    "torch.autograd.set_detect_anomaly(True)": "anomaly detection",
    "torch.autocast('cpu').__enter__()": "autocast",
    "torch.nn.modules.module.register_module_forward_hook(print)": "hooks of all torch modules",
    "torch.nn.functional.cross_entropy = lambda *a, **k: 0 * a[0].sum()": "function torch.nn.functional.cross_entropy",
    "nn.Linear.forward = lambda self, x: x @ self.weight.T": "function torch.nn.modules.linear.Linear.forward",
    "torch.Tensor.backward = print": "function torch.Tensor.backward",
    "sys.modules['forgetbench.training.loop'].classification_loss = print": "training.loop.classification_loss",
    "torch.manual_seed(3)": "torch's random state",
    "random.random()": "Python's random state",
    "np.random.rand()": "numpy's random state",
    "warnings.simplefilter('ignore')": "warnings filters",
    "os.environ['OTHER'] = '1'; del os.environ['PATH']": "environment variables",
    "os.chdir('/')": "working folder",
    "sys.path.insert(0, '/')": "import path",
    "sys.stdout = sys.stderr = None": "sys.stderr",
    "np.seterr(all='raise')": "numpy's error state",
}


@pytest.mark.parametrize("line", CHANGES)
def test_restored_state_reports_and_undoes(line: str) -> None:
    from forgetbench.methods._global_state import restored_state

    names: dict[str, Any] = {}
    exec(HEAD, names)  # noqa: S102 - the imports of the file of methods
    with restored_state(1) as first:
        exec(line, names)  # noqa: S102
    assert any(CHANGES[line] in words for words in first.changed)
    with restored_state(1) as second:
        layer = torch.nn.Linear(2, 2)
        torch.nn.functional.cross_entropy(layer(torch.rand(3, 2)), torch.tensor([0, 1, 0])).backward()
    assert second.changed == ["torch's random state"]  # of the layer's weights
    assert layer.weight.grad is not None
    assert layer.weight.dtype == torch.float32
    assert float(layer.weight.grad.abs().sum()) > 0


def test_restored_state_lets_libraries_change_themselves() -> None:
    from forgetbench.methods._global_state import restored_state

    with restored_state(1) as state:
        parameter = torch.nn.Parameter(torch.zeros(2))
        parameter.grad = torch.ones(2)
        torch.optim.RMSprop([parameter]).step()
        torch.compile(lambda tensor: tensor + 1, backend="eager")(torch.zeros(2))
    assert state.changed == []


def test_run_leaked_state_changes_no_other_row(task: Task, tmp_path: Path) -> None:
    alone = go(task, tmp_path / "alone", names=("finetune",))
    leak = write_method(
        tmp_path,
        "torch.set_grad_enabled(False)",
        "torch.nn.functional.cross_entropy = lambda *a, **k: 0 * a[0].sum()",
        "torch.manual_seed(request.seed)",
    )
    done = go(task, tmp_path / "home", leak, names=("finetune",))
    leaky, other = row(done, 1), row(done, 0)
    assert bits(done, 0) == bits(alone, 0)
    assert other.cost.flops == row(alone).cost.flops
    for model in leaky.models:
        words = model.notes[CHANGED_STATE]
        assert isinstance(words, str)
        assert "torch.nn.functional.cross_entropy" in words
        assert "gradients switched off" in words
    assert all(CHANGED_STATE not in model.notes for model in other.models)
    assert done.reference is not None
    ranked = rank_runs(Scorer(done.reference), [read_run(folder) for folder in done.runs])
    [note] = [note for note in board_table(ranked, done.reference.card).notes if "global state" in note]
    assert note.startswith("mine: changed global state")
    assert torch.is_grad_enabled()


def test_run_global_random_numbers_repeat(task: Task, tmp_path: Path) -> None:
    method = write_method(
        tmp_path,
        "torch.nn.init.normal_(model.head.weight)",
        "model.head.bias.data += random.random() + np.random.rand()",
    )
    first, second = (go(task, tmp_path / name, method) for name in ("a", "b"))
    assert bits(first, 0) == bits(second, 0)


RESULTS = {
    "return None": "unlearn returned None. End it with the unlearned network",
    "return model, 1": "unlearn returned a tuple of 2 values",
    "return model.state_dict()": "unlearn returned a state dict",
    "return 'model'": "unlearn returned str, which is not a torch.nn.Module",
    "return nn.DataParallel(model)": "wrapped in DataParallel. Return the network itself, its attribute `module`",
    "return torch.compile(model)": "wrapped in OptimizedModule. Return the network itself, its attribute `_orig_mod`",
    "return nn.Sequential(model)": "has in addition 0.",
    "prune.l1_unstructured(model.head, 'weight', 0.5)": "Call torch.nn.utils.prune.remove(module, 'weight')",
    "parametrizations.weight_norm(model.head)": "remove_parametrizations",
    "model = model.half()": "is torch.float16 instead of torch.float32. Return it in float32",
    "model.head.lora_A = nn.Parameter(torch.zeros(1, 1))": "Merge its adapters into the weights",
    "model = model.to('meta')": "is on meta instead of cpu. Move it with `.to(request.device)`",
    "model.head = nn.Linear(16, 9)": "a network with 9 outputs instead of 10",
    "model.head = nn.Sequential(model.head)": "lacks head.",
    "del model.head": "lacks head.",
    "model.register_forward_hook(lambda *_: None)": "left a hook (<lambda>) on the network",
    "model.head.forward = lambda x: x": "left a replaced forward function on head",
    "model.head.weight.data *= float('nan')": "predictions of the unlearned model are NaN",
}


@pytest.mark.parametrize("line", RESULTS)
def test_run_wrong_result_is_explained(task: Task, tmp_path: Path, line: str) -> None:
    manifest = row(go(task, tmp_path / "home", write_method(tmp_path, line)))
    assert manifest.status == ("diverged" if "nan" in line else "failed")
    assert RESULTS[line] in manifest.reason
    assert "KeyError" not in manifest.reason


def test_run_notes_of_any_kind_are_recorded(task: Task, tmp_path: Path) -> None:
    lines = [
        "request.notes.update(a=float('nan'), b='\\x1b[0m', c=[1], d=True, e=np.float32(2))",
        "request.log('f', 3)",
    ]
    notes = row(go(task, tmp_path / "home", write_method(tmp_path, *lines))).models[0].notes
    assert notes == {"a": "nan", "b": r"\x1b[0m", "c": "[1]", "d": 1.0, "e": 2.0, "f": 3.0}


@pytest.mark.parametrize("engine", ["local", pytest.param("processes", marks=pytest.mark.slow)])
def test_run_time_limit_is_a_failed_row(task: Task, tmp_path: Path, engine: str) -> None:
    method = write_method(tmp_path, "while True:", "    try: time.sleep(0.01)", "    except Exception: pass")
    done = go(task, tmp_path / "home", method, engine=engine, workers=2, time_limit=1.5)
    assert row(done).status == "failed"
    assert row(done).reason == "stopped at the time limit of 1.5 s for one job (--time-limit)"
    assert row(done).cost.flops is None
    assert row(done).cost.retrain_flops
    assert list((tmp_path / "home" / "store").rglob(".making-*")) == []


IMPORTS = {
    "import helpers": "line 1: `import helpers` imports a neighbor of the file",
    "from helpers import thing": "imports a neighbor",
    "from package.inner import thing": "imports a neighbor",
    "from .helpers import thing": "`from .helpers import thing` imports a neighbor",
    "from . import helpers": "imports a neighbor",
    "def later():\n    import helpers": "line 2",
    "import sys; sys.exit('no')": "m.py cannot be imported: SystemExit: the code called sys.exit('no')",
    "quit()": "below `if __name__ == '__main__':`",
    "import argparse; p = argparse.ArgumentParser(); p.add_argument('data'); p.parse_args()": "m.py cannot be imported",
    "raise BaseException('odd')": "m.py cannot be imported: BaseException: odd",
    "x = (": "m.py cannot be imported: SyntaxError",
}


@pytest.mark.parametrize("line", IMPORTS)
def test_load_method_file_names_file_and_fix(line: str, tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("thing = 1\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner.py").write_text("thing = 1\n")
    path = tmp_path / "m.py"
    path.write_text(f"{line}\n{HEAD}        return model\n")
    with pytest.raises(UsageError) as caught:
        parse_methods([], [f"{path}:Mine"], None)
    assert str(path) in str(caught.value)
    assert IMPORTS[line] in str(caught.value)


def test_load_method_file_allows_other_imports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "json.py").write_text("raise ValueError('a neighbor with the name of a module that is installed')\n")
    (tmp_path / "torch").mkdir()
    path = tmp_path / "m.py"
    parsing = "import json, torch, argparse\nprint('hello')\nargparse.ArgumentParser().parse_args()\n"
    path.write_text(f"{parsing}{HEAD}        return model\n")
    [spec] = parse_methods([], [f"{path}:Mine"], None)
    assert spec.name == "mine"
    output = capfd.readouterr()
    assert (output.out, "hello" in output.err) == ("", True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    def __post_init__(self): raise KeyError('odd')", "Making Mine of .* raised KeyError: 'odd'"),
        ("    def __post_init__(self): exit(3)", "Making Mine of .* raised SystemExit"),
        ("    def applies_to(self, facts): raise OSError('odd')", "`applies_to` of mine in .* raised OSError: odd"),
        ("    @property\n    def training_loss(self): exit()", "`training_loss` of mine in .* raised SystemExit"),
        ("    def training_parameters(self): 1 / 0\n    def training_loss(self, *_): 0", "raised ZeroDivisionError"),
    ],
)
def test_run_errors_before_training_name_the_file(task: Task, tmp_path: Path, body: str, message: str) -> None:
    path = tmp_path / "m.py"
    path.write_text(f"{HEAD}        return model\n{body}\n")
    with pytest.raises(UsageError, match=message):
        go(task, tmp_path / "home", f"{path}:Mine")
    assert not list((tmp_path / "home").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"# {'x' * 201_000}", "source: String should have at most 200000 characters"),
        ("CARD = dict(family='')", "family: String should have at least 1 character"),
    ],
)
def test_run_unrecordable_method_is_refused_first(task: Task, tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "m.py"
    card = "    from forgetbench.methods import MethodCard\n    card = MethodCard(name='mine', title='T', family='')\n"
    path.write_text(f"{line}\n{HEAD}        return model\n{card if 'CARD' in line else ''}")
    with pytest.raises(UsageError, match=f"Method mine cannot be recorded: {message}"):
        go(task, tmp_path / "home", f"{path}:Mine")
    assert not (tmp_path / "home").exists()


def test_run_measures_the_method_alone(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("warm_up", "load_model", "reset_peak_memory", "clock", "peak_memory", "predict"):
        kept = getattr(TaskContext, name)
        monkeypatch.setattr(
            TaskContext, name, lambda self, *a, _kept=kept, _name=name, **k: calls.append(_name) or _kept(self, *a, **k)
        )
    monkeypatch.setitem(sys.modules, "recorded_calls", calls)  # type: ignore[arg-type]
    go(task, tmp_path / "home", write_method(tmp_path, "sys.modules['recorded_calls'].append('unlearn')"))
    start = calls.index("unlearn")
    assert calls[start - 4 : start] == ["load_model", "warm_up", "reset_peak_memory", "clock"]
    assert calls[start + 1 : start + 5] == ["clock", "peak_memory", "load_model", "predict"]


def test_run_records_the_precision(task: Task, tmp_path: Path) -> None:
    torch.backends.cudnn.allow_tf32 = True
    done = go(task, tmp_path / "home", names=("finetune:epochs=1",))
    assert row(done).environment["precision"] == "float32"
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(("mixed", "words"), [(False, "float32 (IEEE)"), (True, "bfloat16, float32 (IEEE)")])
def test_precision_on_a_gpu_names_ieee(task: Task, tmp_path: Path, mixed: bool, words: str) -> None:
    recipe = task.recipe.model_copy(update={"mixed_precision": mixed})
    data = TaskData(task.model_copy(update={"recipe": recipe}), ExecutionEnv(str(tmp_path), device="cuda"))
    assert data.precision == words


@pytest.mark.parametrize("device", ["mps", "xpu:0"])
def test_environment_of_other_devices_has_no_gpu(device: str) -> None:
    assert environment(device)["device"] == device
    assert "gpu" not in environment(device)


def wait_until_gone(group: int) -> bool:
    """Whether all processes of a group end: workers at once, and Python's tracker of resources a moment later."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "processes"])
def test_run_interrupted_ends_cleanly_and_resumes(write_task: Callable[..., Path], tmp_path: Path, engine: str) -> None:
    """Ctrl-C in a terminal reaches all processes of its group."""
    started = tmp_path / "started"
    method = write_method(tmp_path, f"open({str(started)!r}, 'a').close()", "time.sleep(600)")
    words = ["-m", "forgetbench", "run", str(write_task("random", "fraction = 0.2")), "--method-file", method]
    words += ["--engine", engine, "--device", "cpu", "--workers", "2", "--json"]
    variables = {**os.environ, "FORGETBENCH_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [sys.executable, *words],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - a background job ignores it
    )
    until = time.monotonic() + 300
    while not started.exists() and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert output == b""
    assert errors.decode().splitlines()[-1] == (
        "forgetbench: Interrupted. Finished work is kept; the same command resumes."
    )
    assert b"Traceback" not in errors
    assert wait_until_gone(process.pid)
    assert not list((tmp_path / "home").rglob(".making-*"))
    assert len(list((tmp_path / "home" / "store").rglob("weights.safetensors"))) == 6
