"""Registries: lazy targets by name, plug-ins by entry point, and suggestions for misspelled names."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from forgetbench.errors import ForgetBenchError, UsageError

MANY = 20
"""If there are more names than this, a message points to the command that lists them."""
LISTS = {kind: f"{kind}s" for kind in ("task", "method", "attack", "metric", "scenario", "network")} | {
    "image set": "datasets"
}
"""Kinds of names that `forgetbench list` shows -> the argument of that command."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F")


class Family(Protocol[T_co]):
    """Names that another library knows."""

    def names(self) -> list[str]:
        """All names."""
        ...

    def get(self, name: str) -> T_co:
        """The object of a name; UsageError if the name is unknown."""
        ...


class Registry(Generic[T]):
    """A table of names.

    A target may be given as ``"package.module:attribute"``; it is then imported on first use, so that listing names
    costs nothing. Names of installed plug-ins come from the entry-point group, and never replace names of this package.
    A family contains all names ``prefix/NAME``, which another library knows.

    The registry of a package is a variable in its ``__init__.py`` that is named like the package. The package's modules
    register what they define with a decorator::

        @datasets.register("digits")
        @dataclass(frozen=True, kw_only=True)
        class Digits(Loader): ...

    Those decorators are read from the source files when a name is first needed, without importing any of them: adding a
    module to the package is all that it takes to add a name.
    """

    def __init__(self, kind: str, entry_points: str | None = None, package: str | None = None) -> None:
        """Make an empty registry.

        Args:
            kind: What its names are called in messages, such as ``"image set"``.
            entry_points: Group of the entry points by which installed plug-ins add names.
            package: Package whose modules register names, such as ``"forgetbench.datasets"``.
        """
        self.kind = kind
        self._group = entry_points
        self.package = package
        self._targets: dict[str, T | str] = {}
        self._families: dict[str, object] = {}
        self._aliases: dict[str, str] = {}
        self._discovered = False

    def register(self, name: str, target: T | str | None = None) -> Callable[[T], T]:
        """Add a name, as a decorator or with the target (the thing itself, or ``"module:attribute"``).

        Raises:
            ForgetBenchError: The name is taken by something else.
        """

        def add(thing: T | str) -> None:
            known = self._targets.get(name)
            if known is not None and not (isinstance(known, str) and known == _address(thing)):
                raise ForgetBenchError(f"{self.kind} {name!r} is registered twice: {known!r} and {thing!r}")
            self._targets[name] = thing

        def decorate(thing: T) -> T:
            add(thing)
            return thing

        if target is not None:
            add(target)
        return decorate

    def alias(self, former: str, name: str) -> None:
        """Accept a former name, which is not listed."""
        self._aliases[former] = name

    def family(self, prefix: str) -> Callable[[type[F]], type[F]]:
        """Class decorator: add all names ``prefix/NAME`` that a :class:`Family` knows.

        Args:
            prefix: The text before the slash.
        """

        def decorate(thing: type[F]) -> type[F]:
            self._families[prefix] = thing
            return thing

        return decorate

    def families(self) -> dict[str, str]:
        """``prefix/NAME`` -> first line of the family's documentation, for every family."""
        self._discover()
        return {f"{prefix}/NAME": _summary(_resolve(target)) for prefix, target in self._families.items()}

    def names(self, pattern: str = "*") -> list[str]:
        """All names that match a wildcard pattern, sorted; those of a family only where the pattern names it."""
        self._discover()
        known = list(self._targets)
        prefix = pattern.partition("/")[0]
        if "/" in pattern and prefix in self._families:
            known += [f"{prefix}/{name}" for name in self._family(prefix).names()]
        return sorted(fnmatch.filter(known, pattern))

    def __contains__(self, name: object) -> bool:
        """Whether the name is known; any name of a family counts as known until it is used."""
        self._discover()
        return (
            name in self._targets
            or name in self._aliases
            or (isinstance(name, str) and name.partition("/")[0] in self._families)
        )

    def get(self, name: str) -> T:
        """The object of a name.

        Raises:
            UsageError: The name is unknown; the message has similar names, and all names or how to list them.
        """
        self._discover()
        name = self._aliases.get(name, name)
        prefix, slash, rest = name.partition("/")
        if slash and prefix in self._families:
            return self._family(prefix).get(rest)
        if name not in self._targets:
            raise UsageError(unknown(self.kind, name, [*self.names(), *(f"{known}/NAME" for known in self._families)]))
        return cast("T", _resolve(self._targets[name]))

    def _family(self, prefix: str) -> Family[T]:
        return cast("Family[T]", _resolve(self._families[prefix])())

    def _discover(self) -> None:
        """Add the names of the package's modules and of plug-ins, once."""
        if self._discovered:
            return
        self._discovered = True
        if self.package is not None:
            for decorator, name, address in declarations(self.package):
                table = cast("dict[str, object]", self._families if decorator == "family" else self._targets)
                known = table.setdefault(name, address)
                if (known if isinstance(known, str) else _address(known)) != address:
                    raise ForgetBenchError(f"{self.kind} {name!r} is registered twice: {known!r} and {address!r}")
        if self._group is not None:
            for entry in importlib.metadata.entry_points(group=self._group):
                self._targets.setdefault(entry.name, entry.value)


def declarations(package: str) -> list[tuple[str, str, str]]:
    """What the modules of a package register, read from their source without importing them.

    Found are classes and functions at the top level of a module with the decorator ``@PACKAGE.register("name")`` or
    ``@PACKAGE.family("name")``, where PACKAGE is the last part of the package's name.

    Args:
        package: Name of an importable package.

    Returns:
        (decorator, name, ``"module:attribute"``) of each, sorted by module.
    """
    variable = package.rpartition(".")[2]
    pattern = re.compile(
        rf"^@{variable}\.(register|family)\(\s*[\"']([^\"']+)[\"'],?\s*\)\n(?:[@ )#].*\n)*(?:class|def) (\w+)",
        re.MULTILINE,
    )
    modules = importlib.import_module(package)
    result = []
    for folder in map(Path, modules.__path__):
        for path in sorted(folder.rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if f"\n@{variable}." not in source:
                continue
            parts = path.relative_to(folder).with_suffix("").parts
            module = ".".join([package, *(part for part in parts if part != "__init__")])
            result += [
                (decorator, name, f"{module}:{attribute}") for decorator, name, attribute in pattern.findall(source)
            ]
    return result


def unknown(kind: str, name: str, names: list[str]) -> str:
    """The message for an unknown name: similar names first, then all names or how to list them."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} {how_to_list(kind, names)}"


def how_to_list(kind: str, names: list[str]) -> str:
    """The names in a sentence; if there are many, the command that lists them, or the first ones."""
    if len(names) <= MANY:
        return f"Available: {', '.join(names) or 'none'}."
    if kind in LISTS:
        return f"`forgetbench list {LISTS[kind]}` shows all {len(names)}."
    return f"Available: {', '.join(names[:MANY])} and {len(names) - MANY:,} more."


def _resolve(target: object) -> Any:
    """The object of a target, imported if the target is an address."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _summary(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


def _address(thing: object) -> str:
    return (
        thing if isinstance(thing, str) else f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"
    )
