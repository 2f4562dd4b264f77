"""A method in a user's file, which engines send to their workers."""

import copy
from dataclasses import dataclass

from forgetbench.methods import Method


@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    """Returns a copy."""

    def unlearn(self, model, request):  # type: ignore[no-untyped-def] # noqa: ARG002
        return copy.deepcopy(model)
