"""What unlearning costs, as a share of what retraining costs. Values come measured; here they are only put in ratio."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import floats, layers_of, number

BUDGETS = (0.01, 0.05, 0.20, 1.00)
"""Upper ends of the budget classes, in FLOPs over retraining's."""


class Cost(BaseModel):
    """The cost of one method on one task; None where it was not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flops: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """FLOPs of ``unlearn``, everything included, over retraining's."""
    training: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """FLOPs of training one original of the method's own over retraining's; None where it takes the board's."""
    wall: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Wall time over retraining's on the same device in the same run; informational."""
    memory: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Peak memory over retraining's, on a GPU."""
    changed: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Share of the parameters that changed."""
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Wall time of ``unlearn`` itself, in seconds."""
    trials: int | None = Field(default=None, ge=0)
    """Tuning trials spent on the hyper-parameters."""
    requests: int = Field(default=1, ge=1)
    """Requests of the stream over which the cost is spread."""

    @property
    def budget(self) -> str | None:
        """The budget class: the smallest of 1 %, 5 %, 20 %, 100 % that the FLOPs fit in, or "over 100 %"."""
        return None if self.flops is None else budget_class(self.flops)


def cost_ratio(method: float, retraining: float) -> float:
    """Cost of a method over the cost of retraining, both in the same unit: FLOPs, seconds, or bytes at the peak.

    Raises:
        UsageError: Retraining cost nothing, or one of them is negative or not finite.
    """
    mine, whole = number(method, "cost of the method"), number(retraining, "cost of retraining")
    if not (whole > 0 and mine >= 0):
        raise UsageError(f"Costs are positive: {method} over {retraining} cannot be put in ratio.")
    return mine / whole


def amortized(per_request: ArrayLike, retraining_per_request: ArrayLike) -> float:
    """Cost of all requests of a stream over the cost of retraining after each."""
    mine, whole = (floats(side, "costs", ndim=1) for side in (per_request, retraining_per_request))
    if len(mine) != len(whole) or not len(mine):
        raise UsageError("A stream needs the cost of every request, on both sides.")
    if min(mine.min(), whole.min()) < 0:
        raise UsageError("Costs are positive: that of a request is below 0.")
    return cost_ratio(float(mine.sum()), float(whole.sum()))


def share_changed(before: Sequence[ArrayLike], after: Sequence[ArrayLike]) -> float:
    """Share of a model's weights that are another number afterwards.

    Args:
        before: Weights of each layer of the original.
        after: The same of the unlearned model.
    """
    pairs = layers_of(before, after)
    return float(sum((one != two).sum() for one, two in pairs) / sum(one.size for one, _ in pairs))


def budget_class(flops: float) -> str:
    """Name of the budget class of a FLOPs ratio."""
    for limit in BUDGETS:
        if flops <= limit:
            return f"{limit * 100:.0f} %"
    return "over 100 %"
