from __future__ import annotations

import operator
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forgetbench.datasets.problems import ImageSetError, Problem
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.runner.engines import LocalEngine, ProcessesEngine, make_engine
from forgetbench.tasks.task import read_task
from forgetbench.training.loop import DivergedError

ROOT = Path(__file__).parents[2]
MORE = (DivergedError, ImageSetError)
"""Errors of other modules than forgetbench.errors, imported so that they are known."""


def test_engine_results_keep_the_order_of_jobs() -> None:
    jobs = list(range(7))
    told: list[int] = []
    with ProcessesEngine(2) as several, LocalEngine() as one:
        side_by_side = several.map(operator.neg, jobs, lambda number, _: told.append(number))
        in_order = one.map(operator.neg, jobs, lambda *_: None)
    assert side_by_side == in_order == [0, -1, -2, -3, -4, -5, -6]
    assert sorted(told) == list(range(7))


def test_engine_job_error_reaches_the_caller() -> None:
    with ProcessesEngine(1) as executor, pytest.raises(UsageError, match="task"):
        executor.map(read_task, ["nothing/such"], lambda *_: None)


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


def test_engine_killed_worker_is_explained() -> None:
    with ProcessesEngine(1) as executor, pytest.raises(ForgetBenchError, match="finished jobs are not repeated"):
        executor.map(os._exit, [3], lambda *_: None)


def test_make_engine_by_name() -> None:
    assert isinstance(make_engine("auto", 1, "cuda"), LocalEngine)
    assert isinstance(make_engine("auto", 1, "cpu"), ProcessesEngine)
    with pytest.raises(UsageError, match="Available: auto, local, processes"):
        make_engine("ray", None, "cpu")


def test_engine_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from forgetbench.runner.engines import ProcessesEngine\n"
        "if __name__ == '__main__':\n"
        "    with ProcessesEngine(1) as executor:\n"
        "        [result] = executor.map(abs, [-1], lambda *_: None)\n"
        "        print(next(iter(executor._pool._processes)), flush=True)\n"
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
