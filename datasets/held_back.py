"""Validation pictures for splits that somebody published without any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from forgetbench.datasets.problems import problem_error
from forgetbench.datasets.sampling import people_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray


def held_back(
    people: NDArray[np.int64], barred: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """All rows of some people drawn at random, who are then neither trained on nor tested on.

    So the published test set stays whole, nothing is chosen on it, and what is forgotten stays as published; the price
    is that fewer rows are retained than were published.

    Args:
        people: (N,), who is seen, over all rows of the set.
        barred: (N,), rows that have to stay where they are, and with them everybody who is seen in one: those to be
            forgotten, those of the test set, those of unseen people.
        share: Of the people who are left, at least one.
        rng: Where the randomness comes from.

    Returns:
        Sorted row numbers.

    Raises:
        FileProblems: Fewer than two people are left.
    """
    free = np.flatnonzero(~np.isin(people, people[barred]))
    count = len(np.unique(people[free]))
    if count < 2:
        where = (
            f"Validation pictures are those of some people of whom nothing is forgotten or tested, and there are "
            f"{count} such people; two are needed"
        )
        raise problem_error("too few people", where, "Get the whole set, or take another split.")
    return free[people_parts(people[free], [max(1, round(share * count))], rng)[0]]
