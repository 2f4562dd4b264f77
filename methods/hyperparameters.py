"""What a method says of itself before it runs: its card, its hyper-parameters, and the tasks it applies to."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from forgetbench.errors import UsageError
from forgetbench.evidence.run import MethodName
from forgetbench.registry import unknown

Scalar = bool | int | float | str | None
"""What a hyper-parameter may be: anything that survives JSON and a command line."""


class MethodCard(BaseModel):
    """Who made a method, what it needs, where it applies, and what is known of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: MethodName
    """The name it is called by, such as `random-label`."""
    title: str
    """One line on what it does."""
    authors: str
    """Authors of the paper, or of the method where there is none."""
    year: int | None
    """Year of the paper."""
    venue: str
    """Where it was published; "this benchmark" for what was not."""
    link: str
    """Address of the paper, or empty."""
    bibtex: str
    """How to cite it, or empty."""
    family: str
    """Kind of method: reference, fine-tuning, ascent, relabelling, damping, distillation, influence, adapter, ..."""
    needs: frozenset[Literal["forget", "retain", "validation"]]
    """The examples that it reads; nothing else of the request may be touched."""
    changes_training: bool = False
    """Whether it can ask for originals of its own, trained with another loss."""
    networks: tuple[str, ...] = ("*",)
    """Names of the networks that it applies to; `*` is all."""
    scenarios: tuple[str, ...] = ("*",)
    """Names of the scenarios that it applies to; `*` is all."""
    attributes: bool = True
    """Whether it applies to labels of A attributes."""
    random: bool | None = True
    """Whether another seed gives another model; None = not said."""
    fails_at: str
    """What it is known to fail at."""
    sentinel: bool = False
    """A contestant whose place is known beforehand; listed only when asked for."""
    reference: bool = False
    """A row that stands on every board: no unlearning, and retraining."""


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What a method may know of a task before any work is done."""

    network: str
    """Name of the network."""
    like: str = ""
    """The network that it is built like, where that is another one: what holds for that one holds for it."""
    scenario: str
    """Name of the scenario."""
    attributes: bool
    """Whether labels are rows of attributes."""
    outputs: int
    """Classes or attributes."""


class ParameterFacts(NamedTuple):
    """One hyper-parameter, for a listing."""

    name: str
    kind: str
    default: Scalar
    range: str
    authors: Scalar
    help: str
    search: tuple[Scalar, ...] | None = None
    """What tuning searches: two numbers are the ends of a range, anything else a choice; None = left alone."""


def param(
    default: Scalar,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    help: str = "",
    authors: Scalar = None,
    search: tuple[Scalar, ...] | None = None,
) -> Any:
    """A hyper-parameter: a dataclass field whose range is checked when the method is made.

    Args:
        default: Our default; `None` is allowed as a value only where the field's type says so.
        low: Least value, itself allowed.
        high: Largest value, itself allowed.
        above: Bound that the value must exceed.
        below: Bound that the value must stay under.
        choices: The words that are allowed.
        help: One line on what it does.
        authors: The default of the authors, where it differs.
        search: What `forgetbench tune` searches: (least, largest), or the values to choose from; None = left alone.
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    return dataclasses.field(
        default=default,
        metadata={"bounds": bounds, "choices": choices, "help": help, "authors": authors, "search": search},
    )


def parameters(kind: type) -> list[ParameterFacts]:
    """The hyper-parameters of a method's class, in order."""
    types_ = _types(kind)
    return [
        ParameterFacts(
            field.name,
            " or ".join("None" if part is type(None) else part.__name__ for part in types_[field.name]),
            None if field.default is dataclasses.MISSING else field.default,
            describe_range(field),
            field.metadata.get("authors"),
            field.metadata.get("help", ""),
            field.metadata.get("search"),
        )
        for field in dataclasses.fields(kind)
    ]


def describe_range(field: dataclasses.Field[Any]) -> str:
    """The values that a field allows, such as `(0, 1]`, `>= 1` or `batch | per-sample`."""
    choices, bounds = field.metadata.get("choices"), field.metadata.get("bounds", {})
    if choices:
        return " | ".join(choices)
    low, high, above, below = (bounds.get(name) for name in ("low", "high", "above", "below"))
    left = f"[{low:g}" if low is not None else f"({above:g}" if above is not None else None
    right = f"{high:g}]" if high is not None else f"{below:g})" if below is not None else None
    if left and right:
        return f"{left}, {right}"
    if left:
        return f"{'>=' if left[0] == '[' else '>'} {left[1:]}"
    return f"{'<=' if right[-1] == ']' else '<'} {right[:-1]}" if right else "any"


def checked(method: str, kind: type, values: Mapping[str, object]) -> dict[str, Scalar]:
    """Hyper-parameters of the right type and in range, a whole number for a float made a float.

    Raises:
        UsageError: A name is unknown, or a value is of the wrong type or out of range.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    types_ = _types(kind)
    result: dict[str, Scalar] = {}
    for name, value in values.items():
        if name not in fields:
            raise UsageError(unknown(f"hyper-parameter of method {method}", name, sorted(fields)))
        cast_value = _cast(value, types_[name])
        if cast_value is _REFUSED or not _within(fields[name], cast_value):
            wanted = " or ".join("None" if part is type(None) else part.__name__ for part in types_[name])
            raise UsageError(
                f"method {method}: {name} must be {wanted} in range {describe_range(fields[name])}, not {value!r}"
            )
        result[name] = cast_value
    return result


_REFUSED: Any = object()


def _types(kind: type) -> dict[str, tuple[type, ...]]:
    hints = typing.get_type_hints(kind)
    return {
        field.name: typing.get_args(hint)
        if isinstance(hint := hints[field.name], types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
        for field in dataclasses.fields(kind)
    }


def _cast(value: object, allowed: tuple[type, ...]) -> Any:
    if type(value) in allowed:
        return value
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if int in allowed and isinstance(value, float) and value.is_integer():
        return int(value)
    return _REFUSED


def _within(field: dataclasses.Field[Any], value: Any) -> bool:
    choices, bounds = field.metadata.get("choices"), field.metadata.get("bounds", {})
    if value is None:
        return True
    if choices:
        return value in choices
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return False
    low, high, above, below = (bounds.get(name) for name in ("low", "high", "above", "below"))
    return (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def parse_value(text: str) -> Scalar:
    """A value as it stands on a command line: None, true, false, a number, or else a word."""
    word = text.strip()
    lowered = word.lower()
    if lowered in ("none", "null"):
        return None
    if lowered in ("true", "false"):
        return lowered == "true"
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def minimal_card(kind: type) -> MethodCard:
    """A card for a class that has none, out of its name and its docstring: it is taken to need everything."""
    words = inspect.getdoc(kind) or ""
    first = words.strip().splitlines()[0] if words.strip() else kind.__name__
    return MethodCard(
        name=_dashed(kind.__name__),
        title=first,
        authors="",
        year=None,
        venue="",
        link="",
        bibtex="",
        family="own",
        needs=frozenset({"forget", "retain", "validation"}),
        random=None,
        fails_at="not said",
    )


def _dashed(name: str) -> str:
    return "".join(
        f"-{letter.lower()}" if letter.isupper() and place and not name[place - 1].isupper() else letter.lower()
        for place, letter in enumerate(name)
    )
