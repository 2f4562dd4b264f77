"""Names to things: lazy targets, plug-ins by entry point, and an answer to a misspelt name."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from forgetbench.errors import ForgetBenchError, UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of names.

    A target may be given as ``"package.module:attribute"``; it is then imported when first asked for, so that listing
    names costs nothing. Names of installed plug-ins come from the entry-point group, and never replace our own.
    """

    def __init__(self, kind: str, entry_points: str | None = None) -> None:
        self.kind = kind
        self._group = entry_points
        self._targets: dict[str, T | str] = {}
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

    def names(self, pattern: str = "*") -> list[str]:
        """All names that match a wildcard pattern, sorted."""
        self._read_plugins()
        return sorted(fnmatch.filter(self._targets, pattern))

    def __contains__(self, name: object) -> bool:
        """Whether the name is known."""
        self._read_plugins()
        return name in self._targets

    def get(self, name: str) -> T:
        """The thing behind a name.

        Raises:
            UsageError: Nobody has that name; the message holds the nearest and all that there are.
        """
        self._read_plugins()
        if name not in self._targets:
            raise UsageError(unknown(self.kind, name, self.names()))
        target = self._targets[name]
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            return cast("T", getattr(importlib.import_module(module), attribute))
        return target

    def _read_plugins(self) -> None:
        if self._group is None or self._plugins_read:
            return
        self._plugins_read = True
        for entry in importlib.metadata.entry_points(group=self._group):
            self._targets.setdefault(entry.name, entry.value)


def unknown(kind: str, name: str, names: list[str]) -> str:
    """The sentence for a name that nobody has: the nearest ones first, then all."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"There is no {kind} {name!r}.{hint} There are: {', '.join(names) or 'none'}."


def _address(thing: object) -> str:
    return (
        thing if isinstance(thing, str) else f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"
    )
