"""Cost of unlearning as a share of the cost of retraining, from measured values."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from forgetbench.errors import UsageError
from forgetbench.metrics._validation import at_least, layers_of, number
from forgetbench.metrics.registry import MetricSpec, metric

BUDGETS = (0.01, 0.05, 0.20, 1.00)
"""Upper limits of the budget classes, in FLOPs over retraining's."""


class Cost(BaseModel):
    """The cost of one method on one task; None if not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flops: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """FLOPs of ``unlearn``, everything included, over retraining's."""
    training: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """FLOPs of training one original over retraining's, for methods that train their own; None for the others."""
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


@metric(
    MetricSpec(
        name="flops",
        title="FLOPs",
        group="cost",
        unit="ratio",
        direction="down",
        range=(0.0, None),
        requires=("cost",),
        meaning="FLOPs of unlearning over retraining's, everything included; budget classes 1, 5, 20 and 100 %.",
        misses="Time: memory traffic and small kernels cost no FLOPs. Tuning, whose trials are counted separately.",
        misuse="Leaving out Fisher passes, teachers or noise; torch's counter overcounts vmapped gradients.",
        formula=(
            "FLOPs of unlearn over those of training one oracle, by torch's counter in a separate, untimed run on one "
            "seed; a gradient of a single row counts as its share of one batched backward pass"
        ),
        example="4e10 against 1e12: 0.04, in the class of 5 %.",
        source="Protocol, section 3.",
        calibrated=False,
        on_boards=False,
    ),
    MetricSpec(
        name="wall",
        title="wall time",
        group="cost",
        unit="ratio",
        direction="down",
        range=(0.0, None),
        requires=("cost",),
        meaning="Wall time of unlearning over retraining's, on the same device in the same run; informational.",
        misses="Runs whose oracles came from the store, or whose jobs ran in parallel: it is left out there.",
        misuse="Comparing devices, or timing evaluation: only unlearning is timed.",
        formula="mean seconds of unlearn over mean seconds of training one oracle, the device synchronized",
        example="1.5 s against 60 s: 0.025.",
        source="Protocol, section 3.",
        calibrated=False,
        on_boards=False,
    ),
    MetricSpec(
        name="memory",
        title="peak memory",
        group="cost",
        unit="ratio",
        direction="down",
        range=(0.0, None),
        requires=("peak memory",),
        meaning="Peak memory of unlearning over retraining's, on a GPU.",
        misses="The CPU. Runs record the bytes of unlearning and not yet retraining's, so no row shows the ratio.",
        misuse="Reading what the allocator has reserved, which never shrinks.",
        formula="most bytes allocated during unlearn over most bytes allocated while one oracle is trained",
        example="6 GiB against 4 GiB: 1.5.",
        source="Protocol, section 3.",
        calibrated=False,
        on_boards=False,
    ),
)
def cost_ratio(method: float, retraining: float) -> float:
    """Cost of a method over the cost of retraining, both in the same unit: FLOPs, seconds, or bytes at the peak.

    Raises:
        UsageError: Retraining cost nothing, or one of them is negative or not finite.
    """
    numerator, denominator = number(method, "cost of the method"), number(retraining, "cost of retraining")
    if not (denominator > 0 and numerator >= 0):
        raise UsageError(f"A cost ratio needs positive costs, not {method} over {retraining}.")
    return numerator / denominator


@metric(
    MetricSpec(
        name="amortized",
        title="amortized cost",
        group="cost",
        unit="ratio",
        direction="down",
        range=(0.0, None),
        requires=("costs by request",),
        meaning="Cost of all requests of a stream over that of retraining after each.",
        misses="Which request was expensive.",
        misuse="Dividing by one retraining: that flatters methods that serve few requests.",
        formula="sum over requests of unlearn's FLOPs over the sum of retraining's after each request",
        example="1 and 3 against 10 and 10: 0.2.",
        source="Protocol, section 3.",
        calibrated=False,
        on_boards=False,
    )
)
def amortized(per_request: ArrayLike, retraining_per_request: ArrayLike) -> float:
    """Cost of all requests of a stream over the cost of retraining after each."""
    unlearning, retraining = (at_least(side, "costs", ndim=1) for side in (per_request, retraining_per_request))
    if len(unlearning) != len(retraining) or not len(unlearning):
        raise UsageError("A stream needs the cost of every request, on both sides.")
    return cost_ratio(float(unlearning.sum()), float(retraining.sum()))


@metric(
    MetricSpec(
        name="changed",
        title="weights changed",
        group="cost",
        direction="down",
        requires=("cost",),
        meaning="Share of the weights that differ after unlearning; a small share is cheap to store.",
        misses="By how much: one step of fine-tuning changes all.",
        misuse="Reading it as forgetting: a change of one layer may forget all, and a change of all layers nothing.",
        formula="number of weights that differ from the original's over all weights, averaged over models",
        example="(1, 2, 3, 4) to (1, 2, 0, 4): 0.25.",
        source="Protocol, section 3.",
        calibrated=False,
        on_boards=False,
    )
)
def share_changed(before: Sequence[ArrayLike], after: Sequence[ArrayLike]) -> float:
    """Share of a model's weights that differ afterwards.

    Args:
        before: Weights of each layer of the original.
        after: The same of the unlearned model.
    """
    pairs = layers_of(before, after)
    return float(sum((one != two).sum() for one, two in pairs) / sum(one.size for one, _ in pairs))


def budget_class(flops: float) -> str:
    """Name of the budget class of a FLOPs ratio, which is at least 0."""
    flops = float(at_least(flops, "flops", ndim=0))
    for limit in BUDGETS:
        if flops <= limit:
            return f"{limit * 100:.0f} %"
    return "over 100 %"
