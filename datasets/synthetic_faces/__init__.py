"""Faces: synthetic people, photographed over their lives; a substitute for MUFAC and MUCAC that needs no files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets._sampling import random_order, stratified_split
from forgetbench.datasets.base import Loader, make_rng
from forgetbench.datasets.synthetic_faces.drawing import render
from forgetbench.datasets.synthetic_faces.people import (
    AGE_CLASSES,
    compute_appearance,
    compute_labels,
    sample_moments,
    sample_subjects,
)
from forgetbench.datasets.types import DatasetCard, ImageSet, Partition
from forgetbench.options import option

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = {
    "age": AGE_CLASSES,
    "attributes": ("male", "smiling", "young"),
    "male": ("female", "male"),
    "smiling": ("not smiling", "smiling"),
    "young": ("not young", "young"),
}


@datasets.register("faces")
@dataclass(frozen=True, kw_only=True)
class Faces(Loader):
    """Synthetic people, each with 8 to 16 images over a life.

    The shape and colors of a head are constant. Pose, light, expression, clothes and background change from image to
    image, and age changes over a life, so that age and smile do not depend on the person alone. Every person is in one
    part only: training, validation, test or unseen; all people come from one distribution, so that parts are
    exchangeable. With identities as labels, the images of every person are split instead, and no person is unseen.
    """

    labels: Literal["age", "attributes", "male", "smiling", "young", "identity"] = option(
        "age", "The label to learn: one of eight age classes, three attributes at once, one attribute, or the person."
    )
    size: Literal[32, 64] = option(32, "Side of an image in pixels.")
    people: int = option(110, "People to train on; fewer make the task harder.", ge=4, le=5000)
    pictures: int = option(16, "Largest number of training images per person; fewer make the task harder.", ge=2, le=16)
    validation_people: int = option(20, "People in the validation set; unused for labels 'identity'.", ge=2, le=1000)
    test_people: int = option(
        50, "People in the test set, and as many unseen people; unused for labels 'identity'.", ge=4, le=2000
    )
    seed: int = option(0, "Seed of the people and their images.", ge=0)

    card: ClassVar[DatasetCard] = DatasetCard(
        name="faces",
        title="ForgetBench synthetic faces",
        description=(
            "Synthetic faces of people with lasting traits, in changing pose, light, expression and age: eight age "
            "classes as in MUFAC (Choi and Na 2023), or male, smiling and young as in MUCAC. No real person is shown."
        ),
        license="that of ForgetBench; no real person is shown",
        citation="ForgetBench",
        embedded=True,
    )

    def load(self, root: Path | None) -> Partition:  # noqa: ARG002 (embedded: no folder is read)
        """Render all people."""
        whole, train_people = self._render(), np.arange(self.people)
        identities = whole.identities
        assert identities is not None  # noqa: S101 (rendered with identities)
        if self.labels == "identity":
            sizes = [round(len(whole) * fraction) for fraction in (0.62, 0.10)]
            sizes.append(len(whole) - sum(sizes))
            train, validation, test = stratified_split(identities, sizes, make_rng("faces", "parts", self.seed))
            unseen = None
        else:
            # Test people come first, so that a larger number of training people leaves the test images unchanged.
            edges = np.cumsum([self.test_people, self.test_people, self.validation_people])
            part = np.searchsorted(edges, identities, side="right")
            test, unseen, validation, train = (np.flatnonzero(part == number) for number in range(4))
            train_people = train_people + edges[-1]
        train = np.concatenate([self._select(train[identities[train] == person]) for person in train_people])
        return Partition(
            "faces",
            whole.take(train),
            whole.take(validation),
            whole.take(test),
            None if unseen is None else whole.take(unseen),
            self.card,
        )

    def _render(self) -> ImageSet:
        """Render all images, person by person."""
        others = 0 if self.labels == "identity" else 2 * self.test_people + self.validation_people
        subjects = sample_subjects(self.people + others, self.seed)
        moments = sample_moments(subjects, self.seed)
        appearance = compute_appearance(subjects, moments)
        labels = compute_labels(subjects, moments)
        young = self.labels == "young"
        return ImageSet(
            images=render(appearance, self.size, make_rng("faces", "grain", self.seed)),
            labels=np.stack([labels[name] for name in CLASSES["attributes"]], axis=1)
            if self.labels == "attributes"
            else labels[self.labels],
            classes=CLASSES.get(self.labels, tuple(f"person-{number:03d}" for number in range(self.people))),
            identities=labels["identity"],
            fine_labels=labels["age"] if young else None,
            fine_classes=AGE_CLASSES if young else (),
        )

    def _select(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return at most ``pictures`` of a person's rows."""
        rng = make_rng("faces", "some", self.seed)
        return np.sort(rows[random_order(len(rows), rng)][: self.pictures])
