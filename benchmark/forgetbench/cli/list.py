"""The commands list, show and data: what there is."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from forgetbench.cli.console import out, print_json, print_table

Kind = Literal["tasks", "datasets", "methods", "metrics", "scenarios", "networks"]
One = Literal["task", "dataset", "method", "metric", "scenario"]


def add_commands(app: App) -> None:
    """Add this file's commands."""
    app.command(list_, name="list")
    app.command(show)


def list_(
    kind: Kind,
    pattern: str = "*",
    *,
    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False,
) -> None:
    """List what there is, one line each.

    Example: forgetbench list tasks "faces/*"

    Parameters
    ----------
    kind
        What to list.
    pattern
        Wildcard pattern of names.
    """
    rows = _LISTS[kind](pattern)
    if json:
        print_json([{"name": name, "title": title} for name, title in rows])
        return
    print_table("", (kind[:-1], "what it is"), rows)


def show(kind: One, name: str, *, json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False) -> None:
    """Show one of them, whole.

    Example: forgetbench show method ssd

    Parameters
    ----------
    kind
        What it is.
    name
        Its name, as `forgetbench list` prints it.
    """
    facts = _SHOWN[kind](name)
    if json:
        print_json(facts)
        return
    _print_facts(facts)


def _tasks(pattern: str) -> list[tuple[str, str]]:
    from forgetbench.tasks import task as tasks

    return [(name, tasks.read_task(name).title) for name in tasks.names(pattern)]


def _datasets(pattern: str) -> list[tuple[str, str]]:
    from forgetbench.datasets import datasets

    return [(name, datasets.get(name).card.title) for name in datasets.names(pattern)]


def _methods(pattern: str) -> list[tuple[str, str]]:
    from forgetbench.methods import methods

    marks = {True: " (sentinel)", False: ""}
    cards = [(name, methods.get(name).card) for name in methods.names(pattern)]
    return [(name, card.title + marks[card.sentinel]) for name, card in cards]


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


def _task(name: str) -> dict[str, Any]:
    """All of a task, with the defaults of what its file leaves out."""
    from forgetbench.datasets import make_loader
    from forgetbench.datasets.scenarios import make_scenario
    from forgetbench.networks import networks
    from forgetbench.tasks import task as tasks

    task = tasks.read_task(name)
    own = inspect.signature(networks.get(task.network.name)).parameters.items()
    defaults = {key: value.default for key, value in own if value.kind is value.KEYWORD_ONLY}
    whole = {
        "image_set": make_loader(task.image_set.name, task.image_set.options).to_dict(),
        "network": {**defaults, **task.network.options},
        "scenario": make_scenario(task.scenario.name, task.scenario.options).to_dict(),
    }
    facts = task.model_dump(mode="json")
    return {**facts, **{part: {**facts[part], "options": whole[part]} for part in whole}, "key": task.key}


def _dataset(name: str) -> dict[str, Any]:
    from forgetbench.datasets import datasets

    loader = datasets.get(name)
    return {**loader.card.model_dump(mode="json"), "options": _options(loader.options())}


def _method(name: str) -> dict[str, Any]:
    from forgetbench.methods import methods, network_defaults
    from forgetbench.methods._docs import searched
    from forgetbench.networks import networks

    kind = methods.get(name)
    facts = kind.card.model_dump(mode="json")
    facts["defaults of a network"] = {
        network: values for network in networks.names() if (values := network_defaults(name, network))
    }
    facts["hyper-parameters"] = [
        {
            "name": each.name,
            "default": each.default,
            "range": each.range,
            "authors' default": each.paper_default,
            "searched by tune": searched(each),
            "meaning": each.help,
        }
        for each in kind.parameters()
    ]
    return facts


def _metric(name: str) -> dict[str, Any]:
    from forgetbench.metrics import metrics

    facts: dict[str, Any] = metrics.get(name).model_dump(mode="json")
    return facts


def _scenario(name: str) -> dict[str, Any]:
    from forgetbench.datasets.scenarios import scenarios

    kind = scenarios.get(name)
    return {"name": name, "title": kind.title, "about": (kind.__doc__ or ""), "options": _options(kind.options())}


def _options(documents: list[Any]) -> list[dict[str, Any]]:
    return [
        {"name": item.name, "default": item.default, "type": item.kind, "range": item.range, "meaning": item.help}
        for item in documents
    ]


_LISTS = {
    "tasks": _tasks,
    "datasets": _datasets,
    "methods": _methods,
    "metrics": _metrics,
    "scenarios": _scenarios,
    "networks": _networks,
}
_SHOWN = {"task": _task, "dataset": _dataset, "method": _method, "metric": _metric, "scenario": _scenario}


def _print_facts(facts: dict[str, Any]) -> None:
    """Print facts under their names; lists of records become tables."""
    console = out()
    for name, value in facts.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            columns = list(value[0])
            rows = [[_plain(row[column]) for column in columns] for row in value]
            console.print()
            print_table(name, columns, rows)
        elif isinstance(value, dict) and value:
            console.print(f"[bold]{name}[/]")
            for key, inner in value.items():
                console.print(f"  {key}: {_plain(inner)}", markup=False)
        elif value not in (None, "", [], {}):
            console.print(f"[bold]{name}[/]: ", end="")
            console.print(_plain(value).strip(), markup=False)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} = {_plain(inner)}" for name, inner in value.items() if inner not in (None, [], ""))
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)
