"""Specs of what comes from a run's records: what unlearning costs, and what becomes of a stream's earlier requests."""

from __future__ import annotations

from typing import Any

from forgetbench.metrics.registry import MetricSpec, metrics


def _recorded(name: str, title: str, **fields: Any) -> MetricSpec:
    given: dict[str, Any] = {"symbol": title, "group": "cost", "unit": "ratio", "direction": "down"}
    given |= {"range": (0.0, None), "requires": ("cost",), "source": "Protocol, section 3."}
    return MetricSpec(name=name, title=title, on_boards=False, calibrated=False, **(given | fields))


def _costs() -> list[MetricSpec]:
    return [
        _recorded(
            "flops",
            "FLOPs",
            meaning="FLOPs of unlearning over retraining's, everything included; budget classes 1, 5, 20 and 100 %.",
            misses="Time: memory traffic and small kernels cost no FLOPs. Tuning, whose trials are counted apart.",
            misuse="Leaving out Fisher passes, teachers or noise; torch's counter overcounts vmapped gradients.",
            formula=(
                "FLOPs of unlearn over those of training one oracle, by torch's counter in a separate, untimed run on "
                "one seed; a gradient of a single row counts as its share of one batched backward pass"
            ),
            example="4e10 against 1e12: 0.04, in the class of 5 %.",
            function="cost.cost_ratio",
        ),
        _recorded(
            "wall",
            "wall time",
            meaning="Wall time of unlearning over retraining's, on the same device in the same run; informational.",
            misses="Runs whose oracles came from the store, or whose jobs ran side by side: left out there.",
            misuse="Comparing devices, or timing evaluation: the clock holds unlearning alone.",
            formula="mean seconds of unlearn over mean seconds of training one oracle, the device synchronized",
            example="1.5 s against 60 s: 0.025.",
            function="cost.cost_ratio",
        ),
        _recorded(
            "memory",
            "peak memory",
            requires=("peak memory",),
            meaning="Peak memory of unlearning over retraining's, on a GPU.",
            misses="The CPU. Runs record the bytes of unlearning and not yet retraining's, so no row shows the ratio.",
            misuse="Reading what the allocator has reserved, which never shrinks.",
            formula="most bytes allocated during unlearn over most bytes allocated while one oracle is trained",
            example="6 GiB against 4 GiB: 1.5.",
            function="cost.cost_ratio",
        ),
        _recorded(
            "changed",
            "weights changed",
            unit="share",
            range=(0.0, 1.0),
            meaning="Share of the weights that are another number after unlearning; small is cheap to keep.",
            misses="By how much: one step of fine-tuning changes all.",
            misuse="Reading it as forgetting: a single layer may forget all, and all layers nothing.",
            formula="number of weights that differ from the original's over all weights, averaged over models",
            example="(1, 2, 3, 4) to (1, 2, 0, 4): 0.25.",
            function="cost.share_changed",
        ),
        _recorded(
            "amortized",
            "amortized cost",
            requires=("costs by request",),
            meaning="Cost of all requests of a stream over that of retraining after each.",
            misses="Which request was dear.",
            misuse="Dividing by one retraining: that flatters whoever serves few requests.",
            formula="sum over requests of unlearn's FLOPs over the sum of retraining's after each request",
            example="1 and 3 against 10 and 10: 0.2.",
            function="cost.amortized",
        ),
    ]


def _streams() -> list[MetricSpec]:
    return [
        _recorded(
            "accuracy.earlier",
            "accuracy on earlier requests",
            symbol="A_earlier",
            group="erasure",
            unit="share",
            direction="band",
            range=(0.0, 1.0),
            requires=("requests",),
            meaning="Accuracy after a request on what the requests before it took away; read it beside the oracle's.",
            misses="Requests that come back while others sink: it is their mean (re-emergence takes the largest rise).",
            misuse="Reading it on training images as an erasure: an oracle still answers most of them rightly.",
            formula=(
                "after request k, mean over requests j < k of the accuracy on what j took away: test images of its "
                "classes, or its own training images where it takes no class; averaged over seeds"
            ),
            example="After the third request 0.1 on the first's classes and 0.3 on the second's: 0.2.",
            function="utility.accuracy",
        ),
        _recorded(
            "re-emergence",
            "re-emergence",
            group="erasure",
            unit="share",
            range=(0.0, 1.0),
            requires=("requests",),
            meaning="Largest rise of accuracy on what a request took away, over the later requests; 0 stays away.",
            misses="What never went: a request that forgot nothing cannot rise.",
            misuse="Counting from before the request: only what comes back after it is a rise.",
            formula=(
                "max over requests j and later steps k of A_k(j) - min over j <= i <= k of A_i(j), by seed, then "
                "averaged"
            ),
            example="0.1, 0.5, 0.2, 0.4 after the request and each later one: 0.4.",
            function="erasure.reemergence",
        ),
    ]


def register() -> None:
    """Add this file's specs to the registry."""
    for spec in (*_costs(), *_streams()):
        metrics.register(spec.name, spec)


register()
