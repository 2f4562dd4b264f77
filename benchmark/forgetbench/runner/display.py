"""Write what pages show of a task: contact sheets, pictures of the forget set, and who is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from forgetbench.datasets import datasets
from forgetbench.datasets.types import DatasetCard
from forgetbench.evidence.arrays import Array, write_arrays
from forgetbench.evidence.display import (
    DISPLAY,
    PEOPLE_COUNTS,
    SHEETS,
    enlarged,
    people,
    pictures,
    sheet,
    sheet_classes,
)
from forgetbench.runner.config import RunConfig
from forgetbench.runner.data import ExecutionEnv, TaskData
from forgetbench.tasks.task import Task

MAX_PICTURES = 3000
"""Largest forget set of which every image is kept as a picture."""
MAX_SIDE = 64
"""Largest side of a picture, in pixels."""
ON_SHEET = 16
"""Images of a contact sheet."""
_GAP = 4


def may_show(card: DatasetCard) -> bool:
    """Whether pages may show images of an image set: it comes with the suite or is a public download.

    Restricted image sets, and those in folders of the user, are never shown.
    """
    return not card.restricted and (card.embedded or card.downloads)


def write_display(folder: Path, task: Task, config: RunConfig) -> None:
    """Write the file of a bundle from which pages show pictures and people.

    Args:
        folder: The bundle's folder.
        task: The task of the bundle. Of a sealed board that of its public draws: no other rows are ever shown.
        config: Where the images are.
    """
    data = TaskData(task, ExecutionEnv("", str(config.root) if config.root else None))
    write_arrays(folder / DISPLAY, display_arrays(data, shown=may_show(datasets.get(task.image_set.name).card)))


def display_arrays(data: TaskData, *, shown: bool) -> dict[str, Array]:
    """The arrays of the file.

    Args:
        data: The task's images and rows.
        shown: Whether pages may show its images; otherwise only numbers of people are written.
    """
    train, arrays = data.partition.train, dict[str, Array]()
    for draw in range(data.task.draws):
        forget = data.rows(draw)["forget"].index
        if train.identities is not None:
            arrays[people(draw)] = train.identities[forget]
        if shown and len(forget) <= MAX_PICTURES:
            arrays[pictures(draw)] = _thumbnails(train.images[forget])
    if train.identities is not None:
        kept = data.split(0).retain
        counts = [len(np.unique(train.identities[rows])) for rows in (data.rows(0)["forget"].index, kept)]
        arrays[PEOPLE_COUNTS] = np.array(counts, np.int64)
    if shown:
        for subset in SHEETS:
            if subset in data.rows(0):
                rows = data.rows(0)[subset]
                chosen = rows.index[_spread(len(rows.index))]
                part = getattr(data.partition, rows.part)
                arrays[sheet(subset)] = _contact_sheet(_thumbnails(part.images[chosen]))
                if part.labels.ndim == 1:
                    arrays[sheet_classes(subset)] = part.labels[chosen]
    return arrays


def _spread(count: int) -> Array:
    """Evenly spaced rows."""
    return np.unique(np.linspace(0, count - 1, min(count, ON_SHEET)).round().astype(np.int64))


def _thumbnails(images: Array) -> Array:
    """uint8 (n, C, H, W) -> uint8 (n, h, w, C), every k-th pixel of large images."""
    step = -(-max(images.shape[2:]) // MAX_SIDE)
    return np.ascontiguousarray(images[:, :, ::step, ::step].transpose(0, 2, 3, 1))


def _contact_sheet(images: Sequence[Array] | Array) -> Array:
    """Images next to each other with white between them."""
    large = [enlarged(image) for image in images]
    height, width, channels = large[0].shape
    place = np.full((height, len(large) * (width + _GAP) - _GAP, channels), 255, np.uint8)
    for number, image in enumerate(large):
        place[:, number * (width + _GAP) : number * (width + _GAP) + width] = image
    return place
