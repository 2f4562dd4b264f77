"""Networks by name: their definitions, initial weights and pretrained checkpoints. Listing them needs no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from forgetbench.registry import Registry

if TYPE_CHECKING:
    from forgetbench.networks.base import Body, ImageShape, Network, NetworkSpec, build_network

__all__ = ["Body", "ImageShape", "Network", "NetworkSpec", "build_network", "networks"]

networks: Registry[Callable[..., Body]] = Registry(
    "network", entry_points="forgetbench.networks", package="forgetbench.networks"
)
"""Name -> function that builds the network's body."""


def __getattr__(name: str) -> Any:
    """Import the names of :mod:`forgetbench.networks.base` when they are used: they need torch."""
    if name in __all__:
        return getattr(importlib.import_module("forgetbench.networks.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
