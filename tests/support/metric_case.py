"""A test case of a metric: how it is called on random arrays, and which properties it has.

A case names the axes of its arguments by letters, one word per argument: "si ti #i" is a matrix of models by examples,
one of other models on the same examples, and a class number for each example. ``?`` is a single number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

INF = np.inf
SIZES = {"s": 4, "t": 4, "k": 3, "f": 6}
"""Models of either side, classes and weights; all other letters count rows, whose number is random."""


@dataclass(frozen=True)
class Case:
    """How a metric is called, and which properties it has. A property that is None does not hold; see ``reason``."""

    call: Callable[..., Any]
    axes: str
    share: bool = False
    """Numbers in (0, 1), such as accuracies and probabilities; else they are normal."""
    bounded: bool = False
    """Whether the formula holds in [0, 1] only, so that percentages are refused."""
    range: tuple[float, float] = (-INF, INF)
    out: str = ""
    """Letters of the axes of the value."""
    rows: str = "i"
    """Letters of the axes whose order must not matter."""
    shift: tuple[int, ...] | None = None
    """Arguments that a constant may be added to, all at once."""
    swap: Callable[[Any], Any] | None = None
    """The value after exchanging the sides, as a function of the value before."""
    swapped: tuple[int, ...] = (1, 0)
    """The order of the arguments with the sides exchanged."""
    more: Callable[..., Any] | None = None
    """Arguments whose value is at least (``sign`` -1: at most) that of those given."""
    sign: int = 1
    constant: Any = None
    """The value if all numbers are equal, or a predicate of it."""
    separated: tuple[Callable[..., Any], Any] | None = None
    """Perfectly separated arguments, and the value there, or a predicate of it."""
    min_rows: int = 1
    """Fewest rows; fewer are refused."""
    holds_with_ties: bool = True
    """Whether the properties also hold with ties, where rounding may decide."""
    tolerance: float = 1e-6
    """Absolute tolerance of comparisons."""
    examples: int = 8
    """Number of random inputs."""
    sizes: tuple[tuple[str, int], ...] = ()
    """Sizes of axes, by letter, instead of the default."""
    ties: bool = True
    """Whether it has a value on tied numbers at all."""
    reason: str = ""
    """Why a property does not hold."""


def even(value):
    return value


def odd(value):
    return -np.asarray(value)


def complement(value):
    return 1 - np.asarray(value)


def add(*steps):
    """Adds a number to each argument; None leaves it."""
    return lambda *args: [a if step is None else a + step for a, step in zip(args, steps, strict=True)]


def raise_by(*steps):
    """As ``add``, up to 1."""
    return lambda *args: [a if step is None else np.minimum(a + step, 1) for a, step in zip(args, steps, strict=True)]


def quarter(*sides):
    """Shares drawn together, at a quarter of their distances, which shifts keep in [0, 1]: high ("+") and low ones."""
    return lambda *args: [a / 4 + (0.6 if side == "+" else 0.15) for a, side in zip(args, sides, strict=True)]


def put(*values):
    """Sets all of each argument to a number; None leaves it."""
    return lambda *args: [a if v is None else np.full_like(a, v) for a, v in zip(args, values, strict=True)]


def certain(*tops):
    """Logits of 1e4 on one class for each argument."""
    return lambda *args: [a * 0 + 1e4 * (np.arange(a.shape[-1]) == top) for a, top in zip(args, tops, strict=True)]


def label_up(*signs, by=1.0, keep=True):
    """Adds to the logit of the label of each argument of logits; without ``keep`` all other logits are 0."""

    def change(*args):
        labels = [a for a in args if a.dtype.kind != "f"]
        made = [a.copy() if keep or a.dtype.kind != "f" else np.zeros_like(a) for a in args]
        for place, sign in enumerate(signs):
            truth = labels[place % len(labels)]
            made[place][..., np.arange(len(truth)), truth] += sign * by
        return made

    return change


def named(*names):
    """Two mappings from twice as many arrays."""
    return lambda args: (
        dict(zip(names, args[: len(names)], strict=True)),
        dict(zip(names, args[len(names) :], strict=True)),
    )


def draw(case, seed, rows, *, tied=False):
    generator = np.random.default_rng(seed)
    sizes, made = SIZES | dict(case.sizes), []
    for word in case.axes.split():
        shape = tuple(sizes.get(letter, rows) for letter in word.strip("#?"))
        if word[0] == "#":
            made.append(generator.integers(0, 2, shape))
        else:
            values = generator.uniform(0.05, 0.95, shape) if case.share else 2 * generator.normal(size=shape)
            if tied:
                values = np.clip(np.round(values, 1), 0.1, 0.9) if case.share else np.round(values)
            made.append(np.asarray(values))
    return made
