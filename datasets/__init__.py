"""Image sets, one file each, and the scenarios that say what is to be forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forgetbench.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from forgetbench.datasets.base import Loader
    from forgetbench.datasets.types import Partition

datasets: Registry[type[Loader]] = Registry("image set", entry_points="forgetbench.datasets")
datasets.register("casia100", "forgetbench.datasets.identity_folders:Casia100")
datasets.register("celeba", "forgetbench.datasets.celeba:Celeba")
datasets.register("cifar10", "forgetbench.datasets.torchvision_sets:Cifar10")
datasets.register("cifar10-jpeg", "forgetbench.datasets.cifar10_jpeg:Cifar10Jpeg")
datasets.register("cifar100", "forgetbench.datasets.torchvision_sets:Cifar100")
datasets.register("cifar20", "forgetbench.datasets.torchvision_sets:Cifar20")
datasets.register("cmu-faces", "forgetbench.datasets.cmu_faces:CmuFaces")
datasets.register("digits", "forgetbench.datasets.digits:Digits")
datasets.register("faces", "forgetbench.datasets.synthetic_faces:Faces")
datasets.register("fashion-mnist", "forgetbench.datasets.torchvision_sets:FashionMnist")
datasets.register("folder", "forgetbench.datasets.folder:Folder")
datasets.register("lfw", "forgetbench.datasets.identity_folders:Lfw")
datasets.register("mnist", "forgetbench.datasets.torchvision_sets:Mnist")
datasets.register("mucac", "forgetbench.datasets.celeba:Mucac")
datasets.register("mufac", "forgetbench.datasets.mufac:Mufac")
datasets.register("orl", "forgetbench.datasets.orl:Orl")
datasets.register("pins", "forgetbench.datasets.identity_folders:Pins")
datasets.register("svhn", "forgetbench.datasets.torchvision_sets:Svhn")


def make_loader(name: str, options: Mapping[str, Any] | None = None) -> Loader:
    """The loader of an image set with these options.

    Raises:
        UsageError: There is no such image set or option, or a value does not fit.
    """
    return datasets.get(name).from_mapping(options or {})


def load_partition(name: str, options: Mapping[str, Any] | None = None, root: Path | None = None) -> Partition:
    """An image set in its parts.

    Args:
        name: Name in the registry; ``forgetbench list datasets`` shows them.
        options: Options of the set; ``forgetbench show dataset NAME`` shows them.
        root: The data folder, for sets that need files.

    Raises:
        UsageError: Name, option or files are wrong; the message says which and how to mend it.
    """
    return make_loader(name, options).load(root)
