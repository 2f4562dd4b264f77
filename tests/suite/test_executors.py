from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.executors import Local, Processes, make_executor


def test_results_come_in_the_order_of_the_jobs_whatever_the_executor() -> None:
    jobs = [{"obj": {"n": number}} for number in range(7)]
    told: list[int] = []
    with Processes(2) as several, Local() as one:
        side_by_side = several("forgetbench.executors:echo", jobs, lambda number, _: told.append(number))
        in_order = one("forgetbench.executors:echo", jobs, lambda *_: None)
    assert side_by_side == in_order == jobs
    assert sorted(told) == list(range(7))


def test_an_error_of_a_job_reaches_the_caller_with_its_kind() -> None:
    with Processes(1) as executor, pytest.raises(UsageError, match="no task"):
        executor("forgetbench.tasks:read_task", ["nothing/such"], lambda *_: None)  # type: ignore[list-item]


def test_a_killed_worker_is_explained() -> None:
    with Processes(1) as executor, pytest.raises(ForgetBenchError, match="finished jobs are not repeated"):
        executor("os:_exit", [3], lambda *_: None)  # type: ignore[list-item]


def test_an_executor_has_a_name() -> None:
    assert isinstance(make_executor("auto", 1, "cuda"), Local)
    assert isinstance(make_executor("auto", 1, "cpu"), Processes)
    with pytest.raises(UsageError, match="There are: auto, local, processes"):
        make_executor("ray", None, "cpu")


def test_workers_end_with_their_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from forgetbench.executors import Processes\n"
        "if __name__ == '__main__':\n"
        "    with Processes(1) as executor:\n"
        "        [result] = executor('forgetbench.executors:echo', [{}], lambda *_: None)\n"
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
