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

import hashlib
import importlib
import importlib.util
import inspect
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from forgetbench.errors import UsageError
from forgetbench.method_label import MethodFile, MethodLabel
from forgetbench.methods._foreign_code import MethodCodeError, output_to_stderr, refused_errors, wrapped_errors
from forgetbench.methods._imports import check_imports
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
    "load_method_file",
    "methods",
    "network_defaults",
    "param",
    "parse_method",
    "parse_method_file",
    "register",
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
    name = kind.card.name
    if name in methods and not kind.__module__.startswith(f"{__name__}.") and methods.get(name) is not kind:
        raise UsageError(
            f"{kind.__name__} in {file} has the name of a method of this package, {name!r}. Rename the class, or give "
            f"its card another name, such as {name + '-own'!r}."
        )


def network_defaults(method: str, network: str) -> dict[str, Scalar]:
    """The hyper-parameters of a method whose defaults for a network differ from those in its file."""
    return dict(_defaults().get(network, {}).get(method, {}))


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
    values = _parse_values(*label)
    name, preset = method.card.name, values.pop("preset", None)
    if preset is not None:
        defaults = preset_values(name, str(preset), setting)
    else:
        defaults = network_defaults(name, setting.network) if setting is not None else {}
    return method.from_dict({**defaults, **method.current_names(values)})


def parse_method_file(text: str) -> Method:
    """The method that `file.py:Class:parameter=value,parameter=value` names.

    Raises:
        UsageError: See `load_method_file`; or a parameter is unknown, or a value is out of range.
    """
    file = MethodFile.parse(text)
    kind = load_method_file(file.address)
    with refused_errors(f"Making {kind.__name__} of {file.path}"):
        return kind.from_dict(_parse_values(file.class_name, file.values))


def load_method_file(text: str) -> type[Method]:
    """The class that `file.py:Class` names; the class can be omitted if the file defines one method.

    The file is imported from its place without a change of `sys.path`. It is recorded and submitted as one file, so it
    must not import a neighbor: that code would be no part of the fingerprint, and missing where the file runs again.

    Raises:
        UsageError: There is no such file or class, the file does not import or imports a neighbor, or the class is not
            a method.
    """
    from forgetbench.methods.base import Method

    file, class_name, _ = MethodFile.parse(text)
    module = _import_file(Path(file))
    classes = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    names = [name for name, value in classes.items() if issubclass(value, Method)]
    if not class_name and len(names) != 1:
        defined = ", ".join(names) or "none"
        raise UsageError(f"{file} defines {len(names)} methods ({defined}). Name one, as {file}:CLASS.")
    kind = classes.get(class_name or names[0])
    if kind is None:
        raise UsageError(f"{file} has no class {class_name!r}. Available: {', '.join(classes) or 'none'}.")
    if not issubclass(kind, Method):
        raise UsageError(f"{class_name} in {file} is not a method. Derive it from forgetbench.methods.Method.")
    _check_class(kind, file)
    return kind


def _check_class(kind: type[Method], file: str) -> None:
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if missing:
        raise UsageError(f"{kind.__name__} in {file} lacks {', '.join(missing)}(self, model, request).")
    if inspect.get_annotations(kind).keys() - {"card"} and "__dataclass_fields__" not in kind.__dict__:
        raise UsageError(
            f"{kind.__name__} in {file} needs @dataclass(frozen=True, kw_only=True) above the class, and `from "
            "dataclasses import dataclass` above that."
        )


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"There is no file {path}. Give the path of a Python file, as my_method.py:MyMethod.")
    # path and content are part of the module's name, so that an edited file is imported again
    content = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()[:12]
    name = f"forgetbench_method_{path.stem}_{content}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file: its name must end in .py.")
    check_imports(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module
    try:
        with _own_arguments(path), output_to_stderr(), wrapped_errors():
            spec.loader.exec_module(module)
    except MethodCodeError as error:
        del sys.modules[name]
        guard = " Put what the file runs as a program below `if __name__ == '__main__':`."
        ends = isinstance(error.__cause__, SystemExit)
        raise UsageError(f"{path} cannot be imported: {error}.{guard if ends else ''}") from error.__cause__
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _own_arguments(path: Path) -> Iterator[None]:
    """Hide our command line from a file that parses arguments when it is imported."""
    arguments = sys.argv
    sys.argv = [str(path)]
    try:
        yield
    finally:
        sys.argv = arguments


def _parse_values(method: str, text: str) -> dict[str, Scalar]:
    from forgetbench.options import parse_assignments

    try:
        return parse_assignments(text.split(","), f"method {method}")
    except UsageError as error:
        raise UsageError(f"{error} A method with values is {method}:PARAMETER=VALUE,...") from None
