"""Loads classes from files of users: methods, and attacks on their results."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from forgetbench.errors import UsageError
from forgetbench.method_label import MethodFile
from forgetbench.methods._foreign_code import MethodCodeError, output_to_stderr, wrapped_errors
from forgetbench.methods._imports import check_imports

if TYPE_CHECKING:
    from forgetbench.options import Options, Scalar
    from forgetbench.registry import Registry

Kind = TypeVar("Kind", bound="Options")


def load_class(text: str, base: type[Kind], function: str) -> type[Kind]:
    """The class that `file.py:Class` names; the class can be omitted if the file defines one of its kind.

    The file is imported from its place without a change of `sys.path`. It is recorded and submitted as one file, so it
    must not import a neighbor: that code would be no part of the fingerprint, and missing where the file runs again.

    Args:
        text: File and class.
        base: What the class must derive from, such as `Method`; its name in lower case is used in messages.
        function: The function that a class must define, as in "unlearn(self, model, request)".

    Raises:
        UsageError: There is no such file or class, the file does not import or imports a neighbor, or the class is not
            of that kind.
    """
    file, class_name, _ = MethodFile.parse(text)
    module, noun = _import_file(Path(file)), base.__name__.lower()
    classes = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    names = [name for name, value in classes.items() if issubclass(value, base)]
    if not class_name and len(names) != 1:
        defined = ", ".join(names) or "none"
        raise UsageError(f"{file} defines {len(names)} {noun}s ({defined}). Name one, as {file}:CLASS.")
    kind = classes.get(class_name or names[0])
    if kind is None:
        raise UsageError(f"{file} has no class {class_name!r}. Available: {', '.join(classes) or 'none'}.")
    if not issubclass(kind, base):
        article = "an" if noun[0] in "aeiou" else "a"
        raise UsageError(
            f"{class_name} in {file} is not {article} {noun}. Derive it from forgetbench.{noun}s.{base.__name__}."
        )
    _check_class(kind, file, function)
    return kind


def refuse_known_name(registry: Registry[type[Kind]], kind: type[Kind], name: str, file: str) -> None:
    """Refuse a class outside this package that has the name of one of this package: results would share a label.

    Args:
        registry: The names of this package.
        kind: The class.
        name: The name of its card.
        file: Where it is defined.

    Raises:
        UsageError: The name is taken; the message says how to choose another.
    """
    if name in registry and not kind.__module__.startswith(f"{registry.package}.") and registry.get(name) is not kind:
        article = "an" if registry.kind[0] in "aeiou" else "a"
        raise UsageError(
            f"{kind.__name__} in {file} has the name of {article} {registry.kind} of this package, {name!r}. Rename "
            f"the class, or give its card another name, such as {name + '-own'!r}."
        )


def parse_values(noun: str, name: str, text: str) -> dict[str, Scalar]:
    """The values of `name=value,name=value`.

    Args:
        noun: What they are of, such as "method".
        name: Its name, for messages.
        text: The assignments.

    Raises:
        UsageError: The text is no list of assignments.
    """
    from forgetbench.options import parse_assignments

    try:
        return parse_assignments(text.split(","), f"{noun} {name}")
    except UsageError as error:
        article = "An" if noun[0] in "aeiou" else "A"
        raise UsageError(f"{error} {article} {noun} with values is {name}:PARAMETER=VALUE,...") from None


def _check_class(kind: type, file: str, function: str) -> None:
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if missing:
        arguments = function[function.index("(") :]
        raise UsageError(f"{kind.__name__} in {file} lacks {', '.join(missing)}{arguments}.")
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
