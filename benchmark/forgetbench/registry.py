"""Names to things: lazy targets, plug-ins by entry point, and an answer to a misspelt name."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

from forgetbench.errors import ForgetBenchError, UsageError

MANY = 20
"""More names than this are read in a list of their own rather than in a message."""
LISTS = {kind: f"{kind}s" for kind in ("task", "method", "metric", "scenario", "network")} | {"image set": "datasets"}
"""Kinds of names that `forgetbench list` shows -> what it calls them."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Family(Protocol[T_co]):
    """Names that another library knows."""

    def names(self) -> list[str]:
        """All of them."""
        ...

    def get(self, name: str) -> T_co:
        """The thing behind one; UsageError where there is none."""
        ...


class Registry(Generic[T]):
    """A table of names.

    A target may be given as ``"package.module:attribute"``; it is then imported when first asked for, so that listing
    names costs nothing. Names of installed plug-ins come from the entry-point group, and never replace our own.
    A family stands for all names ``prefix/NAME``, which another library knows.
    """

    def __init__(self, kind: str, entry_points: str | None = None) -> None:
        self.kind = kind
        self._group = entry_points
        self._targets: dict[str, T | str] = {}
        self._families: dict[str, str] = {}
        self._plugins_read = False

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

    def family(self, prefix: str, target: str) -> None:
        """Add all names ``prefix/NAME``.

        Args:
            prefix: What stands before the slash.
            target: ``"module:class"`` of a :class:`Family`, made when one of its names is first asked for.
        """
        self._families[prefix] = target

    def families(self) -> dict[str, str]:
        """What stands for a family in a list -> what it is, as its class says."""
        return {f"{prefix}/NAME": _summary(_load(target)) for prefix, target in self._families.items()}

    def names(self, pattern: str = "*") -> list[str]:
        """All names that match a wildcard pattern, sorted; those of a family only where the pattern names it."""
        self._read_plugins()
        known = list(self._targets)
        prefix = pattern.partition("/")[0]
        if "/" in pattern and prefix in self._families:
            known += [f"{prefix}/{name}" for name in self._family(prefix).names()]
        return sorted(fnmatch.filter(known, pattern))

    def __contains__(self, name: object) -> bool:
        """Whether the name is known; of a family's names, any is until it is asked for."""
        self._read_plugins()
        return name in self._targets or (isinstance(name, str) and name.partition("/")[0] in self._families)

    def get(self, name: str) -> T:
        """The thing behind a name.

        Raises:
            UsageError: Nobody has that name; the message holds the nearest, and all or how to list them.
        """
        self._read_plugins()
        prefix, slash, rest = name.partition("/")
        if slash and prefix in self._families:
            return self._family(prefix).get(rest)
        if name not in self._targets:
            raise UsageError(unknown(self.kind, name, [*self.names(), *(f"{known}/NAME" for known in self._families)]))
        target = self._targets[name]
        return cast("T", _load(target)) if isinstance(target, str) else target

    def _family(self, prefix: str) -> Family[T]:
        return cast("Family[T]", _load(self._families[prefix])())

    def _read_plugins(self) -> None:
        if self._group is None or self._plugins_read:
            return
        self._plugins_read = True
        for entry in importlib.metadata.entry_points(group=self._group):
            self._targets.setdefault(entry.name, entry.value)


def unknown(kind: str, name: str, names: list[str]) -> str:
    """The sentence for a name that nobody has: the nearest ones first, then all, or where to read them if many."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    if near and len(names) > MANY and kind in LISTS:
        return f"There is no {kind} {name!r}.{hint} `forgetbench list {LISTS[kind]}` shows all {len(names)}."
    return f"There is no {kind} {name!r}.{hint} There are: {', '.join(names) or 'none'}."


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _summary(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


def _address(thing: object) -> str:
    return (
        thing if isinstance(thing, str) else f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"
    )
