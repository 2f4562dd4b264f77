"""Select parameters that matter more for the forget set than for all data, and shrink them (SSD and its kin)."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from forgetbench.methods._fisher import Importance
from forgetbench.methods.base import ForgetRequest
from forgetbench.training import Examples

_log = logging.getLogger(__name__)


def dampen(
    model: nn.Module, forget: Importance, everything: Importance, alpha: float, dampening: float, request: ForgetRequest
) -> None:
    """theta_i *= min(lambda I_D / I_f, 1) where I_f > alpha I_D, in place; reports what was selected.

    Args:
        model: A copy of one's own.
        forget: I_f, by parameter name.
        everything: I_D, likewise.
        alpha: How many times more a parameter must matter for the forget set; strict.
        dampening: lambda.
        request: Takes the report.
    """
    selected = total = 0
    factors = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            chosen = forget[name] > alpha * everything[name]
            shrink = (dampening * everything[name]).div_(forget[name]).clamp_(max=1)  # no number where I_f is 0
            factors.append(shrink[chosen])
            parameter.mul_(shrink.masked_fill_(~chosen, 1.0))
            selected += int(chosen.sum())
            total += chosen.numel()
    share = selected / total
    request.report("share selected", share)
    if selected:
        request.report("median factor", float(torch.cat(factors).median()))
        request.report("parameters at zero factor", float((torch.cat(factors) == 0).float().mean()))
    if selected == 0 or share > 0.5:
        remark = "no parameter was selected: nothing changed" if selected == 0 else f"{share:.0%} were selected"
        request.report("remark", remark)
        _log.warning("%s at alpha = %.4g", remark, alpha)


def ratios(forget: Importance, everything: Importance) -> Tensor:
    """I_f / I_D of all parameters in one vector, undefined ones (0/0, x/0) left out."""
    values = torch.cat([(forget[name] / everything[name]).flatten() for name in forget])
    return values[torch.isfinite(values)]


def weighted(forget: Importance, retain: Importance, request: ForgetRequest) -> Importance:
    """I_D out of I_f and I_r, since a mean over D is the mean of its parts; it saves a pass over the forget set.

    I_r is overwritten with I_D, so that there are never three of them.
    """
    share = len(request.forget) / (len(request.forget) + len(request.retain))
    for name, value in retain.items():
        value.mul_(1 - share).add_(share * forget[name])
    return retain


def class_sorted(examples: Examples) -> Examples:
    """The examples in the order of their classes, as the data sets of released codes lie; attributes as they are."""
    return examples if examples.attributes else examples.take(torch.argsort(examples.labels, stable=True))


def warn_of_bound(alpha: float, request: ForgetRequest) -> None:
    """Say so where alpha cannot select anything: with per-example importances I_f/I_D is at most |D|/|D_f|."""
    bound = (len(request.forget) + len(request.retain)) / len(request.forget)
    if alpha >= bound:
        remark = f"alpha = {alpha:g} can select nothing: I_f/I_D is at most |D|/|D_f| = {bound:.3g}"
        request.report("bound", remark)
        _log.warning("%s; choose alpha below it", remark)
