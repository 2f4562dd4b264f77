"""Base of specifications: a class by name or file with all its options, as a command line names it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from forgetbench.fingerprints import method_fingerprint
from forgetbench.method_label import MethodFile, MethodLabel
from forgetbench.methods._foreign_code import refused_errors
from forgetbench.store import JsonObject, digest

if TYPE_CHECKING:
    from forgetbench.options import Scalar


class _Card(Protocol):
    @property
    def name(self) -> str: ...


class _Configured(Protocol):
    """Options with a card: a method or an attack."""

    @property
    def card(self) -> _Card: ...

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self: ...

    def to_dict(self) -> dict[str, Any]: ...

    @classmethod
    def current_assignment(cls, text: str) -> str: ...


T = TypeVar("T", bound=_Configured)


@dataclass(frozen=True)
class Spec(ABC, Generic[T]):
    """A method or an attack by name or file, with all its options. Picklable; `build` makes the object."""

    label: str
    """Its name, followed by the options that were given."""
    name: str
    """Its name in its card."""
    parameters: Mapping[str, Scalar] = field(hash=False)
    """All options."""
    file: str | None = None
    """``file.py:Class`` of one that is not part of this package."""

    @classmethod
    def of(cls, thing: T, label: str = "", file: str | None = None) -> Self:
        """The specification of an object.

        Args:
            thing: The method or attack.
            label: Its label; "" is its name.
            file: ``file.py:Class`` of one that is not part of this package.
        """
        return cls(label or thing.card.name, thing.card.name, thing.to_dict(), file)

    @classmethod
    @abstractmethod
    def load(cls, name: str, file: str | None) -> type[T]:
        """The class of a name or of a file."""

    def build(self) -> T:
        """The object.

        Raises:
            UsageError: Its file is gone, or has changed so that it no longer takes these options.
        """
        kind = self.load(self.name, self.file)
        with refused_errors(f"Making {self.place}"):
            return kind.from_dict(self.parameters)

    @property
    def kind(self) -> type[T]:
        """Its class."""
        return type(self.build())

    @property
    def key(self) -> str:
        """A hash of label, file and options."""
        return digest([self.label, self.name, self.file, dict(self.parameters)])

    @property
    def place(self) -> str:
        """Where it comes from, for messages."""
        return f"{self.name} in {self.file}" if self.file else self.name

    @property
    def source(self) -> str | None:
        """The source text of one that is not part of this package."""
        if self.file is None:
            return None
        return Path(MethodFile.parse(self.file).path).read_text(encoding="utf-8")

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its behavior."""
        return method_fingerprint(self.kind)

    def identity(self) -> JsonObject:
        """What shapes the results: name, options and behavior, but not the label or the file's path."""
        return {"name": self.name, "parameters": dict(self.parameters), "fingerprint": self.fingerprint}

    def with_parameters(self, values: Mapping[str, Scalar]) -> Self:
        """The same with other options, checked.

        Raises:
            UsageError: A name is unknown, or a value out of range.
        """
        return replace(self, parameters=self.kind.from_dict({**self.parameters, **values}).to_dict())


def current_label(thing: _Configured, values: str) -> str:
    """The label of an object: its name and the given options (``name=value,...``), both by their present names."""
    parts = [thing.current_assignment(part) for part in values.split(",") if part.strip()]
    return str(MethodLabel(thing.card.name, ",".join(parts)))


def file_address(file: MethodFile, kind: type) -> str:
    """``file.py:Class`` with the full path of the file."""
    return f"{Path(file.path).resolve()}:{file.class_name or kind.__name__}"
