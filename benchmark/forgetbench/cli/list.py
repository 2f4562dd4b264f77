"""The commands list and show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cyclopts import App
from pydantic import BaseModel

from forgetbench.cli.console import console, print_json, print_table
from forgetbench.cli.options import Json

if TYPE_CHECKING:
    from forgetbench.options import Scalar

Kind = Literal["tasks", "datasets", "methods", "attacks", "metrics", "scenarios", "networks"]
Shown = Literal["task", "dataset", "method", "attack", "metric", "scenario", "network"]


class Option(NamedTuple):
    """An option of an image set, a scenario or a network."""

    name: str
    default: object
    type: str
    range: str
    meaning: str


@dataclass(frozen=True)
class HyperParameter:
    """A hyper-parameter of a method."""

    name: str
    default: Scalar
    range: str
    paper_default: Scalar
    """The default of the paper, if it differs."""
    search: str
    """What `forgetbench tune` searches."""
    meaning: str


@dataclass(frozen=True)
class Description:
    """Everything that `show` prints about a thing."""

    fields: Mapping[str, object]
    """Its fields, ready for JSON."""
    tables: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    """Title -> rows."""


def add_commands(app: App) -> None:
    """Add this module's commands."""
    app.command(list_, name="list")
    app.command(show)


def list_(kind: Kind, pattern: str = "*", *, json: Json = False) -> None:
    """List the available tasks, image sets, methods, attacks, metrics, scenarios or networks.

    Example: forgetbench list tasks "faces/*"

    Args:
        kind: What to list.
        pattern: Wildcard pattern of names.
    """
    rows = _LISTS[kind](pattern)
    if json:
        print_json([{"name": name, "title": title} for name, title in rows])
    else:
        print_table("", (kind[:-1], "title"), rows)


def show(kind: Shown, name: str, *, json: Json = False) -> None:
    """Show the full definition of a task, image set, method, attack, metric or scenario.

    Example: forgetbench show method ssd

    Args:
        kind: What it is.
        name: Its name, as `forgetbench list` prints it.
    """
    description = _DESCRIPTIONS[kind](name)
    if json:
        print_json({**description.fields, **description.tables})
    else:
        _print(description)


def _tasks(pattern: str) -> list[tuple[str, str]]:
    from forgetbench import list_tasks, load_task

    return [(name, load_task(name).title) for name in list_tasks(pattern)]


def _datasets(pattern: str) -> list[tuple[str, str]]:
    from forgetbench.datasets import datasets

    return [(name, datasets.get(name).card.title) for name in datasets.names(pattern)]


def _methods(pattern: str) -> list[tuple[str, str]]:
    from forgetbench.methods import methods

    cards = [(name, methods.get(name).card) for name in methods.names(pattern)]
    return [(name, card.title + (" (sentinel)" if card.sentinel else "")) for name, card in cards]


def _attacks(pattern: str) -> list[tuple[str, str]]:
    from forgetbench.attacks import attacks

    return [(name, attacks.get(name).card.title) for name in attacks.names(pattern)]


def _metrics(pattern: str) -> list[tuple[str, str]]:
    from forgetbench.metrics import metrics

    return [(name, metrics.get(name).meaning) for name in metrics.names(pattern)]


def _scenarios(pattern: str) -> list[tuple[str, str]]:
    from forgetbench.datasets.scenarios import scenarios

    return [(name, scenarios.get(name).title) for name in scenarios.names(pattern)]


def _networks(pattern: str) -> list[tuple[str, str]]:
    from forgetbench.networks import networks

    rows = [(name, (networks.get(name).__doc__ or "").strip().splitlines()[0]) for name in networks.names(pattern)]
    return rows + (list(networks.families().items()) if pattern == "*" else [])


def _task(name: str) -> Description:
    """A task with all options of its image set, network and scenario, defaults included."""
    from forgetbench import load_task
    from forgetbench.datasets import make_loader
    from forgetbench.datasets.scenarios import make_scenario
    from forgetbench.networks import networks

    task = load_task(name)
    options = {
        "image_set": make_loader(task.image_set.name, task.image_set.options).to_dict(),
        "network": networks.get(task.network.name).from_dict(task.network.options).to_dict(),
        "scenario": make_scenario(task.scenario.name, task.scenario.options).to_dict(),
    }
    parts = {part: getattr(task, part).model_copy(update={"options": values}) for part, values in options.items()}
    return Description({**_dump(task.model_copy(update=parts)), "key": task.key})


def _dataset(name: str) -> Description:
    from forgetbench.datasets import datasets

    loader = datasets.get(name)
    return Description(_dump(loader.card), {"options": _options(loader.options())})


def _method(name: str) -> Description:
    from forgetbench.methods import defaults_by_setting, methods
    from forgetbench.methods._docs import searched
    from forgetbench.methods._presets import presets

    cls = methods.get(name)
    parameters = [
        HyperParameter(each.name, each.default, each.range, each.paper_default, searched(each), each.help)
        for each in cls.parameters()
    ]
    fields = {**_dump(cls.card), "other_defaults": defaults_by_setting(cls.card.name)}
    settings = [
        {
            "preset": each.name,
            "for": each.where,
            "values": each.parameters,
            "source": each.source,
            "differs": each.differs,
        }
        for each in presets(cls.card.name)
    ]
    return Description(fields, {"hyper-parameters": [asdict(each) for each in parameters], "presets": settings})


def _attack(name: str) -> Description:
    from forgetbench.attacks import attacks

    kind = attacks.get(name)
    return Description(_dump(kind.card), {"options": _options(kind.options())})


def _metric(name: str) -> Description:
    from forgetbench.metrics import metrics

    return Description(_dump(metrics.get(name)))


def _scenario(name: str) -> Description:
    from forgetbench.datasets.scenarios import scenarios

    scenario = scenarios.get(name)
    fields = {"name": name, "title": scenario.title, "about": scenario.__doc__ or ""}
    return Description(fields, {"options": _options(scenario.options())})


def _network(name: str) -> Description:
    from forgetbench.networks import networks

    network = networks.get(name)
    return Description({"name": name, "about": network.__doc__ or ""}, {"options": _options(network.options())})


def _options(documents: Sequence[Any]) -> list[Mapping[str, object]]:
    return [Option(each.name, each.default, each.kind, each.range, each.help)._asdict() for each in documents]


def _dump(record: BaseModel) -> Mapping[str, object]:
    fields: Mapping[str, object] = record.model_dump(mode="json")
    return fields


_LISTS: dict[Kind, Callable[[str], list[tuple[str, str]]]] = {
    "tasks": _tasks,
    "datasets": _datasets,
    "methods": _methods,
    "attacks": _attacks,
    "metrics": _metrics,
    "scenarios": _scenarios,
    "networks": _networks,
}
_DESCRIPTIONS: dict[Shown, Callable[[str], Description]] = {
    "task": _task,
    "dataset": _dataset,
    "method": _method,
    "attack": _attack,
    "metric": _metric,
    "scenario": _scenario,
    "network": _network,
}


def _print(description: Description) -> None:
    output = console()
    for name, value in description.fields.items():
        if isinstance(value, dict) and value:
            output.print(f"[bold]{name}[/]")
            for key, inner in value.items():
                output.print(f"  {key}: {_text(inner)}", markup=False)
        elif value not in (None, "", [], {}):
            output.print(f"[bold]{name}[/]: ", end="")
            output.print(_text(value).strip(), markup=False)
    for title, rows in description.tables.items():
        if rows:
            output.print()
            columns = list(rows[0])
            print_table(title, columns, [[_text(row[column]) for column in columns] for row in rows])


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} = {_text(inner)}" for name, inner in value.items() if inner not in (None, [], ""))
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)
