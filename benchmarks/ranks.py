"""Error rates and widths of rank intervals on simulated boards of 12 rows, as a Markdown table.

    python benchmarks/ranks.py [--quick] [--boards N] [--processes N]

Compares tie groups, the rule of protocol version 1, with intervals of single rows by joint studentized sign flips, on
the scale of the distance, of its logarithm, and of log(1 + distance), the rule of protocol version 2. A row counts as
missed if its interval lacks its true rank; rows with equal true distances have all ranks of their tie, and their
intervals must have all of them. Everything derives from one seed. Takes minutes on two cores; --quick takes seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forgetbench.reproduction.reference_file import read_board, reference_tasks
from forgetbench.scoring.statistics import (
    ALPHA,
    RANK_FLIPS,
    intervals_on_scale,
    rank_intervals,
    sign_flips,
)

Array = NDArray[np.float64]
Spans = tuple[NDArray[np.int64], NDArray[np.int64]]
Generator = np.random.Generator

ROWS = 12
SEED = 20260801
BOARDS = {6: 800, 10: 400, 20: 200}
"""Seeds of a board -> how many boards are simulated of each scenario."""
QUICK = {6: 20, 10: 8, 20: 3}
KERNEL = 0.3
"""Width of the noise added to resampled noise, in its standard deviations."""


class Board(NamedTuple):
    """A simulated board."""

    truth: Array
    """(K,): true distances."""
    pseudo: Array
    """(K, S): pseudo-values of the distance."""


# ---- methods


def tie_groups(values: Array) -> Spans:
    """The rule of protocol version 1: while the range over rows is significant, remove the worst row."""
    order = np.argsort(values.mean(axis=1), kind="stable")
    flips = sign_flips(values.shape[1], RANK_FLIPS[1])
    low, high = np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=np.int64)
    start = 0
    while start < len(values):
        sums = values[order[start:]] @ flips.T
        ranges = np.maximum.accumulate(sums, axis=0) - np.minimum.accumulate(sums, axis=0)
        p = (ranges >= ranges[:, :1] * (1 - 1e-9)).mean(axis=1)
        size = 1 + int(np.flatnonzero(p > ALPHA)[-1])
        low[order[start : start + size]], high[order[start : start + size]] = start + 1, start + size
        start += size
    return low, high


def log_of_distance(pseudo: Array) -> Array:
    """Pseudo-values of the logarithm of the distance; a distance without a seed is at least a share of it."""
    seeds = pseudo.shape[1]
    whole = np.maximum(pseudo.mean(axis=1, keepdims=True), 0.01)
    left_out = np.log(np.maximum(whole - (pseudo - whole) / (seeds - 1), whole / seeds))
    logs: Array = np.log(whole) + (seeds - 1) * (left_out.mean(axis=1, keepdims=True) - left_out)
    return logs


def on_scale(scale: Callable[[Array], Array], pseudo: Array) -> Spans:
    """Rank intervals of single rows on a scale."""
    placings = intervals_on_scale(pseudo.mean(axis=1), scale(pseudo))
    return np.array([place.low for place in placings]), np.array([place.high for place in placings])


def chosen(pseudo: Array) -> Spans:
    """The rule of protocol version 2, as boards use it."""
    placings = rank_intervals(pseudo)
    return np.array([place.low for place in placings]), np.array([place.high for place in placings])


METHODS: Mapping[str, Callable[[Array], Spans]] = {
    "tie groups": tie_groups,
    "tie groups, log": lambda pseudo: tie_groups(log_of_distance(pseudo)),
    "rows": partial(on_scale, lambda pseudo: pseudo),
    "rows, log": partial(on_scale, log_of_distance),
    "rows, log(1 + d)": chosen,
}

# ---- scenarios


def normal(generator: Generator, seeds: int) -> Array:
    return generator.normal(size=(ROWS, seeds))


def exponential(generator: Generator, seeds: int) -> Array:
    return generator.exponential(size=(ROWS, seeds)) - 1


def simulated(
    truth: Array, spread: Array, noise: Callable[[Generator, int], Array], generator: Generator, seeds: int
) -> Board:
    """True distances with independent noise, and a smaller part that all rows of a seed share."""
    shared = 0.5 * spread.min() * generator.normal(size=(1, seeds))
    return Board(truth, truth[:, None] + spread[:, None] * noise(generator, seeds) + shared)


@lru_cache(maxsize=1)
def templates() -> tuple[Array, ...]:
    """The pseudo-values (K, S) of the ranked rows of the shipped reference boards."""
    boards = [read_board(task) for task in reference_tasks()]
    found = [[row.pseudo["distance"] for row in board.rows if row.rank is not None] for board in boards]
    return tuple(np.array(rows) for rows in found if len(rows) >= ROWS)


def shipped(tied: bool, generator: Generator, seeds: int) -> Board:
    """Rows of a shipped board with their distances, and with their noise resampled by seed, slightly smoothed.

    If tied, four neighbors each have the same true distance, the geometric mean of theirs.
    """
    pseudo = templates()[generator.integers(len(templates()))]
    count = pseudo.shape[1]
    means = pseudo.mean(axis=1)
    noise = (pseudo - means[:, None]) * np.sqrt(count / (count - 1))
    truth = means.copy()
    order = np.argsort(means)
    for start in range(0, len(means), 4) if tied else ():
        truth[order[start : start + 4]] = np.exp(np.log(means[order[start : start + 4]]).mean())
    rows = generator.permutation(len(means))[:ROWS]
    drawn = noise[rows][:, generator.integers(0, count, seeds)]
    smooth = KERNEL * noise[rows].std(axis=1, keepdims=True) * generator.normal(size=drawn.shape)
    return Board(truth[rows], truth[rows][:, None] + (drawn + smooth) / np.sqrt(1 + KERNEL**2))


EQUAL, SAME = np.full(ROWS, 100.0), np.ones(ROWS)
HUNDREDFOLD = np.geomspace(0.3, 30, ROWS)
STEPS = 20 + np.arange(ROWS, dtype=np.float64)
POWERS: Array = 5 * 1.4 ** np.arange(ROWS, dtype=np.float64)
GROUPS = np.repeat([10.0, 20.0, 40.0], ROWS // 3)
MIXED = np.array([1.3, 4.8, 7.7, 12, 20, 30, 45, 60, 90, 150, 190, 195])
"""Three good rows with small intervals, and one further down whose interval is much wider than all others."""
MIXED_SPREAD = np.array([1.9, 1.1, 1.3, 1.9, 2.9, 3.8, 5.7, 39, 9.5, 11, 2.9, 2.9])

SCENARIOS: Mapping[str, Callable[[Generator, int], Board]] = {
    "null": partial(simulated, EQUAL, SAME, normal),
    "null, noise differs hundredfold": partial(simulated, EQUAL, HUNDREDFOLD, normal),
    "ladder, steps of 1 sd": partial(simulated, STEPS, SAME, normal),
    "ladder, factors of 1.4, noise 30 %": partial(simulated, POWERS, 0.3 * POWERS, normal),
    "three groups, equal noise": partial(simulated, GROUPS, np.full(ROWS, 2.0), normal),
    "three groups, noise 10 %": partial(simulated, GROUPS, 0.1 * GROUPS, normal),
    "three groups, noise 30 %": partial(simulated, GROUPS, 0.3 * GROUPS, normal),
    "null, skewed noise": partial(simulated, EQUAL, SAME, exponential),
    "null, skewed, differs hundredfold": partial(simulated, EQUAL, HUNDREDFOLD, exponential),
    "one noisy row among exact ones": partial(simulated, MIXED, MIXED_SPREAD, normal),
    "shipped boards": partial(shipped, False),
    "shipped boards, four tied each": partial(shipped, True),
}

# ---- simulation


class Rates(NamedTuple):
    """What a method did on the boards of a scenario."""

    missed: float
    """Share of rows whose interval lacks their true rank."""
    error: float
    """Standard error of that share, over boards."""
    width: float
    """Mean of highest minus lowest rank."""


def run(scenario: str, seeds: int, boards: int) -> dict[str, Rates]:
    """All methods on the same boards of a scenario."""
    missed: dict[str, list[float]] = {name: [] for name in METHODS}
    widths: dict[str, list[float]] = {name: [] for name in METHODS}
    stream = list(SCENARIOS).index(scenario)
    for number in range(boards):
        board = SCENARIOS[scenario](np.random.default_rng([SEED, stream, seeds, number]), seeds)
        first = 1 + (board.truth[None] < board.truth[:, None] - 1e-9).sum(axis=1)
        last = ROWS - (board.truth[None] > board.truth[:, None] + 1e-9).sum(axis=1)
        for name, method in METHODS.items():
            low, high = method(board.pseudo)
            missed[name].append(float(((low > first) | (high < last)).mean()))
            widths[name].append(float((high - low).mean()))
    return {
        name: Rates(
            float(np.mean(missed[name])), float(np.std(missed[name]) / np.sqrt(boards)), float(np.mean(widths[name]))
        )
        for name in METHODS
    }


def table(boards: Mapping[int, int], processes: int) -> str:
    """The Markdown table: share of rows missed / mean width."""
    cells = [(scenario, seeds, count) for seeds, count in boards.items() for scenario in SCENARIOS]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        results = pool.starmap(run, cells, chunksize=1)
    lines = [
        f"| scenario | seeds | {' | '.join(METHODS)} |",
        f"| --- | ---: | {' | '.join('---:' for _ in METHODS)} |",
    ]
    for (scenario, seeds, _), rates in zip(cells, results, strict=True):
        figures = " | ".join(f"{100 * rate.missed:.1f} % / {rate.width:.1f}" for rate in rates.values())
        lines.append(f"| {scenario} | {seeds} | {figures} |")
    worst = {name: max((rates[name] for rates in results), key=lambda rate: rate.missed) for name in METHODS}
    mean = {name: np.mean([rates[name].width for rates in results]) for name in METHODS}
    figures = " | ".join(f"{100 * worst[name].missed:.1f} ± {196 * worst[name].error:.1f} %" for name in METHODS)
    lines.append(f"| **largest share missed** | | {figures} |")
    lines.append(f"| **mean width** | | {' | '.join(f'{mean[name]:.2f}' for name in METHODS)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few boards of each scenario")
    parser.add_argument("--boards", type=int, help="boards of each scenario, whatever the number of seeds")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    counts = QUICK if options.quick else BOARDS
    if options.boards is not None:
        counts = dict.fromkeys(counts, options.boards)
    print(table(counts, options.processes))
