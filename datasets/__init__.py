"""Image sets, one file each, and the scenarios that choose which images are forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forgetbench.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from forgetbench.datasets.base import Loader
    from forgetbench.datasets.types import Partition

datasets: Registry[type[Loader]] = Registry(
    "image set", entry_points="forgetbench.datasets", package="forgetbench.datasets"
)
"""Name -> loader class."""


def make_loader(name: str, options: Mapping[str, Any] | None = None) -> Loader:
    """Return the loader of an image set with these options.

    Args:
        name: Name in the registry; ``forgetbench list datasets`` shows them.
        options: Options of the image set; ``forgetbench show dataset NAME`` shows them.

    Raises:
        UsageError: The image set or an option is unknown, or a value does not fit.
    """
    return datasets.get(name).from_dict(options or {})


def load_partition(name: str, options: Mapping[str, Any] | None = None, root: Path | None = None) -> Partition:
    """Read an image set and split it into its parts.

    Args:
        name: Name in the registry; ``forgetbench list datasets`` shows them.
        options: Options of the image set; ``forgetbench show dataset NAME`` shows them.
        root: The data folder, for image sets that need files.

    Raises:
        UsageError: Name, option or files are wrong; the message says which, and how to fix it.
    """
    return make_loader(name, options).load(root)
