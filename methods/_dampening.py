"""Shared by SSD, LFSSD and ASSD: importances over all data, class order, and a warning about alpha."""

from __future__ import annotations

import logging

import torch

from forgetbench.methods._fisher import Importance
from forgetbench.methods.base import Examples, ForgetRequest

_log = logging.getLogger(__name__)


def average_importances(forget: Importance, retain: Importance, request: ForgetRequest) -> Importance:
    """I_D from I_f and I_r: a mean over all data is the weighted mean of its parts, which saves a pass over D_f.

    I_r is overwritten with I_D, so that there are never three in memory.
    """
    forget_ratio = len(request.forget) / (len(request.forget) + len(request.retain))
    for name, value in retain.items():
        value.mul_(1 - forget_ratio).add_(forget_ratio * forget[name])
    return retain


def all_in_released_order(request: ForgetRequest) -> Examples:
    """All training examples in the order of released code: the retain set by class, then the forget set."""
    return sorted_by_class(request.retain).join(request.forget)


def sorted_by_class(examples: Examples) -> Examples:
    """The examples in the order of their classes; examples with attributes in their own order."""
    return examples if examples.attributes else examples.take(torch.argsort(examples.labels, stable=True))


def warn_if_alpha_too_large(alpha: float, request: ForgetRequest) -> None:
    """Warn if alpha cannot select anything: with importances per example, I_f/I_D is at most |D|/|D_f|."""
    bound = (len(request.forget) + len(request.retain)) / len(request.forget)
    if alpha >= bound:
        warning = f"alpha = {alpha:g} selects nothing, because I_f/I_D is at most |D|/|D_f| = {bound:.3g}"
        request.log("bound", warning)
        _log.warning("%s; choose a smaller alpha", warning)
