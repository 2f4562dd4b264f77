"""Networks by name: their definitions, initial weights and pretrained checkpoints. Listing them needs no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from forgetbench.registry import Registry

if TYPE_CHECKING:
    from forgetbench.networks.base import Architecture, Body, ImageShape, Network, NetworkSpec, build_network

__all__ = ["Architecture", "Body", "ImageShape", "Network", "NetworkSpec", "build_network", "networks"]

networks: Registry[type[Architecture]] = Registry(
    "network", entry_points="forgetbench.networks", package="forgetbench.networks"
)
"""Name -> class of the network's options, which builds its body."""


def __getattr__(name: str) -> Any:
    """Import the names of :mod:`forgetbench.networks.base` when they are used: they need torch."""
    if name in __all__:
        return getattr(importlib.import_module("forgetbench.networks.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
