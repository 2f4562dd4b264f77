"""The documentation page of the methods, generated from their cards when the documentation is built."""

from __future__ import annotations

import inspect

from forgetbench.methods import methods
from forgetbench.methods._finetuning import min_lr_option, schedule_option
from forgetbench.methods._presets import presets
from forgetbench.methods._training import augment_option, batch_norm_option, clip_option
from forgetbench.methods.base import Method
from forgetbench.options import OptionDoc

HEAD = """# Methods

This page is generated from the methods' cards; `forgetbench show method NAME` prints the same. Each method is one file
in `methods/`; its docstring has the equation, and the deviations from the paper and from the authors' code. Tables list
ForgetBench's defaults, those of the paper where they differ, and what `forgetbench tune` searches. Defaults for one
network, or for one scenario on it, are in `methods/defaults.toml`; `forgetbench show method NAME` prints them.

A learning rate is a number, or a multiple of the rate of the task's recipe: `0.1x` is a tenth of it; where one of
method and recipe uses SGD and the other Adam, 30 of SGD count as 1 of Adam. A duration is a
number of epochs; or a multiple of the recipe's epochs, such as `0.2x`; or a number of steps, such as `40steps`, for the
number of epochs that comes nearest to it, at least one. A row records the text, and in its notes what it came to.
"""
SHARED = (batch_norm_option, schedule_option, min_lr_option, clip_option, augment_option)
"""What declares a hyper-parameter that several methods have."""


def page() -> str:
    """The page: methods by name, then the reference rows and the sentinels."""
    kinds = [methods.get(name) for name in methods.names()]
    ranked = [kind for kind in kinds if not kind.card.sentinel and not kind.card.reference]
    references = [kind for kind in kinds if kind.card.reference]
    sentinels = [kind for kind in kinds if kind.card.sentinel]
    parts = [HEAD, _shared(), _overview(ranked)]
    parts += [_section(kind) for kind in ranked]
    parts += ["# Reference rows\n\nEvery board has these rows.\n", *(_section(kind) for kind in references)]
    parts += [
        "# Sentinels\n\nTheir place is known in advance; `forgetbench audit` runs them to judge the metrics.\n",
        *(_section(kind) for kind in sentinels),
    ]
    return "\n".join(parts)


def _shared() -> str:
    """The meaning of the shared hyper-parameters, from the docstrings of what declares them."""
    lines = ["These hyper-parameters have one meaning in all methods that have them, and a default in each:", ""]
    for declare in SHARED:
        text = " ".join((inspect.getdoc(declare) or "").partition("Args:")[0].split())
        lines.append(f"- {text.removeprefix('Declare the hyper-parameter ')}")
    return "\n".join(lines) + "\n"


def _overview(kinds: list[type[Method]]) -> str:
    rows = ["| method | what it does | family | needs | networks |", "| --- | --- | --- | --- | --- |"]
    for kind in kinds:
        card = kind.card
        needs = " and ".join(sorted(card.needs)) or "nothing"
        networks = "any" if "*" in card.networks else ", ".join(card.networks)
        rows.append(f"| [{card.name}](#{_anchor(card.name)}) | {card.title} | {card.family} | {needs} | {networks} |")
    return "\n".join(rows) + "\n"


def _section(kind: type[Method]) -> str:
    card = kind.card
    paper = f"{card.authors} ({card.year}). {card.venue}." if card.year else f"{card.authors or 'ForgetBench'}."
    anchor = [] if _anchor(card.name) == card.name else [f'<a id="{_anchor(card.name)}"></a>', ""]
    lines = [*anchor, f"## {card.name}", "", f"{card.title}.", "", paper + (f" <{card.link}>" if card.link else ""), ""]
    lines += [
        f"- Needs: {', '.join(sorted(card.needs)) or 'nothing'}. Labels of several attributes: {_yes(card.attributes)}."
    ]
    if card.changes_training:
        lines += [
            "- Can require its own originals, trained with another loss; such rows are not ranked with the others."
        ]
    for kind_of_name, allowed in (("networks", card.networks), ("scenarios", card.scenarios)):
        if "*" not in allowed:
            lines += [f"- Applies to the {kind_of_name} {', '.join(allowed)}."]
    lines += [f"- Known limitations: {card.known_limitations}"]
    facts = kind.parameters()
    if facts:
        lines += ["", "| hyper-parameter | default | range | authors' | searched | meaning |", "| --- " * 6 + "|"]
        lines += [
            f"| `{each.name}` | {each.default} | {each.range.replace('|', 'or')} | "
            f"{'' if each.paper_default is None else each.paper_default} | {searched(each)} | {each.help} |"
            for each in facts
        ]
    for preset in presets(card.name):
        values = ", ".join(f"{name} = {value}" for name, value in preset.parameters.items())
        differs = f" Differs: {preset.differs}" if preset.differs else ""
        lines += ["", f"Preset `{preset.name}` ({preset.where}): {values}. Source: {preset.source}.{differs}"]
    if card.bibtex:
        lines += ["", "```bibtex", card.bibtex, "```"]
    return "\n".join(lines) + "\n"


def searched(parameter: OptionDoc) -> str:
    """What tuning searches, in a few words; empty where it leaves a parameter alone."""
    if parameter.search is None:
        return ""
    words = (f"{value:g}" if isinstance(value, float) else str(value) for value in parameter.search)
    return (" to " if parameter.is_ordered else ", ").join(words)


def _anchor(name: str) -> str:
    """What a link points to. Renderers make one of a heading's letters; a name with other signs gets one of its own."""
    return name.replace("+", "-plus")


def _yes(value: bool) -> str:
    return "yes" if value else "no"
