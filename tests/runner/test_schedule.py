"""The order in which all engines run jobs: what is next, what is run again, and what needs the result of others."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

import pytest

from forgetbench.errors import ForgetBenchError
from forgetbench.leases import BusyError
from forgetbench.runner.engines import LocalEngine, ProcessesEngine, Step
from forgetbench.runner.engines.base import RETRIES, Answer, Failure, Schedule

Plan = Sequence[str | Step[str, str]]


def fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def play(schedule: Schedule, answers: Callable[[int, int, bool], Answer]) -> list[tuple[int, bool]]:
    """Run a schedule with two jobs at a time: job, attempt and whether it is alone -> answer; returns the attempts."""
    tries: list[tuple[int, bool]] = []
    while schedule.pending:
        taken = [schedule.take(), schedule.take()]
        batch = [
            number for number in (taken if taken[0] is not None else [schedule.take_alone()]) if number is not None
        ]
        for number in batch:
            alone = len(batch) == 1
            tries.append((number, alone))
            schedule.settle(number, answers(number, [n for n, _ in tries].count(number), alone), "here", alone=alone)
    return tries


def test_schedule_lost_worker_four_times_is_the_job() -> None:
    schedule = Schedule("abcd")
    lost: Answer = ("lost", ForgetBenchError("died"))
    tries = play(schedule, lambda number, _, __: lost if number == 1 else ("done", number))
    assert RETRIES == 3
    assert [number for number, _ in tries].count(1) == 4
    assert tries[-1] == (1, True)
    outcome = schedule.outcomes[1]
    assert (outcome.kind, outcome.attempts, outcome.by_job) == ("lost", 4, True)
    assert [schedule.outcomes[number] for number in (0, 2, 3)] == [0, 2, 3]


def test_schedule_lost_worker_of_a_broken_engine_is_no_job() -> None:
    schedule = Schedule("a", retries=0)
    assert schedule.take() == 0
    assert schedule.settle(0, ("lost", ForgetBenchError("died")), "here", alone=True, healthy=lambda: False) == [0]
    assert not schedule.outcomes[0].by_job


def test_schedule_lost_worker_once_is_run_again() -> None:
    schedule = Schedule("abc")
    play(schedule, lambda number, attempt, _: ("lost", OSError()) if (number, attempt) == (0, 1) else ("done", number))
    assert schedule.results() == [0, 1, 2]


def test_schedule_memory_next_to_others_is_run_alone() -> None:
    schedule = Schedule("abcd")
    tries = play(
        schedule,
        lambda number, _, alone: (
            ("memory", MemoryError()) if number == 3 or (number == 0 and not alone) else ("done", 1)
        ),
    )
    assert tries[4:] == [(0, True), (3, True)]
    assert schedule.results()[:3] == [1, 1, 1]
    assert (schedule.outcomes[3].kind, schedule.outcomes[3].by_job) == ("machine", True)


def test_schedule_storage_fault_is_run_after_the_others() -> None:
    schedule = Schedule("abcde")
    full: Answer = ("storage", fault(errno.ENOSPC))
    tries = play(schedule, lambda number, attempt, _: full if number < 2 and attempt <= number + 1 else ("done", 1))
    assert [number for number, _ in tries] == [0, 1, 2, 3, 4, 0, 1]
    assert [type(outcome) for outcome in schedule.results()] == [int, Failure, int, int, int]
    assert (schedule.outcomes[1].kind, schedule.outcomes[1].by_job, schedule.outcomes[1].attempts) == (
        "machine",
        False,
        2,
    )


def test_schedule_full_disk_starts_no_further_job() -> None:
    schedule = Schedule(range(50), workers=2)
    tries = play(schedule, lambda *_: ("storage", fault(errno.ENOSPC)))
    assert len(tries) < 10
    outcomes = schedule.results()
    assert all(isinstance(outcome, Failure) and outcome.kind == "machine" for outcome in outcomes)
    assert "Not started" in str(outcomes[-1].error)


def test_schedule_busy_job_is_tried_after_others() -> None:
    schedule = Schedule("abc")
    assert schedule.take() == 0
    assert schedule.settle(0, ("busy", BusyError()), "here", alone=True) == []
    for number in (1, 2, 0):
        assert schedule.take() == number
        assert schedule.settle(number, ("done", number), "here", alone=True) == [number]
    assert schedule.results() == [0, 1, 2]


def joined(*needs: int, cost: float = 0.0) -> Step[str, str]:
    """A job that is the results of others, joined; it cannot be made without them."""

    def make(results: Sequence[str | None]) -> str | None:
        return "+".join(str(result) for result in results) if all(results) else None

    return Step(make, needs, cost)


DIAMOND: Plan = ["a", "b", joined(0), joined(0, 1), joined(2, 3)]


@pytest.mark.parametrize("engine", [LocalEngine(), ProcessesEngine(2)])
def test_engine_step_is_made_from_results(engine: LocalEngine | ProcessesEngine) -> None:
    with engine:
        assert engine.map(str.upper, DIAMOND, lambda *_: None) == ["A", "B", "A", "A+B", "A+A+B"]


def test_schedule_longest_chain_first() -> None:
    """A short job that a long one waits for is before a job of middle length; of equal ones the first."""
    plan = [Step.of("middle", 2.0), Step.of("twin", 2.0), Step.of("short", 1.0), joined(2, cost=3.0)]
    assert [number for number, _ in play(Schedule(plan), lambda number, *_: ("done", str(number)))] == [2, 0, 3, 1]


def test_schedule_failed_job_blocks_only_what_needs_it() -> None:
    schedule = Schedule([*DIAMOND, joined(0)])
    known: list[int] = []
    while (number := schedule.take()) is not None:
        answer: Answer = ("job", ValueError("wrong")) if number == 1 else ("done", "x")
        known += schedule.settle(number, answer, "here", alone=True)
    assert sorted(known) == [*range(6)]
    kinds = [outcome.kind if isinstance(outcome, Failure) else outcome for outcome in schedule.results()]
    assert kinds == ["x", "job", "x", "blocked", "blocked", "x"]
    assert schedule.outcomes[3].attempts == 0
    assert set(schedule.jobs) == {0, 1, 2, 5}


def test_schedule_step_may_do_without_a_result() -> None:
    """A step whose need has failed is asked, too: it may be made from what there is."""
    schedule = Schedule(["a", Step(lambda results: "instead" if results == [None] else None, (0,))])
    play(schedule, lambda number, *_: ("done", "x") if number else ("job", ValueError("wrong")))
    assert (schedule.jobs[1], schedule.outcomes[1]) == ("instead", "x")


def test_schedule_full_disk_blocks_what_was_not_made() -> None:
    schedule = Schedule([*(str(number) for number in range(20)), joined(0), joined(19)])
    play(schedule, lambda *_: ("storage", fault(errno.ENOSPC)))
    assert {outcome.kind for outcome in schedule.results()[:20]} == {"machine"}
    assert [outcome.kind for outcome in schedule.results()[20:]] == ["blocked", "blocked"]


def test_schedule_job_before_its_needs_is_refused() -> None:
    with pytest.raises(ValueError, match="job 0 needs job 1, which is not before it"):
        Schedule([joined(1), "a"])
