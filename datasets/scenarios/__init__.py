"""Scenarios: the rules that draw the forget set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forgetbench.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forgetbench.datasets.scenarios.base import Scenario

scenarios: Registry[type[Scenario]] = Registry(
    "scenario", entry_points="forgetbench.scenarios", package="forgetbench.datasets.scenarios"
)


def make_scenario(name: str, options: Mapping[str, Any] | None = None) -> Scenario:
    """Return the scenario of this name with these options.

    Args:
        name: Name in the registry; ``forgetbench list scenarios`` shows them.
        options: Options of the scenario; ``forgetbench show scenario NAME`` shows them.

    Raises:
        UsageError: The scenario or an option is unknown, or a value does not fit.
    """
    return scenarios.get(name).from_dict(options or {})
