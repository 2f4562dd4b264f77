"""Contestants: methods with the hyper-parameters that were asked for, each a row of its own on a board."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forgetbench.errors import UsageError
from forgetbench.methods import load_method_file, methods, parse_method, parse_method_file
from forgetbench.store import digest

if TYPE_CHECKING:  # importing it takes torch, which whoever submits a finished run need not have
    from forgetbench.methods.base import Method


@dataclass(frozen=True)
class MethodSpec:
    """One row: a method, as it was asked for."""

    label: str
    """The row's name: the method's, and behind it the hyper-parameters that were asked for."""
    method: Method
    """The method with all its hyper-parameters."""
    file: str | None = None
    """``file.py:Class`` where the method is not part of the package."""
    trials: int = 1
    """Trials that were spent on its hyper-parameters; 1 = they are the defaults."""
    selector: Literal["none", "oracle-free", "oracle"] = "none"
    """By what the trial was chosen."""

    @property
    def named(self) -> tuple[str, ...]:
        """The hyper-parameters that its label names."""
        return tuple(part.partition("=")[0] for part in self.label.partition(":")[2].split(",") if part)

    def over(self, other: MethodSpec) -> MethodSpec:
        """This row under the name of another with the hyper-parameters that differ from it."""
        before = other.method.to_dict()
        name, _, given = other.label.partition(":")
        changed = [f"{key}={value}" for key, value in self.method.to_dict().items() if value != before[key]]
        values = ",".join([*filter(None, [given]), *changed])
        return replace(self, label=f"{name}:{values}" if values else name)

    @property
    def trains_originals(self) -> bool:
        """Whether its originals are trained with a loss of its own."""
        return self.method.training_loss is not None

    @property
    def folder(self) -> str:
        """A name for its folder of evidence."""
        return folder_name(self.label)

    @property
    def source(self) -> str | None:
        """The source text of a method that is not part of the package."""
        return Path(inspect.getfile(type(self.method))).read_text(encoding="utf-8") if self.file else None

    def as_json(self) -> dict[str, Any]:
        """What a worker process needs to build the method again."""
        return {
            "label": self.label,
            "name": self.method.card.name,
            "file": self.file,
            "parameters": self.method.to_dict(),
        }

    def arguments(self) -> list[str]:
        """The words of the command line that ask for this row."""
        if self.file is None:
            return ["--method", self.label]
        values = self.label.partition(":")[2]
        return ["--method-file", self.file + (f":{values}" if values else "")]


def folder_name(label: str) -> str:
    """A name for the folder of evidence of a row."""
    plain = re.sub(r"[^A-Za-z0-9+.=_-]+", "-", label).strip("-.")
    return plain if len(plain) <= 80 else f"{plain[:60]}-{digest(label)[:12]}"


def build(spec: Mapping[str, Any]) -> Method:
    """The method of a contestant's JSON.

    Raises:
        UsageError: The method's file is gone or has changed so that it no longer takes these hyper-parameters.
    """
    kind = load_method_file(spec["file"]) if spec["file"] else methods.get(spec["name"])
    return kind.from_dict(spec["parameters"])


def made_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of a contestant shapes its results: name, hyper-parameters and source, not its label or the file's path."""
    return {"name": spec["name"], "parameters": spec["parameters"], "source": build(spec).source_hash()}


def trained_by(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of a contestant shapes the originals that it trains for itself: not what only its unlearning reads."""
    method = build(spec)
    return {"name": spec["name"], "parameters": method.training_parameters(), "source": method.source_hash()}


def choose(names: Sequence[str], files: Sequence[str], network: str) -> list[MethodSpec]:
    """The contestants that a command line asks for.

    Args:
        names: ``name[:parameter=value,...]``; ``all`` is every contestant, ``sentinels`` those of the audit. The
            reference rows (none, retrain) stand on every board, so that naming them adds nothing.
        files: ``file.py:Class[:parameter=value,...]``.
        network: The task's network, for which a method may have defaults of its own.

    Raises:
        UsageError: A name, file or hyper-parameter is wrong, or a row is asked for twice.
    """
    chosen: list[MethodSpec] = []
    for name in names:
        if name == "all":
            wanted = [known for known in methods.names() if not _is(known, sentinel=True)]
        elif name == "sentinels":
            wanted = [known for known in methods.names() if _is(known, sentinel=True)]
        else:
            wanted = [name]
        chosen += [MethodSpec(_label(text), parse_method(text, network)) for text in wanted]
    for text in files:
        method = parse_method_file(text)
        file, _, values = text.partition(".py")
        class_name, _, values = values.removeprefix(":").partition(":")
        address = f"{Path(file + '.py').resolve()}:{class_name or type(method).__name__}"
        label = method.card.name + (f":{values}" if values else "")
        chosen.append(MethodSpec(_label(label), method, address))
    rows = [contestant for contestant in chosen if not contestant.method.card.reference]
    labels = [contestant.label for contestant in rows]
    recipes = [digest({**contestant.as_json(), "label": ""}) for contestant in rows]
    twice = sorted(
        {label for label, made in zip(labels, recipes, strict=True) if labels.count(label) + recipes.count(made) > 2}
    )
    if twice:
        raise UsageError(f"asked for twice: {', '.join(twice)}. A method may stand twice with other hyper-parameters.")
    return rows


def _label(text: str) -> str:
    return "".join(text.split())


def _is(name: str, *, sentinel: bool) -> bool:
    card = methods.get(name).card
    return card.sentinel is sentinel and not card.reference
