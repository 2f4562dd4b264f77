"""What loaders and scenarios share: options that check themselves, the loader's contract, and seeds made from names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, get_origin, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from forgetbench.datasets.problems import FileProblems, Problem, problem_error, problems_of
from forgetbench.datasets.types import DatasetCard, Partition
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.registry import unknown

if TYPE_CHECKING:
    from collections.abc import Mapping


class OptionDoc(NamedTuple):
    """One option, for people."""

    name: str
    kind: str
    default: Any
    description: str


def option(default: Any, description: str, **constraints: Any) -> Any:
    """A field of :class:`Options`: its default, what it means, and pydantic's constraints (``gt``, ``le``, ...)."""
    return dataclasses.field(
        default=default, metadata={"pydantic": Field(default=default, description=description, **constraints)}
    )


class Options:
    """Base of frozen, keyword-only dataclasses whose fields were made with :func:`option`.

    Values are checked when the object is made; lists become tuples, and one value stands for a list of one.

    Raises:
        UsageError: A value does not fit; the message names the option and what it may be.
    """

    option_owner: ClassVar[str] = "options"
    """Whose options these are, for messages: "image set 'digits'"."""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        model = _model(type(self))
        for name, field in model.model_fields.items():
            if get_origin(field.annotation) is tuple and isinstance(values[name], str | int | float):
                values[name] = (values[name],)
        try:
            checked = model.model_validate(values)
        except ValidationError as error:
            raise UsageError(_explain(self.option_owner, error)) from None
        for name in values:
            object.__setattr__(self, name, getattr(checked, name))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Make it from a mapping, as read from a task or the command line.

        Raises:
            UsageError: An option is unknown or its value does not fit.
        """
        known = [document.name for document in cls.options()]
        for name in values:
            if name not in known:
                raise UsageError(f"{cls.option_owner}: {unknown('option', name, known)}")
        return cls(**values)

    @classmethod
    def options(cls) -> list[OptionDoc]:
        """All options with type, default and meaning, in the order of the class."""
        schema = _model(cls).model_json_schema()["properties"]
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        return [OptionDoc(f.name, _kind(schema[f.name]), f.default, schema[f.name]["description"]) for f in fields]

    def to_dict(self) -> dict[str, Any]:
        """All options as plain values that JSON can hold, defaults included."""
        plain: dict[str, Any] = _model(type(self)).model_validate(vars(self)).model_dump(mode="json")
        return plain


class Examined(NamedTuple):
    """What a loader found when it looked for problems."""

    partition: Partition | None
    """What could be read; None where nothing can be made of it."""
    problems: list[Problem]
    """All that is wrong with the files."""


class Loader(Options, ABC):
    """An image set with its options: how it is read, split and labeled.

    A loader is a frozen, keyword-only dataclass; ``card`` says what the set is.
    """

    card: ClassVar[DatasetCard]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "card" in vars(cls):
            cls.option_owner = f"image set {cls.card.name!r}"

    @abstractmethod
    def load(self, root: Path | None) -> Partition:
        """Read or draw the images.

        Args:
            root: The data folder; None where the user named none. Embedded sets do not look at it.

        Raises:
            UsageError: Files are missing or wrong; the message says which, what was expected and where to get them.
        """

    def differences(self, root: Path | None) -> list[str]:  # noqa: ARG002 (of most sets nothing is known)
        """How files that :meth:`load` can read differ from the set as published, a sentence without full stop each.

        Args:
            root: The data folder.
        """
        return []

    def examine(self, root: Path | None) -> Examined:
        """What can be read, and everything that is wrong with the rest.

        Args:
            root: The data folder.
        """
        try:
            return Examined(self.load(root), [])
        except ForgetBenchError as error:
            return Examined(None, problems_of(error))

    def folder(self, root: Path | None, *names: str, expects: str) -> Path:
        """The folder of this set: ``root/name`` for the first name that exists, or ``root`` itself if it fits.

        Args:
            root: The data folder, or the set's own folder.
            names: Folder names below the data folder.
            expects: A file or folder by which the right folder is known.

        Raises:
            FileProblems: No data folder was named, or none of the folders holds what is expected.
        """
        if root is not None:
            for candidate in (*(root / name for name in names), root):
                if (candidate / expects).exists():
                    return candidate
        raise self.missing(root, f"there is no {expects!r} below {root} or {root / names[0]}" if root else "")

    def missing(self, root: Path | None, found: str) -> FileProblems:
        """The error for files that are not there: what was found, what is expected, and where to get them."""
        found = found if root is not None else "no data folder was named"
        return problem_error(
            "missing set",
            f"Image set {self.card.name!r} needs files, and {found}. Expected is {self.card.layout}",
            f"{self.card.obtain} Then name the data folder with --root.",
        )


class FileLoader(Loader):
    """Base of loaders that read many files, and go on with the good ones to find all that is wrong."""

    @abstractmethod
    def read(self, root: Path | None, problems: list[Problem]) -> Partition:
        """Read what can be read.

        Args:
            root: The data folder.
            problems: Where everything is put that is wrong.

        Raises:
            ForgetBenchError: Nothing can be made of what is left.
        """

    def load(self, root: Path | None) -> Partition:
        """Read the images.

        Args:
            root: The data folder.

        Raises:
            FileProblems: Files or rows are missing or wrong; it holds all of them.
        """
        partition, problems = self.examine(root)
        wrong = [problem for problem in problems if problem.serious]
        if partition is None or wrong:
            head = f"{self.option_owner} has {len(wrong)} problems; `forgetbench data check` says how to mend them:"
            raise FileProblems(head if len(wrong) > 1 else "", wrong)
        return partition

    def examine(self, root: Path | None) -> Examined:
        """What can be read, and everything that is wrong with the rest.

        Args:
            root: The data folder.
        """
        problems: list[Problem] = []
        try:
            return Examined(self.read(root, problems), problems)
        except ForgetBenchError as error:
            return Examined(None, problems + problems_of(error))


def generator(*names: str | int) -> np.random.Generator:
    """A random generator of its own for every list of names; the same in all processes and on all machines.

    Callers draw uniform doubles only (:func:`order`): numpy keeps their stream from release to release.
    """
    words = hashlib.sha256(json.dumps(names).encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(words, "big"))))


def _model(cls: type[Options]) -> type[BaseModel]:
    """The pydantic model with the options as fields. Other annotations may name what only type checkers import."""
    options = {field.name: field.metadata["pydantic"] for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    fields: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        written = {name: text for name, text in vars(owner).get("__annotations__", {}).items() if name in options}
        holder = SimpleNamespace(__annotations__=written)
        hints = get_type_hints(holder, vars(sys.modules[owner.__module__]))
        fields |= {name: (hint, options[name]) for name, hint in hints.items()}
    return create_model(cls.__name__, __config__=ConfigDict(extra="forbid"), **fields)


def _explain(owner: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        lines.append(f"{owner}: option {name!r} is {problem['input']!r}: {problem['msg'].lower()}")
    return "\n".join(lines)


def _kind(schema: dict[str, Any]) -> str:
    """A JSON schema as a few words: "integer", "'a' or 'b'", "list of string"."""
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(repr(value) for value in schema["enum"])
    if "const" in schema:
        return repr(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    kind = str(schema.get("type", "any"))
    return {"null": "none", "boolean": "true or false"}.get(kind, kind)
