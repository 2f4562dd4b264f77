"""The commands data and store: image sets on disk, and the artifacts of runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from forgetbench.cli.console import print_json, print_note, print_table, print_text
from forgetbench.cli.options import Flag, Json
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.datasets.base import LoadReport
    from forgetbench.datasets.types import DatasetCard, Partition
    from forgetbench.store import Store


_SHOWN_OF_A_KIND = 5
"""Problems of one kind that the text output of ``data check`` shows; ``--json`` has all."""


def add_commands(app: App) -> None:
    """Add this module's commands."""
    app.command(data := App(name="data", help="Image sets: prepare and check them.", help_format="plaintext"))
    data.command(list_, name="list")
    data.command(prepare)
    data.command(check)
    app.command(store := App(name="store", help="Trained models and recorded logits.", help_format="plaintext"))
    store.command(path)
    store.command(tidy, alias="prune")


def list_(pattern: str = "*", *, json: Json = False) -> None:
    """List the image sets with their licenses and where their files come from.

    Example: forgetbench data list "c*"

    Args:
        pattern: Wildcard pattern of names.
    """
    from forgetbench.datasets import datasets

    cards = [datasets.get(name).card for name in datasets.names(pattern)]
    if json:
        print_json([card.model_dump(mode="json") for card in cards])
        return
    rows = [(card.name, card.title, _origin(card), card.license) for card in cards]
    print_table("", ("image set", "title", "files", "license"), rows)


def _origin(card: DatasetCard) -> str:
    if card.embedded:
        return "included"
    return "downloaded by data prepare" if card.downloads else "on request" if card.restricted else "manual download"


def prepare(name: str, *, root: Path | None = None, option: list[str] | None = None) -> int:
    """Prepare an image set: show its terms of use, download it where allowed, and check it.

    Exit status 1 if there are problems to fix.

    Example: forgetbench data prepare cifar10 --root DATA

    Args:
        name: Name of the image set.
        root: Folder of the image sets on disk.
        option: NAME=VALUE, an option of the image set. Can be repeated.
    """
    from forgetbench.datasets.check import prepare as prepare_image_set

    return _print_examined(name, prepare_image_set(name, _options(option), root, print_text))


def check(name: str, *, root: Path | None = None, option: list[str] | None = None, json: Json = False) -> int:
    """List all problems of an image set before anything is trained on it.

    Exit status 1 if there are problems to fix.

    Example: forgetbench data check mufac --root DATA --option split=legacy

    Args:
        name: Name of the image set.
        root: Folder of the image sets on disk.
        option: NAME=VALUE, an option of the image set. Can be repeated.
    """
    from forgetbench.datasets.check import check_image_set

    examined = check_image_set(name, _options(option), root)
    if json:
        print_json([problem._asdict() for problem in examined.problems])
        return 1 if any(problem.serious for problem in examined.problems) else 0
    return _print_examined(name, examined)


def path() -> None:
    """Print the folder of the store. FORGETBENCH_HOME chooses another one.

    Example: forgetbench store path
    """
    from forgetbench.store import Store

    print_text(str(Store().root))


def tidy(*, dry_run: Flag = False, images: Flag = False) -> None:
    """Remove artifacts that no task of the catalog uses, those that were set aside, and folders of killed runs.

    Artifacts of image sets alone, such as decoded images, serve all tasks and stay. So do folders of processes that
    still run, and those of other machines for a week.

    Example: forgetbench store tidy --dry-run

    Args:
        dry_run: Only print what would be removed.
        images: Also remove artifacts of image sets; they are made again when needed.
    """
    from forgetbench.runner.results import Results
    from forgetbench.store import Store, folder_size

    store = Store()
    unused, leftovers = _unused_artifacts(store, images=images), Results().leftovers()
    size = sum(map(folder_size, (*unused, *leftovers))) / 2**20
    for folder in [] if dry_run else (*unused, *leftovers):
        store.remove(folder)
    done = "would be removed" if dry_run else "removed"
    print_text(f"{len(unused)} artifacts and {len(leftovers)} leftovers, {size:.1f} MiB: {done}.")


def _unused_artifacts(store: Store, *, images: bool) -> list[Path]:
    """The artifacts that no task of the catalog uses."""
    from forgetbench.datasets._files import CACHE_ROLE
    from forgetbench.tasks.task import names, read_task

    keys = {read_task(name).key for name in names()}
    return [
        folder
        for folder, key in store.artifacts()
        if (images if key.get("role") == CACHE_ROLE else key.get("task") not in keys)
    ]


def _options(words: list[str] | None) -> dict[str, object]:
    from forgetbench.options import parse_value

    options: dict[str, object] = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"Invalid --option {word!r}: expected NAME=VALUE.")
        options[name] = parse_value(value)
    return options


def _print_examined(name: str, examined: LoadReport) -> int:
    """Print the contents and problems of an image set; returns the exit status."""
    if examined.partition is not None:
        _print_partition(examined.partition)
    if not examined.problems:
        print_note(f"{name}: no problem found.")
        return 0
    serious = sum(problem.serious for problem in examined.problems)
    numbers: Counter[tuple[str, bool]] = Counter()
    totals = Counter((problem.kind, problem.serious) for problem in examined.problems)
    for problem in examined.problems:
        group = problem.kind, problem.serious
        numbers[group] += 1
        if numbers[group] <= _SHOWN_OF_A_KIND:
            print_text(f"{'!' if problem.serious else '-'} {problem.kind}: {problem.message}.\n    {problem.fix}")
        if numbers[group] == _SHOWN_OF_A_KIND < totals[group]:
            more = totals[group] - _SHOWN_OF_A_KIND
            print_text(f"    ... and {more} more of this kind; `forgetbench data check {name} --json` lists all.")
    print_note(f"{name}: {serious} problems to fix (!), {len(examined.problems) - serious} warnings (-).")
    return 1 if serious else 0


def _print_partition(partition: Partition) -> None:
    """Print the numbers of images, classes and people of every part, and the classes."""
    from forgetbench.datasets.problems import summarize_names

    rows = []
    for part, images in partition.parts():
        classes = "" if images.attributes else str(len(set(images.labels.tolist())))
        people = "" if images.identities is None else str(len(set(images.identities.tolist())))
        rows.append((part, str(len(images)), classes, people))
    print_table(partition.name, ("part", "images", "classes", "people"), rows)
    kind = "attributes" if partition.train.attributes else "classes"
    print_text(f"{kind}: {summarize_names(partition.train.classes)}")
