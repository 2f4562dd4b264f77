"""Faces: people drawn by us, photographed over their lives; the stand-in for MUFAC and MUCAC that needs no file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._sampling import order, stratified_parts
from forgetbench.datasets.base import Loader, generator, option
from forgetbench.datasets.synthetic_faces import drawing as faces_drawing
from forgetbench.datasets.synthetic_faces import people as faces_people
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = {
    "age": faces_people.AGE_CLASSES,
    "attributes": ("male", "smiling", "young"),
    "male": ("female", "male"),
    "smiling": ("not smiling", "smiling"),
    "young": ("not young", "young"),
}


@datasets.register("faces")
@dataclass(frozen=True, kw_only=True)
class Faces(Loader):
    """Drawn people, each with 8 to 16 pictures over a life.

    The shape and colors of a head last; pose, light, expression, clothes and place change from picture to picture, and
    age changes over a life, so that age and smile are no function of the person. A person is in one part only:
    training, validation, test or unseen; all people are drawn alike, so that the parts are exchangeable. Where people
    are the classes, each person's pictures are divided instead, and nobody is unseen.
    """

    labels: Literal["age", "attributes", "male", "smiling", "young", "identity"] = option(
        "age", "What is learned: one of eight age classes, three attributes at once, one attribute, or who it is."
    )
    size: Literal[32, 64] = option(32, "Side of a picture, pixels.")
    people: int = option(110, "People to train on; with fewer, the task is harder.", ge=4, le=5000)
    pictures: int = option(16, "Most pictures of a person to train on; with fewer, the task is harder.", ge=2, le=16)
    validation_people: int = option(20, "People in the validation set; not used for labels 'identity'.", ge=2, le=1000)
    test_people: int = option(
        50, "People in the test set, and as many unseen; not used for labels 'identity'.", ge=4, le=2000
    )
    seed: int = option(0, "Seed of the people and their pictures.", ge=0)

    card: ClassVar[DatasetCard] = DatasetCard(
        name="faces",
        title="ForgetBench drawn faces",
        description=(
            "Drawn faces of people with lasting traits, in changing pose, light, expression and age: eight age "
            "classes as in MUFAC (Choi and Na 2023), or male, smiling and young as in MUCAC. Nobody in it exists."
        ),
        license="as ForgetBench: nobody's picture is in it",
        citation="ForgetBench",
        embedded=True,
    )

    def load(self, root: Path | None) -> Partition:  # noqa: ARG002 (embedded: no folder is read)
        """Draw everybody."""
        whole, everybody = self._whole(), np.arange(self.people)
        identities = whole.identities
        assert identities is not None  # noqa: S101 (drawn faces have them)
        if self.labels == "identity":
            sizes = [round(len(whole) * share) for share in (0.62, 0.10)]
            sizes.append(len(whole) - sum(sizes))
            train, validation, test = stratified_parts(identities, sizes, generator("faces", "parts", self.seed))
            unseen = None
        else:
            # Test people come first: whoever asks for more to train on is tested on the same pictures.
            edges = np.cumsum([self.test_people, self.test_people, self.validation_people])
            part = np.searchsorted(edges, identities, side="right")
            test, unseen, validation, train = (np.flatnonzero(part == number) for number in range(4))
            everybody = everybody + edges[-1]
        train = np.concatenate([self._some(train[identities[train] == person]) for person in everybody])
        return Partition(
            "faces",
            whole.take(train),
            whole.take(validation),
            whole.take(test),
            None if unseen is None else whole.take(unseen),
            self.card,
        )

    def _whole(self) -> ImageSet:
        """Every picture of everybody, person by person."""
        others = 0 if self.labels == "identity" else 2 * self.test_people + self.validation_people
        sitters = faces_people.people(self.people + others, self.seed)
        moments = faces_people.pictures(sitters, self.seed)
        looks = faces_people.look(sitters, moments)
        labels = faces_people.labels_of(sitters, moments)
        young = self.labels == "young"
        return ImageSet(
            images=faces_drawing.draw(looks, self.size, generator("faces", "grain", self.seed)),
            labels=np.stack([labels[name] for name in CLASSES["attributes"]], axis=1)
            if self.labels == "attributes"
            else labels[self.labels],
            classes=CLASSES.get(self.labels, tuple(f"person-{number:03d}" for number in range(self.people))),
            identities=labels["identity"],
            fine_labels=labels["age"] if young else None,
            fine_classes=faces_people.AGE_CLASSES if young else (),
        )

    def _some(self, pictures: NDArray[np.int64]) -> NDArray[np.int64]:
        """At most as many pictures of one person as are asked for."""
        rng = generator("faces", "some", self.seed)
        return np.sort(pictures[order(len(pictures), rng)][: self.pictures])
