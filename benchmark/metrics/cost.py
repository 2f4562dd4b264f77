"""What unlearning costs, as a share of what retraining costs. Values come measured; here they are only put in ratio."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from forgetbench.errors import UsageError

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


def ratio(method: float, retraining: float) -> float:
    """Cost of a method over the cost of retraining, both in the same unit.

    Raises:
        UsageError: Retraining cost nothing, or one of them is negative.
    """
    if not (retraining > 0 and method >= 0):
        raise UsageError(f"Costs are positive: {method} over {retraining} cannot be put in ratio.")
    return method / retraining


def amortised(per_request: list[float], retraining_per_request: list[float]) -> float:
    """Cost of all requests of a stream over the cost of retraining after each."""
    if len(per_request) != len(retraining_per_request) or not per_request:
        raise UsageError("A stream needs the cost of every request, on both sides.")
    return ratio(sum(per_request), sum(retraining_per_request))


def budget_class(flops: float) -> str:
    """Name of the budget class of a FLOPs ratio."""
    for limit in BUDGETS:
        if flops <= limit:
            return f"{limit * 100:.0f} %"
    return "over 100 %"
