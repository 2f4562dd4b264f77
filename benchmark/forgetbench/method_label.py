"""The grammar in which people name methods; it is parsed and printed here only.

ssd                              a method by name
ssd:alpha=3,dampening=0.5        ... with hyper-parameters
my_method.py                     the only method of a file
my_method.py:MyMethod            a class of a file
my_method.py:MyMethod:lr=0.1     ... with hyper-parameters
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from forgetbench.errors import UsageError

# The path ends at the first ".py" after which a class can follow: folders and values may contain ".py" and colons.
_FILE = re.compile(r"(?P<path>.*?\.py)(?::(?P<class_name>[^:/\\]*)(?::(?P<values>.*))?)?", re.DOTALL)


class MethodLabel(NamedTuple):
    """A method's name with the hyper-parameters that were given: the label of a row."""

    name: str
    """The method's name."""
    values: str = ""
    """The hyper-parameters: ``name=value,name=value``."""

    @classmethod
    def parse(cls, text: str) -> MethodLabel:
        """Parse a label."""
        name, _, values = text.partition(":")
        return cls(name.strip(), values.strip())

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the hyper-parameters that were given."""
        return tuple(self.assignments)

    @property
    def assignments(self) -> dict[str, str]:
        """Name -> text of the value, for the hyper-parameters that were given."""
        parts = [part.partition("=") for part in self.values.split(",") if part.strip()]
        return {name.strip(): value.strip() for name, _, value in parts}

    def extended(self, values: Mapping[str, object]) -> MethodLabel:
        """The label with further hyper-parameters."""
        given = [f"{name}={value}" for name, value in values.items()]
        return self._replace(values=",".join([*filter(None, [self.values]), *given]))

    def __str__(self) -> str:
        """The text that `parse` reads, without white space in the hyper-parameters."""
        values = "".join(self.values.split())
        return f"{self.name}:{values}" if values else self.name


class MethodFile(NamedTuple):
    """A class of a Python file, with the hyper-parameters that were given."""

    path: str
    """The file."""
    class_name: str = ""
    """The class; "" if the file defines only one method."""
    values: str = ""
    """The hyper-parameters: ``name=value,name=value``."""

    @classmethod
    def parse(cls, text: str) -> MethodFile:
        """The file, class and hyper-parameters that a text names.

        Raises:
            UsageError: The text names no Python file.
        """
        match = _FILE.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} does not name a Python file. Write FILE.py:CLASS, such as my_method.py:MyMethod."
            )
        return cls(match["path"], match["class_name"] or "", match["values"] or "")

    @property
    def address(self) -> str:
        """File and class without hyper-parameters."""
        return f"{self.path}:{self.class_name}" if self.class_name else self.path


def is_method_file(text: str) -> bool:
    """Whether a text names a Python file rather than a method."""
    return _FILE.fullmatch(text) is not None
