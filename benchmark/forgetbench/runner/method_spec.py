"""Method specifications: a method with its hyper-parameters, as one row of a board names it.

`forgetbench.method_label` has the grammar of labels and files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from forgetbench.errors import UsageError, printable
from forgetbench.method_label import MethodFile, MethodLabel
from forgetbench.methods import check_file_name, load_method_file, methods, parse_method, parse_method_file
from forgetbench.methods._foreign_code import refused_errors
from forgetbench.methods._presets import find_preset
from forgetbench.runner.spec import Spec, current_label, file_address
from forgetbench.store import JsonObject, digest

if TYPE_CHECKING:  # importing it takes torch, which is not needed to submit a finished run
    from forgetbench.methods._card import TaskFacts
    from forgetbench.methods.base import Method
    from forgetbench.tasks.task import Setting

_log = logging.getLogger(__name__)

Selector = Literal["none", "oracle-free", "oracle"]


@dataclass(frozen=True)
class MethodSpec(Spec["Method"]):
    """One row of a board: a method by name or file, with all its hyper-parameters. Picklable; `method` builds it."""

    trials: int = 1
    """Trials spent on the hyper-parameters; 1 means the defaults."""
    selector: Selector = "none"
    """How the trial was chosen."""

    @classmethod
    def load(cls, name: str, file: str | None) -> type[Method]:
        """The class of a method's name or file."""
        return load_method_file(file) if file else methods.get(name)

    @property
    def method(self) -> Method:
        """The method; see `build`."""
        return self.build()

    @property
    def named(self) -> tuple[str, ...]:
        """The hyper-parameters that the label gives; a preset gives all of them."""
        given = MethodLabel.parse(self.label).parameters
        return tuple(self.parameters) if "preset" in given else given

    @property
    def trains_originals(self) -> bool:
        """Whether the method's originals are trained with a loss of its own."""
        method = self.method
        with refused_errors(f"`training_loss` of {self.place}"):
            return method.training_loss is not None

    def refusal(self, facts: TaskFacts) -> str:
        """Why the method does not apply to a task; "" if it applies."""
        method = self.method
        with refused_errors(f"`applies_to` of {self.place}"):
            return printable(str(method.applies_to(facts) or ""))

    def training_identity(self) -> JsonObject:
        """What shapes the originals that the method trains for itself: without what only its unlearning reads."""
        method = self.method
        with refused_errors(f"`training_parameters` of {self.place}"):
            parameters = method.training_parameters()
        return {"name": self.name, "parameters": dict(parameters), "fingerprint": self.fingerprint}

    def with_label_diff(self, base: MethodSpec) -> Self:
        """This row under the label of another, followed by the hyper-parameters that differ from it."""
        changed = {name: value for name, value in self.parameters.items() if value != base.parameters[name]}
        return replace(self, label=str(MethodLabel.parse(base.label).extended(changed)))

    def arguments(self) -> list[str]:
        """The command-line arguments that name this row; its file by its path from the current folder, or its name."""
        if self.file is None:
            return ["--method", self.label]
        file = MethodFile.parse(self.file)
        path = Path(file.path)
        name = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name
        address = file._replace(path=str(name)).address
        values = MethodLabel.parse(self.label).values
        return ["--method-file", f"{address}:{values}" if values else address]


def parse_methods(
    names: Sequence[str], files: Sequence[str], setting: Setting, preset: str | None = None
) -> list[MethodSpec]:
    """The rows that a command line names.

    Args:
        names: ``name[:parameter=value,...]``; ``all`` is every method, ``sentinels`` are those of the audit. The
            reference rows (none, retrain) are part of every board, so naming them adds nothing.
        files: ``file.py:Class[:parameter=value,...]``.
        setting: The task's; it decides which defaults and presets of a method apply.
        preset: The preset of every method that is named without one; of ``all``, methods without it are left out.

    Raises:
        UsageError: A name, file or hyper-parameter is wrong, or a row is named twice.
    """
    specs: list[MethodSpec] = []
    for name in names:
        selected = [name]
        if name in ("all", "sentinels"):
            selected = [known for known in methods.names() if _is_row(known, sentinel=name == "sentinels")]
            if preset is not None and name == "all":
                selected = _with_preset(selected, preset, setting)
        for text in selected:
            label = MethodLabel.parse(text)
            if preset is not None and methods.get(label.name).card.is_contestant and "preset" not in label.parameters:
                label = label._replace(values=",".join(filter(None, [f"preset={preset}", label.values])))
            method = parse_method(str(label), setting)
            specs.append(MethodSpec.of(method, current_label(method, label.values)))
    for text in files:
        method = parse_method_file(text)
        file = MethodFile.parse(text)
        check_file_name(type(method), file.path)
        specs.append(MethodSpec.of(method, current_label(method, file.values), file_address(file, type(method))))
    rows = [spec for spec in specs if not spec.kind.card.reference]
    check_distinct(rows)
    return rows


def check_distinct(rows: Sequence[MethodSpec]) -> None:
    """Refuse two rows with the same label or the same hyper-parameters.

    Raises:
        UsageError: A row is given twice; the message names it.
    """
    labels = [spec.label for spec in rows]
    recipes = [digest([spec.name, spec.file, dict(spec.parameters)]) for spec in rows]
    twice = {
        label for label, recipe in zip(labels, recipes, strict=True) if labels.count(label) + recipes.count(recipe) > 2
    }
    if twice:
        raise UsageError(
            f"Duplicate method: {', '.join(sorted(twice))}. To run a method twice, give different hyper-parameters."
        )


def _with_preset(names: Sequence[str], preset: str, setting: Setting) -> list[str]:
    """The methods that have a preset for a task; the others are named in a warning.

    Raises:
        UsageError: No method has it.
    """
    found = [name for name in names if find_preset(name, preset, setting) is not None]
    place = f"network {setting.network}, image set {setting.image_set} and scenario {setting.scenario}"
    if not found:
        raise UsageError(
            f"No method has a preset {preset!r} for {place}. `forgetbench show method NAME` prints a method's presets."
        )
    if len(found) < len(names):
        missing = ", ".join(name for name in names if name not in found)
        _log.warning("These methods have no preset %s for %s, and are left out: %s", preset, place, missing)
    return found


def _is_row(name: str, *, sentinel: bool) -> bool:
    card = methods.get(name).card
    return card.sentinel is sentinel and not card.reference
