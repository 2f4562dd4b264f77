from __future__ import annotations

import operator
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.jobs import work

from forgetbench.datasets.problems import ImageSetError, Problem
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.methods._result import ResultError
from forgetbench.runner.config import RunConfig
from forgetbench.runner.engines import Failure, LocalEngine, ProcessesEngine, TimeLimit, make_engine, results_of
from forgetbench.runner.engines.devices import pick_device
from forgetbench.runner.failures import JobsFailedError
from forgetbench.tasks.task import read_task
from forgetbench.training.loop import DivergedError
from forgetbench.verification.calls import MethodError
from forgetbench.verification.rerun import MethodFailedError
from forgetbench.verification.session import SandboxStoppedError
from forgetbench.verification.weights import WeightsError

ROOT = Path(__file__).parents[2]
MORE = {DivergedError, ImageSetError, JobsFailedError, MethodError, MethodFailedError, ResultError} | {
    SandboxStoppedError,
    WeightsError,
}
"""Errors of other modules than forgetbench.errors, imported so that they are known."""


def test_engine_results_keep_the_order_of_jobs() -> None:
    jobs = list(range(7))
    told: list[int] = []
    with ProcessesEngine(2) as several, LocalEngine() as one:
        side_by_side = several.map(operator.neg, jobs, lambda number, _: told.append(number))
        in_order = one.map(operator.neg, jobs, lambda *_: None)
    assert side_by_side == in_order == [0, -1, -2, -3, -4, -5, -6]
    assert sorted(told) == list(range(7))


@pytest.mark.parametrize("engine", [LocalEngine(), ProcessesEngine(1)])
def test_engine_job_error_is_its_outcome(engine: LocalEngine | ProcessesEngine) -> None:
    with engine:
        [failure] = engine.map(read_task, ["nothing/such"], lambda *_: None)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.attempts, failure.by_job) == ("job", 1, False)
    assert isinstance(failure.error, UsageError)
    with pytest.raises(UsageError, match="task"):
        results_of([failure])


def every_error(kind: type[ForgetBenchError] = ForgetBenchError) -> list[type[ForgetBenchError]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in every_error(child))]


@pytest.mark.parametrize("kind", every_error())
def test_engine_errors_survive_pickling(kind: type[ForgetBenchError]) -> None:
    several = [Problem("unreadable image", f"picture {number}", "Copy it again.") for number in range(12)]
    made = kind("12 pictures:", several) if issubclass(kind, ImageSetError) else kind("what is wrong")
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 (made here)
    assert type(again) is kind
    assert str(again) == str(made)
    assert vars(again) == vars(made)


def test_engine_errors_are_all_listed() -> None:
    names = {kind.__name__ for kind in every_error()}
    folders = [ROOT / name for name in ("benchmark", "datasets", "methods", "leaderboard")]
    text = "\n".join(path.read_text() for folder in folders for path in sorted(folder.rglob("*.py")))
    found = re.findall(rf"^class (\w+)\((?:{'|'.join(names)})\)", text, re.MULTILINE)
    assert {*found, "ForgetBenchError"} == names


@pytest.mark.parametrize(
    ("function", "job", "message"),
    [
        (os._exit, 3, r"the code ended the process with status 3, as os\._exit does\. Correct or omit the method"),
        (os._exit, 0, "the code ended the process with status 0"),
        (signal.raise_signal, signal.SIGSEGV, r"it crashed \(SIGSEGV\), in the method's code or in a library"),
        (signal.raise_signal, signal.SIGKILL, "most often because memory ran out.* with --workers 1"),
    ],
)
def test_engine_dead_worker_names_job_and_cause(function: Callable[[int], None], job: int, message: str) -> None:
    with ProcessesEngine(1, retries=0) as executor:
        [failure] = executor.map(function, [job], lambda *_: None)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.attempts) == ("lost", 1)
    assert re.search(message, str(failure.error))
    assert "in the job '1 of 1'" in str(failure.error)
    assert "inished jobs are not repeated" in str(failure.error)


def test_engine_goes_on_after_deaths_and_faults(tmp_path: Path) -> None:
    """One job always crashes, one dies once, one finds the disk full, one the memory: the others have results."""
    jobs = ["quick", "crash", f"die-once:{tmp_path / 'died'}", f"no-space:{tmp_path}", "no-memory", "quick"]
    done: list[int] = []
    with ProcessesEngine(2, retries=1) as engine:
        outcomes = engine.map(work, jobs, lambda number, _: done.append(number))
    assert sorted(done) == list(range(6))
    assert [outcomes[number] for number in (0, 2, 5)] == [jobs[number] for number in (0, 2, 5)]
    crashed, full, memory = (outcomes[number] for number in (1, 3, 4))
    assert isinstance(crashed, Failure)
    assert isinstance(full, Failure)
    assert isinstance(memory, Failure)
    assert (crashed.kind, crashed.attempts, crashed.by_job) == ("lost", 2, True)
    assert (full.kind, full.attempts, full.by_job) == ("machine", 2, False)
    assert (memory.kind, memory.attempts, memory.by_job) == ("machine", 2, True)
    assert "it crashed (SIGABRT)" in str(crashed.error)
    assert isinstance(full.error, OSError)
    assert full.error.filename == str(tmp_path)


def test_engine_reports_jobs_as_they_finish(tmp_path: Path) -> None:
    """The first job ends only when the second has been reported."""
    file = tmp_path / "reported"
    with ProcessesEngine(2) as engine:
        jobs = [f"wait-for:{file}", "quick"]
        assert engine.map(work, jobs, lambda number, _: file.touch() if number == 1 else None) == jobs


@pytest.mark.parametrize("engine", [LocalEngine(), ProcessesEngine(1)])
def test_engine_time_limit_replaces_results(engine: LocalEngine | ProcessesEngine) -> None:
    limit = TimeLimit[str, str](1.5, lambda job: "late" if job == "endless" else None)
    with engine:
        assert engine.map(work, ["quick", "endless", "quick"], lambda *_: None, limit) == ["quick", "late", "quick"]


def test_engine_time_limit_of_a_job_without_one() -> None:
    limit = TimeLimit[str, str](0.01, lambda _: None)
    with LocalEngine() as engine:
        assert engine.map(work, ["sleep"], lambda *_: None, limit) == ["sleep"]


@pytest.mark.parametrize("engine", [LocalEngine(), ProcessesEngine(1)])
def test_engine_output_of_jobs_goes_to_stderr(
    engine: LocalEngine | ProcessesEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    with engine:
        engine.map(work, ["print"], lambda *_: None)
    output = capfd.readouterr()
    assert output.out == ""
    for words in ("from Python", "from the process", "from a child"):
        assert words in output.err


def test_engine_interrupted_ends_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from forgetbench.runner.engines import ProcessesEngine\n"
        "import signal, time\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it\n"
        "    with ProcessesEngine(2) as engine:\n"
        "        engine.map(abs, [1, 2], lambda *_: None)\n"
        "        print(*(worker.process.pid for worker in engine._pool), flush=True)\n"
        "        engine.map(time.sleep, [60, 60], lambda *_: None)\n"
    )
    words = [sys.executable, str(script)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    workers = [int(word) for word in process.stdout.readline().split()]
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    _, errors = process.communicate(timeout=60)
    assert errors.count("Traceback") == 1  # the parent's, whose caller says what was interrupted
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": 0}, "The number of worker processes is 0. Give --workers 1 or more"),
        ({"workers": -1}, "The number of worker processes is -1"),
        ({"time_limit": 0.0}, "The time limit is 0 seconds. Give more than 0"),
        ({"time_limit": float("nan")}, "The time limit is nan seconds"),
    ],
)
def test_run_config_numbers_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunConfig(**values)


@pytest.mark.parametrize("device", ["mps", "xpu", "meta", "cud", "cuda:99"])
def test_pick_device_others_are_refused(device: str) -> None:
    with pytest.raises(UsageError, match=rf"Device '{device}' is not (supported|available)"):
        pick_device(device)


def test_make_engine_by_name() -> None:
    assert isinstance(make_engine("auto", 1, "cuda"), LocalEngine)
    assert isinstance(make_engine("auto", 1, "cpu"), ProcessesEngine)
    with pytest.raises(UsageError, match="Available: auto, local, processes"):
        make_engine("dask", None, "cpu")


def test_engine_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from forgetbench.runner.engines import ProcessesEngine\n"
        "if __name__ == '__main__':\n"
        "    with ProcessesEngine(1) as executor:\n"
        "        [result] = executor.map(abs, [-1], lambda *_: None)\n"
        "        print(executor._pool[0].process.pid, flush=True)\n"
        "        import time; time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")
