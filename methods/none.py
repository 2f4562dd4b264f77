"""No unlearning: the original as it is, a row that stands on every board."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods.base import ForgetRequest, Method, MethodCard


@dataclass(frozen=True, kw_only=True)
class NoUnlearning(Method):
    """Return the original, untouched."""

    card: ClassVar[MethodCard] = MethodCard(
        name="none",
        title="No unlearning: the original, untouched",
        authors="",
        year=None,
        venue="this benchmark",
        link="",
        bibtex="",
        family="reference",
        needs=frozenset(),
        random=False,
        reference=True,
        fails_at="forgetting anything",
    )

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:  # noqa: ARG002
        """A copy of the model."""
        return copy.deepcopy(model)
