"""CIFAR, SVHN, MNIST and Fashion-MNIST, read through torchvision and verified by hash."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._sampling import stratified_split
from forgetbench.datasets.base import Loader, make_rng
from forgetbench.datasets.problems import Problem, collect_or_raise, problem_error, summarize_names
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.errors import ForgetBenchError
from forgetbench.options import option

if TYPE_CHECKING:
    from collections.abc import Mapping


DOWNLOAD = "`forgetbench data prepare` downloads it."


@dataclass(frozen=True, kw_only=True)
class OfficialLoader(Loader):
    """Base of loaders of image sets with an official training and test set.

    Validation images are taken from the test set, so that the whole training set is available for training and
    published index files apply.
    """

    train: int | None = option(None, "Training images, stratified by class; none: all.", ge=2)
    test: int | None = option(None, "Test images, stratified by class; none: all that are not for validation.", ge=1)
    validation: int = option(1000, "Validation images, stratified by class, taken from the test set.", ge=1)
    seed: int = option(0, "Seed of the selection.", ge=0)

    def split_official(self, train: ImageSet, test: ImageSet) -> Partition:
        """Split the official sets as the options say.

        Args:
            train: The official training set.
            test: The official test set.

        Raises:
            ImageSetError: The options need more images than there are.
        """
        test_count = len(test) - self.validation if self.test is None else self.test
        needs = (("train", train, self.train or 0), ("test", test, self.validation + max(test_count, 1)))
        for part, images, needed in needs:
            if needed > len(images):
                message = (
                    f"{self.option_owner}: the {part} set has {len(images)} images; options train, test and validation "
                    f"need {self.train or 'all'}, {test_count} and {self.validation}"
                )
                raise problem_error("too few images", message, "Reduce these options.")
        rng = make_rng("official", self.card.name, self.seed)
        sizes = [self.validation, test_count]
        validation_rows, test_rows = stratified_split(_stratification_labels(test), sizes, rng, test.first_copy)
        if self.train is not None and self.train < len(train):
            train = train.take(stratified_split(_stratification_labels(train), [self.train], rng)[0])
        validation, tested = test.take(validation_rows), test.take(test_rows)
        return Partition(self.card.name, train, validation, tested, None, self.card)


def _stratification_labels(images: ImageSet) -> np.ndarray:
    """Return the finest classes that are known."""
    return images.labels if images.fine_labels is None else images.fine_labels


SUPERCLASSES = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""Superclass of CIFAR-100 -> its classes."""


@dataclass(frozen=True, kw_only=True)
class TorchvisionLoader(OfficialLoader):
    """Base of image sets that torchvision reads. Loading never downloads; :meth:`prepare` does."""

    torchvision_class: ClassVar[str]
    """Name of the class in ``torchvision.datasets``."""
    split_arguments: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]]] = ({"train": True}, {"train": False})
    """Arguments of that class for the training and the test set."""
    expects: ClassVar[str]
    """Folder that torchvision creates, or a file in it."""

    def load(self, root: Path | None) -> Partition:
        """Read both sets.

        Raises:
            ImageSetError: Files are missing or damaged, or the options need more images than there are.
        """
        train, test = (self._image_set(data) for data in self._open(self._folder(root), download=False))
        return self.split_official(train, test)

    def prepare(self, root: Path) -> None:
        """Download missing files into the data folder, verified by hash.

        Args:
            root: The data folder.

        Raises:
            ForgetBenchError: The download failed.
        """
        try:
            self._open(root, download=True)
        except (OSError, RuntimeError) as error:
            raise ForgetBenchError(
                f"{self.option_owner} could not be downloaded: {error}. Check the network (and its proxy) and try "
                f"again, or get the files elsewhere ({self.card.homepage}) and put them into {root}: {self.card.layout}"
            ) from error

    def _folder(self, root: Path | None) -> Path:
        return self.find_folder(root, self.card.name, expects=self.expects)

    def _open(self, root: Path, *, download: bool) -> list[Any]:
        """Return torchvision's training and test set."""
        import torchvision.datasets

        reader = getattr(torchvision.datasets, self.torchvision_class)
        try:
            return [reader(root, download=download, **arguments) for arguments in self.split_arguments]
        except Exception as error:  # a damaged file raises whatever its bytes lead to
            if download:
                raise
            message = f"{self.option_owner}: files in {root} are missing or damaged. Expected: {self.card.layout}"
            names = _missing_or_damaged(reader, root)
            message += f"; wrong: {summarize_names(names)}" if names else ""
            raise problem_error("damaged file", message, f"Remove the damaged files; {DOWNLOAD}") from error

    @abstractmethod
    def _image_set(self, data: Any) -> ImageSet:
        """Convert one of torchvision's sets."""


def _missing_or_damaged(reader: Any, root: Path) -> list[str]:
    """Return the files whose MD5, which torchvision knows, is another one; missing files are marked as such."""
    from torchvision.datasets.utils import check_integrity

    splits = getattr(reader, "split_list", {})
    listed = [tuple(splits[part][-2:]) for part in ("train", "test") if part in splits]
    listed += [*getattr(reader, "train_list", ()), *getattr(reader, "test_list", ())]
    meta = getattr(reader, "meta", {})
    listed += [(meta["filename"], meta["md5"])] if "filename" in meta else []
    folder = root / getattr(reader, "base_folder", "")
    paths = [(folder / name, md5) for name, md5 in listed]
    return [
        str(path) if path.is_file() else f"{path} (missing)"
        for path, md5 in paths
        if not check_integrity(str(path), md5)
    ]


def _cifar_card(name: str, title: str, classes: str, layout: str) -> DatasetCard:
    return DatasetCard(
        name=name,
        title=title,
        description=f"60,000 color images of 32x32 pixels in {classes}.",
        license="unknown; cite Krizhevsky 2009",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        citation="A. Krizhevsky (2009). Learning Multiple Layers of Features from Tiny Images",
        downloads=True,
        layout=layout,
        obtain=DOWNLOAD,
    )


@datasets.register("cifar10")
@dataclass(frozen=True, kw_only=True)
class Cifar10(TorchvisionLoader):
    """CIFAR-10."""

    torchvision_class: ClassVar[str] = "CIFAR10"
    expects: ClassVar[str] = "cifar-10-batches-py"
    card: ClassVar[DatasetCard] = _cifar_card(
        "cifar10", "CIFAR-10", "ten classes", "cifar-10-batches-py/data_batch_{1..5}, test_batch, batches.meta"
    )

    def _image_set(self, data: Any) -> ImageSet:
        labels = np.array(data.targets, dtype=np.int64)
        return ImageSet(images=data.data.transpose(0, 3, 1, 2), labels=labels, classes=tuple(data.classes))


@datasets.register("cifar100")
@dataclass(frozen=True, kw_only=True)
class Cifar100(Cifar10):
    """CIFAR-100 with its hundred classes."""

    torchvision_class: ClassVar[str] = "CIFAR100"
    expects: ClassVar[str] = "cifar-100-python"
    card: ClassVar[DatasetCard] = _cifar_card(
        "cifar100", "CIFAR-100", "a hundred classes", "cifar-100-python/train, test, meta"
    )


@datasets.register("cifar20")
@dataclass(frozen=True, kw_only=True)
class Cifar20(Cifar100):
    """CIFAR-100 with its twenty superclasses as labels and its hundred classes as fine labels."""

    card: ClassVar[DatasetCard] = _cifar_card(
        "cifar20",
        "CIFAR-20 (superclasses of CIFAR-100)",
        "twenty superclasses of five classes each",
        "cifar-100-python/train, test, meta",
    )

    def _image_set(self, data: Any) -> ImageSet:
        fine, fine_names = np.array(data.targets, dtype=np.int64), tuple(data.classes)
        names = tuple(SUPERCLASSES)
        superclass = {member: number for number, name in enumerate(names) for member in SUPERCLASSES[name]}
        coarse = np.array([superclass[name] for name in fine_names], dtype=np.int64)
        images = data.data.transpose(0, 3, 1, 2)
        return ImageSet(images=images, labels=coarse[fine], classes=names, fine_labels=fine, fine_classes=fine_names)


@datasets.register("svhn")
@dataclass(frozen=True, kw_only=True)
class Svhn(TorchvisionLoader):
    """Street View House Numbers, cropped digits, without the extra training set."""

    torchvision_class: ClassVar[str] = "SVHN"
    split_arguments: ClassVar[tuple[Mapping[str, Any], Mapping[str, Any]]] = (
        {"split": "train"},
        {"split": "test"},
    )
    expects: ClassVar[str] = "train_32x32.mat"
    card: ClassVar[DatasetCard] = DatasetCard(
        name="svhn",
        title="SVHN",
        description="99,289 digits of house numbers, 32x32 pixels in color, in ten classes.",
        license="non-commercial use",
        homepage="http://ufldl.stanford.edu/housenumbers/",
        citation="Y. Netzer et al. (2011). Reading Digits in Natural Images with Unsupervised Feature Learning",
        downloads=True,
        layout="train_32x32.mat, test_32x32.mat",
        obtain=DOWNLOAD,
    )

    def _image_set(self, data: Any) -> ImageSet:
        return ImageSet(images=data.data, labels=data.labels.astype(np.int64), classes=tuple("0123456789"))


@datasets.register("mnist")
@dataclass(frozen=True, kw_only=True)
class Mnist(TorchvisionLoader):
    """MNIST."""

    torchvision_class: ClassVar[str] = "MNIST"
    expects: ClassVar[str] = "MNIST/raw"
    raw_md5: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    """Unpacked file -> MD5: torchvision verifies only the archives, and only when it downloads them."""
    card: ClassVar[DatasetCard] = DatasetCard(
        name="mnist",
        title="MNIST",
        description="70,000 handwritten digits, 28x28 gray pixels, in ten classes.",
        license="CC BY-SA 3.0",
        homepage="http://yann.lecun.com/exdb/mnist/",
        citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998). Gradient-based learning applied to document "
        "recognition",
        downloads=True,
        layout="MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte",
        obtain=DOWNLOAD,
    )

    def _open(self, root: Path, *, download: bool) -> list[Any]:
        if not download:
            self._verify(root / self.expects)
        return super()._open(root, download=download)

    def _verify(self, folder: Path) -> None:
        """Refuse files that differ from the published ones, and older files that torchvision would read instead."""
        from torchvision.datasets.utils import check_integrity

        problems = []
        for name, md5 in self.raw_md5.items():
            path = folder / name
            if path.is_file() and not check_integrity(str(path), md5):
                message = f"{self.option_owner}: {path} is not the published file, whose MD5 is {md5}"
                problems.append(Problem("not the published file", message, f"Remove it; {DOWNLOAD}"))
        older = folder.parent / "processed"
        if older.is_dir():
            message = f"{self.option_owner}: {older} is from an old version of torchvision and cannot be verified"
            problems.append(Problem("not the published file", message, "Remove the folder."))
        collect_or_raise(problems, None)

    def _image_set(self, data: Any) -> ImageSet:
        classes = tuple(name.split(" - ")[0] for name in data.classes)
        return ImageSet(
            images=data.data.numpy()[:, None], labels=data.targets.numpy().astype(np.int64), classes=classes
        )


@datasets.register("fashion-mnist")
@dataclass(frozen=True, kw_only=True)
class FashionMnist(Mnist):
    """Fashion-MNIST."""

    torchvision_class: ClassVar[str] = "FashionMNIST"
    expects: ClassVar[str] = "FashionMNIST/raw"
    raw_md5: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }
    card: ClassVar[DatasetCard] = DatasetCard(
        name="fashion-mnist",
        title="Fashion-MNIST",
        description="70,000 pieces of clothing, 28x28 gray pixels, in ten classes.",
        license="MIT",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        citation="H. Xiao, K. Rasul, R. Vollgraf (2017). Fashion-MNIST",
        downloads=True,
        layout="FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte",
        obtain=DOWNLOAD,
    )
