"""Unlearning methods, one paper per file; `methods` is their registry, which imports a method when it is first used.

A method in a user's own file needs no more than this::

    from dataclasses import dataclass
    from forgetbench.methods import Method, Rate, param


    @dataclass(frozen=True, kw_only=True)
    class MyMethod(Method):
        "One line on what it does."

        lr: Rate = param("0.1x", gt=0)

        def unlearn(self, model, request): ...
"""

from __future__ import annotations

import importlib
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.errors import UsageError
from forgetbench.method_label import MethodFile, MethodLabel
from forgetbench.methods._files import load_class, parse_values, refuse_known_name
from forgetbench.methods._foreign_code import refused_errors
from forgetbench.methods._presets import preset_values
from forgetbench.registry import Registry

if TYPE_CHECKING:
    from forgetbench.methods._card import MethodCard, TaskFacts
    from forgetbench.methods.base import Examples, ForgetRequest, Method, Recipe
    from forgetbench.options import Duration, Rate, Scalar
    from forgetbench.options import option as param
    from forgetbench.tasks.task import Setting

__all__ = [
    "Duration",
    "Examples",
    "ForgetRequest",
    "Method",
    "MethodCard",
    "Rate",
    "Recipe",
    "TaskFacts",
    "check_file_name",
    "check_own_name",
    "defaults_by_setting",
    "load_method_file",
    "methods",
    "param",
    "parse_method",
    "parse_method_file",
    "register",
    "setting_defaults",
]

methods: Registry[type[Method]] = Registry("method", entry_points="forgetbench.methods", package=__name__)
"""Name -> class; a method of this package is imported when it is first used."""
methods.alias("sham", "no-op")
register = methods.register


def __getattr__(name: str) -> Any:
    """Import the names of the contract when they are used: they need torch, and listing methods does not."""
    if name in __all__:
        return getattr(importlib.import_module("forgetbench.methods.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_own_name(name: str) -> None:
    """Refuse the name of a method of this package for results that it did not make.

    Raises:
        UsageError: The name is taken; the message proposes another.
    """
    if name in methods:
        raise UsageError(
            f"{name!r} is a method of this package, which did not make these results. Choose another name, such as "
            f"'{name}-own'."
        )


def check_file_name(kind: type[Method], file: str) -> None:
    """Refuse a class outside this package that has the name of a method of this package: rows would share a label.

    Raises:
        UsageError: The name is taken; the message says how to choose another.
    """
    refuse_known_name(methods, kind, kind.card.name, file)


def defaults_by_setting(method: str) -> dict[str, dict[str, Scalar]]:
    """Network, or ``network/scenario`` -> the hyper-parameters of a method whose defaults there are not its file's."""
    return {setting: dict(tables[method]) for setting, tables in _defaults().items() if method in tables}


def setting_defaults(method: str, setting: Setting) -> dict[str, Scalar]:
    """The hyper-parameters of a method whose defaults in a setting differ from those in its file.

    They are those of the network, with those of the scenario on that network over them.
    """
    known = defaults_by_setting(method)
    return {name: value for table in setting.tables for name, value in known.get(table, {}).items()}


@lru_cache(maxsize=1)
def _defaults() -> dict[str, dict[str, dict[str, Scalar]]]:
    return tomllib.loads((Path(__file__).parent / "defaults.toml").read_text(encoding="utf-8"))


def parse_method(text: str, setting: Setting | None = None) -> Method:
    """The method of a label `name:parameter=value,parameter=value`.

    Args:
        text: The label; `preset=NAME` takes all values that are not given from a preset.
        setting: The task's, which decides what the values are that are not given.

    Raises:
        UsageError: The name, a parameter or the preset is unknown, or a value is out of range.
    """
    label = MethodLabel.parse(text)
    method = methods.get(label.name)
    values = parse_values("method", *label)
    name, preset = method.card.name, values.pop("preset", None)
    if preset is not None:
        defaults = preset_values(name, str(preset), setting)
    else:
        defaults = setting_defaults(name, setting) if setting is not None else {}
    return method.from_dict({**defaults, **method.current_names(values)})


def parse_method_file(text: str) -> Method:
    """The method that `file.py:Class:parameter=value,parameter=value` names.

    Raises:
        UsageError: See `load_method_file`; or a parameter is unknown, or a value is out of range.
    """
    file = MethodFile.parse(text)
    kind = load_method_file(file.address)
    with refused_errors(f"Making {kind.__name__} of {file.path}"):
        return kind.from_dict(parse_values("method", file.class_name, file.values))


def load_method_file(text: str) -> type[Method]:
    """The class that `file.py:Class` names; the class can be omitted if the file defines one method.

    The file is imported from its place without a change of `sys.path`. It is recorded and submitted as one file, so it
    must not import a neighbor: that code would be no part of the fingerprint, and missing where the file runs again.

    Raises:
        UsageError: There is no such file or class, the file does not import or imports a neighbor, or the class is not
            a method.
    """
    from forgetbench.methods.base import Method

    return load_class(text, Method, "unlearn(self, model, request)")  # type: ignore[type-abstract]
