"""Tasks that come with the suite and need no data, for a server that has no board of them yet.

The server makes no pack of them by itself: a pack takes minutes of training with torch, which the server's processes
never import, and an operator's cores belong to the operator. One command makes the pack and the board.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from forgetbench.datasets import datasets
from forgetbench.tasks import names, read_task

if TYPE_CHECKING:
    from forgetbench.tasks import Task


@lru_cache(maxsize=1)
def embedded() -> tuple[Task, ...]:
    """The catalogue's tasks whose images come with the suite, by name."""
    tasks = (read_task(name) for name in names())
    return tuple(task for task in tasks if datasets.get(task.image_set.name).card.embedded)


def find(name: str) -> Task | None:
    """Any task of the catalogue; None where there is none of that name."""
    return read_task(name) if name in names() else None


def facts(task: Task) -> dict[str, Any]:
    """What its page shows."""
    card = datasets.get(task.image_set.name).card
    return {
        "images": {"name": card.name, "title": card.title, "licence": card.licence, "homepage": card.homepage},
        "embedded": card.embedded,
        "definition": task.model_dump(mode="json"),
    }
