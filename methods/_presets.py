"""Presets: the hyper-parameters that a publication ran a method with, by network, image set and scenario.

They are data (`presets.toml`). A preset names every hyper-parameter of its method, so it does not depend on defaults,
and all its values come from one source.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from forgetbench.errors import UsageError
from forgetbench.registry import unknown

if TYPE_CHECKING:
    from forgetbench.options import Scalar
    from forgetbench.tasks.task import Setting

FILE = Path(__file__).parent / "presets.toml"


class Preset(BaseModel):
    """The values of one publication for one method, in the settings that it applies to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """`paper` for the method's own paper; otherwise the publication that ran the method as a baseline."""
    about: str = ""
    """The setting in words, where a publication has several."""
    networks: tuple[str, ...] = ("*",)
    """Patterns of names of networks."""
    image_sets: tuple[str, ...] = ("*",)
    """Patterns of names of image sets."""
    scenarios: tuple[str, ...] = ("*",)
    """Patterns of names of scenarios."""
    source: str
    """Where the values are printed: a table, or a file of the released code."""
    differs: str = ""
    """What the publication did that no hyper-parameter expresses."""
    values: Mapping[str, bool | int | float | str]
    """Every hyper-parameter of the method."""

    @property
    def where(self) -> str:
        """The settings that it applies to, in words."""
        parts = (("network", self.networks), ("image set", self.image_sets), ("scenario", self.scenarios))
        return "; ".join(f"{noun} {' or '.join(names)}" for noun, names in parts if names != ("*",)) or "any task"

    @property
    def parameters(self) -> dict[str, Scalar]:
        """The hyper-parameters; TOML has no null, which is written as "none"."""
        return {name: None if value == "none" else value for name, value in self.values.items()}

    def applies_to(self, setting: Setting) -> bool:
        """Whether it is meant for tasks with this network, image set and scenario."""
        pairs = (
            (self.networks, setting.network),
            (self.image_sets, setting.image_set),
            (self.scenarios, setting.scenario),
        )
        return all(any(fnmatchcase(name, pattern) for pattern in patterns) for patterns, name in pairs)


def presets(method: str) -> Sequence[Preset]:
    """The presets of a method; where several of one name apply to a task, the first of them counts."""
    return _read().get(method, ())


def preset_names() -> list[str]:
    """The names of all presets."""
    return sorted({preset.name for group in _read().values() for preset in group})


PAPER = "paper"
"""The preset of a method's own paper; where that has none for a task, of the first publication that ran it there."""


def find_preset(method: str, name: str, setting: Setting) -> Preset | None:
    """The preset of a method for a task; None if it has none of this name for such a task.

    Raises:
        UsageError: No method has a preset of this name.
    """
    if name not in preset_names():
        raise UsageError(unknown("preset", name, preset_names()))
    fitting = [preset for preset in presets(method) if preset.applies_to(setting)]
    named = [preset for preset in fitting if preset.name == name]
    return next(iter(named or (fitting if name == PAPER else [])), None)


def preset_values(method: str, name: str, setting: Setting | None) -> dict[str, Scalar]:
    """The hyper-parameters of a preset for a task.

    Raises:
        UsageError: There is no such preset, or no task to choose its values for.
    """
    if setting is None:
        raise UsageError(f"{method}:preset={name} needs a task: the values of a preset depend on it.")
    found = find_preset(method, name, setting)
    if found is not None:
        return found.parameters
    known = [f"{preset.name} ({preset.where})" for preset in presets(method)]
    raise UsageError(
        f"Method {method} has no preset {name!r} for network {setting.network}, image set {setting.image_set} and "
        f"scenario {setting.scenario}. "
        + (f"Available: {', '.join(known)}. " if known else "It has no presets. ")
        + f"Give values instead, such as {method}:PARAMETER=VALUE (`forgetbench show method {method}`)."
    )


@lru_cache(maxsize=1)
def _read() -> dict[str, tuple[Preset, ...]]:
    document = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {method: tuple(Preset.model_validate(entry) for entry in entries) for method, entries in document.items()}
