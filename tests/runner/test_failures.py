"""Errors are sorted into those of jobs, workers and the machine; a run does all that does not need a failed job."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from support import skip

from forgetbench.cli import main
from forgetbench.errors import UsageError
from forgetbench.evidence.run import read_run
from forgetbench.methods._foreign_code import MethodCodeError
from forgetbench.runner import run as run_module
from forgetbench.runner import train, unlearn
from forgetbench.runner.config import NullProgress, RunConfig
from forgetbench.runner.engines.base import Failure, machine_fault
from forgetbench.runner.failures import FailedJob, JobsFailedError, error_of, summary
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import TaskRun, run_tasks
from forgetbench.tasks.task import Task, read_task


def fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def caused(error: BaseException, cause: BaseException, *, explicit: bool = True) -> BaseException:
    """An error that was raised from another one, or while that one was handled."""
    error.__cause__, error.__context__ = (cause if explicit else None), cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (fault(errno.ENOSPC), "storage"),
        (fault(errno.EDQUOT), "storage"),
        (fault(errno.EIO), "storage"),
        (fault(errno.ESTALE), "storage"),
        (OSError("4096 requested and 0 written"), "storage"),  # numpy
        (
            RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file"),
            "storage",
        ),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "storage"),
        (caused(MethodCodeError("OSError"), fault(errno.EDQUOT)), "storage"),
        (caused(RuntimeError("not saved"), fault(errno.ENOSPC), explicit=False), "storage"),
        (MemoryError(), "memory"),
        (fault(errno.ENOMEM), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "memory"),
        (fault(errno.ENOENT), None),
        (fault(errno.EACCES), None),
        (ValueError("No space left on device"), None),
        (UsageError("wrong"), None),
    ],
)
def test_machine_fault_by_cause(error: BaseException, expected: str | None) -> None:
    assert machine_fault(error) == expected


def failed(error: BaseException, **facts: Any) -> FailedJob:
    return FailedJob("a/b/c", "original 3", Failure("machine", error, **facts))


def test_summary_names_jobs_reasons_and_advice() -> None:
    jobs = [failed(fault(errno.ENOSPC), attempts=2, where="node7:12")] * 12
    text = summary(jobs, 38)
    assert text.startswith("12 of 50 jobs failed; the others are finished and kept. Run the same command again")
    assert "- a/b/c, original 3: No space left on device. Free some space" in text
    assert "(2 attempts, the last on node7:12)" in text
    assert text.endswith("- and 2 more")


def test_error_of_kinds() -> None:
    usage = UsageError("wrong option")
    assert error_of([failed(usage)], 0) is usage
    bug = ZeroDivisionError("a bug")
    assert error_of([failed(fault(errno.EIO)), failed(bug)], 4) is bug
    assert "2 of 6 jobs failed" in bug.__notes__[0]
    assert isinstance(error_of([failed(MemoryError()), failed(usage)], 4), JobsFailedError)


METHOD = """
import copy, errno, os, pathlib
from dataclasses import dataclass
from forgetbench.methods import Method

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    "Fails on one seed while a file exists."

    def unlearn(self, model, request):
        seeds = pathlib.Path({folder!r}, "seeds")
        seeds.mkdir(exist_ok=True)
        (seeds / str(request.seed)).touch()
        first = sorted(seeds.iterdir())[0].name
        if pathlib.Path({folder!r}, "broken").exists() and str(request.seed) == first:
            {error}
        return copy.deepcopy(model)
"""


class Titles(NullProgress):
    def __init__(self) -> None:
        self.computed: list[str] = []
        self.notes: list[str] = []

    def done(self, title: str, *, from_cache: bool) -> None:
        if not from_cache:
            self.computed.append(title)

    def note(self, text: str) -> None:
        self.notes.append(text)


def write_method(folder: Path, error: str) -> str:
    (folder / "broken").touch()
    path = folder / "mine.py"
    path.write_text(METHOD.format(folder=str(folder), error=error))
    return f"{path}:Mine"


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    return make_task("random", "fraction = 0.2", seeds=3)


def go(task: Task, home: Path, *files: str, names: tuple[str, ...] = ()) -> tuple[TaskRun, Titles]:
    titles = Titles()
    config = RunConfig(home=home, device="cpu", engine="local")
    [done] = run_tasks([task], lambda one: parse_methods(names, files, one.setting), config, titles)
    return done, titles


def test_run_quota_inside_unlearn_is_never_the_row(task: Task, tmp_path: Path) -> None:
    """Only the row that met the full quota is missing; the same command then does only what is missing."""
    error = "try: raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))\n"
    error += "            except OSError as full: raise RuntimeError('not saved') from full"
    method = write_method(tmp_path, error)
    done, titles = go(task, tmp_path / "home", method, names=("finetune:epochs=1",))
    [row] = [read_run(folder).manifest for folder in done.runs]
    assert (row.row, row.status) == ("finetune:epochs=1", "ok")
    assert done.reference is not None
    assert all(job.failure.kind == "machine" for job in done.failed)
    assert 1 <= len(done.failed) <= 2  # unlearning, and counting it if that seed is the first
    assert any("failed: test/mlp/random, mine" in note for note in titles.notes)
    (tmp_path / "broken").unlink()
    again, titles = go(task, tmp_path / "home", method, names=("finetune:epochs=1",))
    assert [read_run(folder).manifest.status for folder in again.runs] == ["ok", "ok"]
    assert again.failed == ()
    assert len(titles.computed) == 1
    assert titles.computed[0].startswith("mine, seed")


def test_run_memory_that_runs_out_alone_is_the_row(task: Task, tmp_path: Path) -> None:
    method = write_method(tmp_path, "raise MemoryError('no room for a Hessian')")
    done, _ = go(task, tmp_path / "home", method)
    assert done.failed == ()
    row = read_run(done.runs[0]).manifest
    assert (row.status, row.reason) == (
        "failed",
        "out of memory while it ran alone: MemoryError: no room for a Hessian",
    )


def test_run_failed_oracle_leaves_all_others(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of many jobs fails: all others are done, and the same command does only that one."""
    real = train._train

    def fail(context: Any, job: Any, *rest: Any) -> None:
        if (job.role, job.seed) == ("reference", 1):
            raise fault(errno.EIO)
        real(context, job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_train", fail)
        done, titles = go(task, tmp_path, names=("finetune:epochs=1",))
    assert [job.title for job in done.failed] == ["reference 1"]
    assert done.failed[0].failure.attempts == 2
    assert done.reference is None
    assert [read_run(folder).manifest.status for folder in done.runs] == ["ok"]
    assert len(titles.computed) == 3 * 3 - 1 + 3
    again, titles = go(task, tmp_path, names=("finetune:epochs=1",))
    assert titles.computed == ["reference 1"]
    assert again.reference is not None


def test_run_bundle_that_cannot_be_written_stops_no_row(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise fault(errno.ENOSPC)

    monkeypatch.setattr(run_module, "write_reference", fail)
    done, titles = go(task, tmp_path, names=("finetune:epochs=1",))
    assert [(job.title, job.failure.kind) for job in done.failed] == [("the reference bundle", "machine")]
    assert done.reference is None
    assert [read_run(folder).manifest.status for folder in done.runs] == ["ok"]
    assert len(titles.computed) == 3 * 3 + 3


def test_run_command_one_bad_job_exits_with_1(
    write_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk while one model of one method is unlearned, in the first of two tasks."""
    file = write_task("random", "fraction = 0.2", seeds=2)
    other = write_task("mislabelled", "rate = 0.3", seeds=2)
    real = unlearn._unlearn

    def fail(context: Any, call: Any, step: Any, *rest: Any) -> None:
        if step.seed == 1 and context.task.name.endswith("random"):
            raise fault(errno.ENOSPC)
        real(context, call, step, *rest)

    monkeypatch.setattr(unlearn, "_unlearn", fail)
    words = ["run", str(file), str(other), "--method", "finetune:epochs=1", "--method", "ssd", "--engine", "local"]
    with pytest.raises(SystemExit) as exited:
        main([*words, "--device", "cpu"])
    output = capsys.readouterr()
    assert exited.value.code == 1
    assert "2 of 28 jobs failed; the others are finished and kept." in output.err
    assert "- test/mlp/random, ssd, seed 1: No space left on device. Free some space" in output.err
    assert "Traceback" not in output.err
    assert "test/mlp/mislabelled" in output.out
    assert output.err.count("evidence: ") == 2


ONE_BAD = """
import copy, errno, os, pathlib
from dataclasses import dataclass
from forgetbench.methods import Method

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    "Meets a full disk with one seed while a file exists."

    def unlearn(self, model, request):
        if request.seed == {seed} and pathlib.Path({file!r}).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return copy.deepcopy(model)
"""


@pytest.mark.system
def test_run_one_bad_job_of_forty(
    write_task: Callable[..., Path], tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In processes: 39 jobs are done, the bad one is named, and the same command does only that one."""
    file, flag, method = write_task("random", "fraction = 0.2", seeds=4, draws=2), tmp_path / "full", tmp_path / "m.py"
    flag.touch()
    method.write_text(ONE_BAD.format(seed=read_task(str(file)).stream("method", 1, 2), file=str(flag)))
    words = ["run", str(file), "--method", "finetune:epochs=1", "--method-file", f"{method}:Mine", "--device", "cpu"]

    def command() -> tuple[int, str, set[Path]]:
        with pytest.raises(SystemExit) as exited:
            main([*words, "--engine", "processes", "--workers", "2"])
        cards = set((own_home / "store").rglob("artifact.json"))
        return int(exited.value.code or 0), " ".join(capsys.readouterr().err.split()), cards

    status, output, before = command()
    assert status == 1
    assert "1 of 40 jobs failed; the others are finished and kept." in output
    assert "test/mlp/random, mine, seed 2, draw 1: No space left on device" in output
    flag.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in before}
    status, _, after = command()
    assert status == 0
    assert len(after - before) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == stamps


@pytest.mark.system
def test_run_full_disk_is_no_methods_failure(write_task: Callable[..., Path], tmp_path: Path) -> None:
    """A real full disk: a tmpfs that only this test sees, filled after the first method."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        skip("a mount namespace needs root")
    task, home = write_task("random", "fraction = 0.2", seeds=2), tmp_path / "home"
    home.mkdir()
    run = f"{sys.executable} -m forgetbench run {task} --engine local --device cpu --method"
    script = f"""
        set -u; mount -t tmpfs -o size=16m tmpfs {home}
        {run} finetune:epochs=1 > {tmp_path}/first 2>&1; echo $?
        head -c 32M /dev/zero > {home}/filler 2>/dev/null
        {run} finetune:epochs=1 --method ssd --skip-oracles > {tmp_path}/full 2>&1; echo $?
        find {home}/runs -name manifest.json | wc -l
        rm {home}/filler
        {run} finetune:epochs=1 --method ssd > {tmp_path}/last 2>&1; echo $?
        grep -l '"status": *"failed"' $(find {home}/runs -name manifest.json) | wc -l
    """
    environment = {**os.environ, "FORGETBENCH_HOME": str(home)}
    words = ["unshare", "-m", "bash", "-c", script]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    texts = {name: (tmp_path / name).read_text() for name in ("first", "full", "last")}
    assert done.stdout.split() == ["0", "1", "1", "0", "0"], (done, texts)
    assert re.search(r"ssd, seed 0: .*No space left on device\. Free some space", " ".join(texts["full"].split()))
    assert "Traceback" not in texts["full"]
