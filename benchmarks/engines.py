"""Measures what an engine adds to each job, for jobs that only come back.

    python benchmarks/engines.py [JOBS [REPETITIONS]]

Prints the milliseconds per job of `processes` and, if Ray is installed, of a Ray cluster on this machine, measured in
turn so that other load meets both; the first round, which starts the workers, is not counted.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from statistics import median

from forgetbench.runner.engines import Engine, make_engine


def main(jobs: int = 500, repetitions: int = 5) -> None:
    """Print one line for each engine."""
    names = ["processes", *(["ray"] if find_spec("ray") else [])]
    with ExitStack() as stack:
        engines: dict[str, Engine] = {name: stack.enter_context(make_engine(name, None, "cpu")) for name in names}
        times: dict[str, list[float]] = {name: [] for name in names}
        for repetition in range(repetitions + 1):
            for name, engine in engines.items():
                start = time.perf_counter()
                engine.map(len, ["x" * 1000] * jobs, lambda *_: None)
                if repetition:
                    times[name].append((time.perf_counter() - start) / jobs * 1000)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    for name, values in times.items():
        print(f"{name:10} {median(values):6.2f} ms per job ({min(values):.2f} to {max(values):.2f})")
    if "ray" in times:
        print(f"Ray takes {median(times['ray']) - median(times['processes']):.2f} ms more for each job.")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
