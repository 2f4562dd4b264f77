"""Shared by SSD, LFSSD and ASSD: importances over all data, the order of batches, and a warning about alpha."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from forgetbench.errors import UsageError
from forgetbench.methods._fisher import Importance
from forgetbench.methods.base import Examples, ForgetRequest

_log = logging.getLogger(__name__)

ORDERS = ("auto", "class", "fine", "shuffled", "stored")
"""Orders of the data for importances per batch; see `in_order`."""


def average_importances(forget: Importance, retain: Importance, request: ForgetRequest) -> Importance:
    """I_D from I_f and I_r: a mean over all data is the weighted mean of its parts, which saves a pass over D_f.

    I_r is overwritten with I_D, so that there are never three in memory.
    """
    forget_ratio = len(request.forget) / (len(request.forget) + len(request.retain))
    for name, value in retain.items():
        value.mul_(1 - forget_ratio).add_(forget_ratio * forget[name])
    return retain


def in_order(request: ForgetRequest, order: str) -> tuple[Examples, Examples]:
    """The forget set and the retain set in the order of their batches.

    Args:
        request: The sets; the order is logged.
        order: "class" sorts the retain set by class (attributes are not sorted), "fine" by fine class, "shuffled" draws
            both at random, "stored" keeps the order of the image set. "auto" does as released code: "class" if whole
            classes are forgotten, "fine" if whole fine classes are, and otherwise "shuffled".

    Raises:
        UsageError: The order is "fine", and the image set has no fine classes.
    """
    order = _released_order(request) if order == "auto" else order
    request.log("order of the data", order)
    forget, retain = request.forget, request.retain
    if order == "shuffled":
        rows = torch.randperm(len(forget), generator=request.generator(7, 0))
        return forget.take(rows), retain.take(torch.randperm(len(retain), generator=request.generator(7, 1)))
    if order == "fine":
        if request.retain_fine_labels is None:
            raise UsageError("order=fine needs an image set with fine classes. Use order=class.")
        return forget, retain.take(torch.argsort(request.retain_fine_labels, stable=True))
    if order == "class" and not retain.attributes:
        return forget, retain.take(torch.argsort(retain.labels, stable=True))
    return forget, retain


def _released_order(request: ForgetRequest) -> str:
    if not request.forget.attributes and _disjoint(request.forget.labels, request.retain.labels):
        return "class"
    forget, retain = request.forget_fine_labels, request.retain_fine_labels
    return "fine" if forget is not None and retain is not None and _disjoint(forget, retain) else "shuffled"


def _disjoint(first: Tensor, second: Tensor) -> bool:
    return not set(first.tolist()) & set(second.tolist())


def warn_if_alpha_too_large(alpha: float, request: ForgetRequest) -> None:
    """Warn if alpha cannot select anything: with importances per example, I_f/I_D is at most |D|/|D_f|."""
    bound = (len(request.forget) + len(request.retain)) / len(request.forget)
    if alpha >= bound:
        warning = f"alpha = {alpha:g} selects nothing, because I_f/I_D is at most |D|/|D_f| = {bound:.3g}"
        request.log("bound", warning)
        _log.warning("%s; choose a smaller alpha", warning)
