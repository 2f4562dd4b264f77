"""Simulates the board of ten seeds: how long it takes with different orders of its jobs, by number of workers.

    python benchmarks/schedule.py [REPETITIONS]

The board is `faces/cnn/identity` with its 30 methods; the FLOPs of each, relative to retraining, are those of the
shipped results. A training takes 55 s and each job 2 s in addition; FLOPs of training are counted on one epoch of 30.
Durations vary by a factor whose logarithm is normal. Printed are means over the repetitions, in which all orders meet
the same durations:

- `phases`: train, count FLOPs of training, unlearn, count FLOPs of unlearning, each phase in the order of its jobs;
- `merged`: counting in the same phase as training or unlearning, and the longest jobs of a phase first;
- `run`: what `forgetbench run` does, by its own `Schedule` and the costs that it expects before a board has been run;
- `critical path`: every job as soon as what it needs is there, those with the longest chain behind them first, by the
  exact expected durations.
"""

from __future__ import annotations

import heapq
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import mean

from forgetbench.runner.costs import expected_share
from forgetbench.runner.engines import Step
from forgetbench.runner.engines.base import Schedule

SEEDS = 10
TRAINING, OVERHEAD, EPOCHS, SIGMA = 55.0, 2.0, 30, 0.05
"""Seconds of a training, those that each job takes in addition, epochs, and the deviation of a duration's logarithm."""
OWN_ORIGINALS = 2
"""Number of methods that train originals of their own."""
TRAIN, COUNT_TRAINING, UNLEARN, COUNT_UNLEARNING = range(4)
GOALS = {8: 0.05, 32: 0.10}
"""Number of workers -> how much longer than by critical path the board may take."""


@dataclass(frozen=True)
class Job:
    """One job of the board."""

    phase: int
    """When `run` starts it."""
    seconds: float
    """Its expected duration."""
    needs: tuple[int, ...] = ()
    """Jobs that must be done before."""
    share: float = 1.0
    """What `forgetbench run` expects it to take, as a share of a retraining."""


def board() -> list[Job]:
    """The jobs of the board."""
    text = (files("forgetbench") / "reference" / "faces" / "cnn" / "identity.json").read_text(encoding="utf-8")
    rows = [row for row in json.loads(text)["rows"] if row["label"] != "Retrain" and ":" not in row["label"]]
    methods = [(row["label"], row["cost"]["flops"]) for row in rows if row.get("cost", {}).get("flops")]
    jobs = [Job(TRAIN, TRAINING + OVERHEAD) for _ in range((1 + OWN_ORIGINALS + 2) * SEEDS)]
    jobs += [Job(COUNT_TRAINING, TRAINING / EPOCHS + OVERHEAD, (), 1 / EPOCHS) for _ in range(1 + OWN_ORIGINALS)]
    for number, (name, share) in enumerate(methods):
        own = number < OWN_ORIGINALS  # such a row begins when all its originals are there: if one fails, it has failed
        first = (number + 1) * SEEDS if own else 0
        originals = range(first, first + SEEDS)
        needs = [tuple(originals) if own else (original,) for original in originals]
        seconds, expected = share * TRAINING + OVERHEAD, expected_share(name)
        jobs += [Job(UNLEARN, seconds, need, expected) for need in needs]
        jobs.append(Job(COUNT_UNLEARNING, seconds, needs[0], expected))
    return jobs


def by_run(jobs: Sequence[Job], seconds: Sequence[float], workers: int) -> float:
    """The time of all jobs on the engines of `forgetbench run`."""
    schedule = Schedule([Step(lambda _: True, job.needs, job.share) for job in jobs], workers=workers)
    running: list[tuple[float, int]] = []
    now = 0.0
    while schedule.pending or running:
        while len(running) < workers and (number := schedule.take()) is not None:
            heapq.heappush(running, (now + seconds[number], number))
        now, done = heapq.heappop(running)
        schedule.settle(done, ("done", True), "", alone=False)
    return now


def makespan(jobs: Sequence[Job], seconds: Sequence[float], workers: int, priority: Sequence[float]) -> float:
    """The time of all jobs on workers that always take the one of the highest priority whose needs are done."""
    followers: list[list[int]] = [[] for _ in jobs]
    missing = [len(job.needs) for job in jobs]
    for number, job in enumerate(jobs):
        for need in job.needs:
            followers[need].append(number)
    ready = [(-priority[number], number) for number, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            number = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + seconds[number], number))
        now, done = heapq.heappop(running)
        for number in followers[done]:
            missing[number] -= 1
            if not missing[number]:
                heapq.heappush(ready, (-priority[number], number))
    return now


def in_phases(
    jobs: Sequence[Job], seconds: Sequence[float], workers: int, phase: Callable[[int], int], *, longest_first: bool
) -> float:
    """The time of all jobs if each phase begins when the one before it has ended.

    Args:
        jobs: The jobs.
        seconds: Their durations.
        workers: Number of workers.
        phase: Number of a job -> number of its phase.
        longest_first: Whether a phase begins with its longest jobs, rather than with the first ones.
    """
    total = 0.0
    for step in sorted({phase(number) for number in range(len(jobs))}):
        chosen = [number for number in range(len(jobs)) if phase(number) == step]
        free = [Job(step, jobs[number].seconds) for number in chosen]
        order = [job.seconds if longest_first else -float(place) for place, job in enumerate(free)]
        total += makespan(free, [seconds[number] for number in chosen], workers, order)
    return total


def chains(jobs: Sequence[Job]) -> list[float]:
    """The expected time of the longest chain of jobs that begins with each."""
    behind = [0.0] * len(jobs)
    for job in jobs:
        for need in job.needs:
            behind[need] = max(behind[need], job.seconds)
    return [job.seconds + behind[number] for number, job in enumerate(jobs)]


def main(repetitions: int = 30) -> int:
    """Print the table; returns 1 if `run` misses a goal."""
    jobs = board()
    print(f"{len(jobs)} jobs, {sum(job.seconds for job in jobs) / 60:.0f} minutes of work; minutes by order:")
    print("workers     phases     merged        run  critical path     run is longer by")
    draws = random.Random(2026)  # noqa: S311 - no secret
    durations = [[job.seconds * draws.lognormvariate(0, SIGMA) for job in jobs] for _ in range(repetitions)]
    phases: dict[str, tuple[Callable[[int], int], bool]] = {
        "phases": (lambda number: jobs[number].phase, False),
        "merged": (lambda number: jobs[number].phase // 2, True),
    }
    missed = False
    for workers in (1, 4, 8, 16, 32, 64):
        times = {
            name: mean(in_phases(jobs, one, workers, phase, longest_first=longest) for one in durations)
            for name, (phase, longest) in phases.items()
        }
        times["run"] = mean(by_run(jobs, one, workers) for one in durations)
        path = mean(makespan(jobs, one, workers, chains(jobs)) for one in durations)
        goal, longer = GOALS.get(workers), times["run"] / path - 1
        missed |= goal is not None and longer > goal
        note = f" (goal: at most {goal:.0%})" if goal is not None else ""
        print(
            f"{workers:7}",
            *(f"{time / 60:10.1f}" for time in times.values()),
            f"{path / 60:14.1f} {longer:+20.1%}{note}",
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
