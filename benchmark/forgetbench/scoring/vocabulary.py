"""Version and words of the protocol: verdicts, sides and flags. No imports, so that pages can use them."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Literal

PROTOCOL: Literal[2] = 2
"""Version of the protocol that scores follow."""

RETRAIN = "Retrain"
NO_UNLEARNING = "No unlearning"
PARTIAL = "Retrain without the found part"
REFERENCES = (RETRAIN, NO_UNLEARNING)
"""The two rows of every board: the control oracles, and the unmodified originals.

Boards of correction have a third, `PARTIAL`: what retraining gives in practice, where only a part of the harmful rows
was found. Their Retrain is the goal: training without any harmful row.
"""
ALL_REFERENCES = (*REFERENCES, PARTIAL)
"""The names of reference rows on boards of any track."""


def reference_rows(track: str) -> tuple[str, ...]:
    """The names of a board's rows that come from its bundle, in their order."""
    return ALL_REFERENCES if track == "corrective" else REFERENCES


Side = Literal["under-forgotten", "over-forgotten"]
"""The side of retraining on which a metric shows a row: towards the original models, or away from them."""


class Verdict(StrEnum):
    """What a row achieves, in words; the first that applies is a row's verdict (protocol section 4)."""

    COLLAPSED = "collapsed"
    REACHES_RETRAINING = "reaches retraining"
    AT_A_PRICE = "forgets at a price"
    BETTER = "better than doing nothing"
    WORSE = "worse than doing nothing"
    AS_NOTHING = "as doing nothing"


VERDICTS: dict[str, str] = {
    Verdict.COLLAPSED: "More than half of what the models knew beyond chance is lost. Not ranked.",
    Verdict.REACHES_RETRAINING: "Indistinguishable from retraining, not harmed, and not known to be recoverable.",
    Verdict.AT_A_PRICE: "Nearer to retraining than doing nothing, but accuracy is harmed.",
    Verdict.BETTER: "Nearer to retraining than doing nothing.",
    Verdict.WORSE: "Farther from retraining than doing nothing.",
    Verdict.AS_NOTHING: "Neither nearer to retraining nor farther from it than doing nothing, as far as seeds show.",
}
"""Verdict -> its meaning in one sentence."""

NEARER = frozenset({Verdict.REACHES_RETRAINING, Verdict.AT_A_PRICE, Verdict.BETTER})
"""Verdicts of rows that are nearer to retraining than No unlearning is."""
NOTHING_FORGOTTEN, COMES_BACK = "but nothing forgotten", "but it comes back"


def caveat(verdict: str | None, forgotten_low: float | None, flags: Collection[str]) -> str:
    """What a reader of the verdict alone would miss; "" if nothing.

    Args:
        verdict: The verdict of a row.
        forgotten_low: Lower end of the interval of the share forgotten.
        flags: The flags of the row.
    """
    if verdict not in (Verdict.BETTER, Verdict.AT_A_PRICE):  # what reaches retraining is in its band, and stays
        return ""
    if "recoverable" in flags:
        return COMES_BACK
    return NOTHING_FORGOTTEN if forgotten_low is not None and forgotten_low <= 0 else ""


FLAGS = {
    "under-forgotten": "The ranking metric of forgetting that is farthest out is on the side of the original models.",
    "over-forgotten": "The ranking metric of forgetting that is farthest out is beyond retraining.",
    "suspicious": "Closer to the reference oracles than retrained models are to each other.",
    "collapsed": "More than half of what the models knew beyond chance is lost. Not ranked.",
    "harmed": "Test accuracy, or that of a class or group, is clearly below the reference. Ranked.",
    "unstable": "At least one model is far below the reference.",
    "recoverable": "What was forgotten comes back without teaching the model anything.",
}
"""Flag -> its meaning in one sentence."""

RANK_INTERVALS = (
    "A rank interval excludes the ranks of rows that are found better or worse. In simulations it missed the rank of "
    "about 1 in 20 rows, and of up to 1 in 5 where noise is strongly skewed and differs a hundredfold between rows."
)
"""What boards say of their ranks; the rates are those of benchmarks/ranks.py."""
TRAINING_SEEDS_ONLY = (
    "Intervals hold the seeds of training only: each method ran once on each original (`run --repeats 3` tells the two "
    "apart)."
)
"""What boards say of their intervals where methods ran once."""
