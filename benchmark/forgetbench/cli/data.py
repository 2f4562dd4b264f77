"""The commands data and store: image sets on disk, and what was kept of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from forgetbench.cli.console import out, print_json, print_table, remark

if TYPE_CHECKING:
    from forgetbench.datasets.base import LoadReport
    from forgetbench.datasets.types import DatasetCard, Partition

Flag = Annotated[bool, Parameter(negative="")]


def add_commands(app: App) -> None:
    """Add this file's commands."""
    app.command(
        data := App(name="data", help="Image sets: get them ready, find what is wrong.", help_format="plaintext")
    )
    data.command(list_, name="list")
    data.command(prepare)
    data.command(check)
    app.command(store := App(name="store", help="What was trained and recorded here.", help_format="plaintext"))
    store.command(path)
    store.command(prune)


def list_(pattern: str = "*", *, json: Flag = False) -> None:
    """List the image sets: on what terms they are used, and where their files come from.

    Example: forgetbench data list "c*"

    Parameters
    ----------
    pattern
        Wildcard pattern of names.
    json
        Print JSON.
    """
    from forgetbench.datasets import datasets

    cards = [datasets.get(name).card for name in datasets.names(pattern)]
    if json:
        print_json([card.model_dump(mode="json") for card in cards])
        return
    rows = [(card.name, card.title, _origin(card), card.license) for card in cards]
    print_table("", ("image set", "what it is", "files", "license"), rows)


def _origin(card: DatasetCard) -> str:
    if card.embedded:
        return "none needed"
    return "fetched by data prepare" if card.downloads else "to be asked for" if card.restricted else "to be put there"


def prepare(
    name: str, *, root: Path | None = None, option: Annotated[list[str] | None, Parameter(negative="")] = None
) -> int:
    """Get an image set ready: say on what terms it is used, fetch it where that is allowed, and check it.

    Example: forgetbench data prepare cifar10 --root DATA

    Parameters
    ----------
    name
        Name of the image set.
    root
        Folder of the image sets on disk.
    option
        NAME=VALUE, an option of the image set. May stand several times.
    """
    from forgetbench.datasets import check as checks

    return _tell(name, checks.prepare(name, _options(option), root, lambda line: out().print(line, markup=False)))


def check(
    name: str,
    *,
    root: Path | None = None,
    option: Annotated[list[str] | None, Parameter(negative="")] = None,
    json: Flag = False,
) -> int:
    """List every problem of an image set before anything is trained on it.

    Example: forgetbench data check mufac --root DATA --option split=legacy

    Parameters
    ----------
    name
        Name of the image set.
    root
        Folder of the image sets on disk.
    option
        NAME=VALUE, an option of the image set. May stand several times.
    json
        Print JSON.
    """
    from forgetbench.datasets import check as checks

    examined = checks.check_image_set(name, _options(option), root)
    if json:
        print_json([problem._asdict() for problem in examined.problems])
        return 1 if any(problem.serious for problem in examined.problems) else 0
    return _tell(name, examined)


def path() -> None:
    """Print where artifacts lie. FORGETBENCH_HOME chooses another place.

    Example: forgetbench store path
    """
    from forgetbench.store import Store

    out().print(str(Store().root), markup=False)


def prune(*, dry_run: Flag = False, images: Flag = False) -> None:
    """Remove artifacts that no task of the catalog needs any more, and what killed runs left half-written.

    What was made of an image set alone, such as its decoded pictures, serves all tasks and stays.

    Example: forgetbench store prune --dry-run

    Parameters
    ----------
    dry_run
        Only say what would be removed.
    images
        Remove what was made of image sets too; it is made again when it is needed.
    """
    from forgetbench.datasets._files import CACHE_ROLE
    from forgetbench.store import Store
    from forgetbench.tasks.task import names, read_task

    keys = {read_task(name).key for name in names()}
    store = Store()
    stale = [
        folder
        for folder, made_from in store.artifacts()
        if (images if made_from.get("role") == CACHE_ROLE else made_from.get("task") not in keys)
    ]
    stale += store.half_written()
    freed = sum(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in stale)
    if not dry_run:
        for folder in stale:
            store.remove(folder)
    said = "would be removed" if dry_run else "removed"
    out().print(f"{len(stale)} artifacts, {freed / 2**20:.1f} MiB: {said}.", markup=False)


def _options(words: list[str] | None) -> dict[str, object]:
    from forgetbench.errors import UsageError
    from forgetbench.options import parse_value

    options: dict[str, object] = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--option takes NAME=VALUE, not {word!r}")
        options[name] = parse_value(value)
    return options


def _tell(name: str, examined: LoadReport) -> int:
    """Say what an image set holds, and what is wrong with it."""
    if examined.partition is not None:
        _tell_parts(examined.partition)
    if not examined.problems:
        remark(f"{name}: no problem found.")
        return 0
    serious = sum(one.serious for one in examined.problems)
    for one in examined.problems:
        out().print(f"{'!' if one.serious else '-'} {one.kind}: {one.message}.\n    {one.fix}", markup=False)
    remark(f"{name}: problems to be mended (!): {serious}; to be looked at (-): {len(examined.problems) - serious}.")
    return 1 if serious else 0


def _tell_parts(partition: Partition) -> None:
    """How many images, classes and people every part has, and which classes there are."""
    from forgetbench.datasets.problems import summarize_names

    rows = []
    for part, images in partition.parts():
        shown = "" if images.attributes else str(len(set(images.labels.tolist())))
        people = "" if images.identities is None else str(len(set(images.identities.tolist())))
        rows.append((part, str(len(images)), shown, people))
    print_table(partition.name, ("part", "images", "classes", "people"), rows)
    kind = "attributes" if partition.train.attributes else "classes"
    out().print(f"{kind}: {summarize_names(partition.train.classes)}", markup=False)
