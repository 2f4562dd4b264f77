"""Options: documented, checked fields of frozen dataclasses, shared by methods, image sets, scenarios and networks.

A class of options is a frozen, keyword-only dataclass that derives from `Options`; `option` declares its fields::

    @dataclass(frozen=True, kw_only=True)
    class DigitsOptions(Options):
        option_owner: ClassVar[str] = "image set 'digits'"

        train: int = option(1000, "Training images.", ge=20, le=1700)
        order: str = option("random", "Order of the images.", choices=("random", "class"), aliases=("sort",))
        sizes: tuple[Annotated[int, Field(ge=1)], ...] = option((256, 128), "Widths of the hidden layers.")

An option of type `Rate` or `Duration` is a number, or a text that scales with a task: ``0.1x`` is a tenth of the
learning rate or of the epochs of the task's recipe, and ``40steps`` is that number of optimizer steps.

Pydantic checks the values when an object is made. This module imports neither torch nor numpy.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self
from weakref import WeakKeyDictionary

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from forgetbench.errors import UsageError
from forgetbench.registry import unknown

Scalar = bool | int | float | str | None
"""A value that survives JSON and a command line."""


@dataclass(frozen=True)
class ScalesWith:
    """Mark of a type whose texts scale with the recipe of a task."""

    field: Literal["lr", "epochs"]
    """What of the recipe a multiple refers to."""
    units: tuple[str, ...]
    """Ends of the texts that are accepted."""


Rate = Annotated[float | str, ScalesWith("lr", ("x",))]
"""A learning rate: a number, or a text such as ``0.1x``, which is that multiple of the recipe's learning rate."""
Duration = Annotated[int | str, ScalesWith("epochs", ("x", "steps"))]
"""A number of epochs; or ``0.1x``, that multiple of the recipe's epochs; or ``40steps``, that number of steps."""


class ScaledValue(NamedTuple):
    """A text that scales with a task, such as ``0.1x`` or ``40steps``, read."""

    number: float
    """The multiple, or the number of steps."""
    unit: str
    """``x`` or ``steps``."""

    def __str__(self) -> str:
        """The shortest text that reads as this value."""
        return f"{int(self.number) if self.number == int(self.number) else self.number}{self.unit}"


_SCALED = re.compile(r"(?P<number>(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)(?P<unit>x|steps)", re.IGNORECASE)


def parse_scaled(text: str, units: tuple[str, ...] = ("x", "steps")) -> ScaledValue:
    """Read a text such as ``0.1x`` or ``40steps``.

    Args:
        text: The text.
        units: The ends that are accepted.

    Raises:
        UsageError: It has another form, the number is not positive and finite, or the number of steps is not whole.
    """
    match = _SCALED.fullmatch(text.strip())
    number = float(match["number"]) if match else 0.0
    unit = match["unit"].lower() if match else ""
    if unit not in units or not 0 < number < math.inf or (unit == "steps" and number != int(number)):
        forms = " or ".join({"x": "a multiple such as 0.1x", "steps": "steps such as 40steps"}[unit] for unit in units)
        raise UsageError(f"{text!r} is not {forms}, with a number above 0.")
    return ScaledValue(number, unit)


@dataclass(frozen=True, kw_only=True)
class OptionSpec:
    """Declaration of one option, stored in its dataclass field's metadata."""

    help: str = ""
    """What it means, in one line."""
    ge: float | None = None
    """Least allowed value."""
    gt: float | None = None
    """Bound that the value must exceed."""
    le: float | None = None
    """Largest allowed value."""
    lt: float | None = None
    """Bound that the value must stay below."""
    choices: tuple[Scalar, ...] | None = None
    """The allowed values."""
    aliases: tuple[str, ...] = ()
    """Former names, accepted in mappings and on the command line."""
    renamed_values: Mapping[str, Scalar] = field(default_factory=dict)
    """Former value -> present value."""
    paper_default: Scalar = None
    """The default in the paper or its code, where it differs."""
    search: tuple[Scalar, ...] | None = None
    """What `forgetbench tune` searches: (least, largest) or the values to choose from; None: not tuned."""

    @property
    def constraints(self) -> dict[str, float]:
        """The bounds that were given, by pydantic's names."""
        bounds = {"ge": self.ge, "gt": self.gt, "le": self.le, "lt": self.lt}
        return {name: bound for name, bound in bounds.items() if bound is not None}


class OptionDoc(NamedTuple):
    """Description of one option, for listings."""

    name: str
    kind: str
    """Its type in words, such as `int`, `float or None` or `list of str`."""
    default: Any
    range: str
    """The allowed values, such as `(0, 1]`, `>= 1`, `batch | per-sample` or `any`."""
    help: str
    paper_default: Scalar = None
    search: tuple[Scalar, ...] | None = None
    aliases: tuple[str, ...] = ()
    scales_with: str = ""
    """What of the recipe a multiple refers to, `lr` or `epochs`; "" where the option does not scale."""

    @property
    def is_ordered(self) -> bool:
        """Whether `search` has the ends of a range, rather than values to choose from."""
        return bool(self.scales_with) or (isinstance(self.default, int | float) and not isinstance(self.default, bool))


def option(  # noqa: PLR0913 - a declaration, read as keywords
    default: Any,
    help: str = "",
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[Scalar, ...] | None = None,
    aliases: tuple[str, ...] = (),
    renamed_values: Mapping[str, Scalar] | None = None,
    paper_default: Scalar = None,
    search: tuple[Scalar, ...] | None = None,
) -> Any:
    """Declare a dataclass field with documentation and bounds.

    Args:
        default: Default value. None is allowed as a value only if the field's type says so.
        help: What the option means, in one line.
        ge: Least allowed value.
        gt: Bound that the value must exceed.
        le: Largest allowed value.
        lt: Bound that the value must stay below.
        choices: The allowed values; a field of type `Literal` needs none.
        aliases: Former names, accepted by `Options.from_dict`.
        renamed_values: Former value -> present value.
        paper_default: The default in the paper or its code, where it differs.
        search: What `forgetbench tune` searches: (least, largest) or the values to choose from; None: not tuned.
    """
    spec = OptionSpec(
        help=help,
        ge=ge,
        gt=gt,
        le=le,
        lt=lt,
        choices=choices,
        aliases=aliases,
        renamed_values=renamed_values or {},
        paper_default=paper_default,
        search=search,
    )
    return dataclasses.field(default=default, metadata={"option": spec})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of frozen, keyword-only dataclasses whose fields are declared by `option`.

    Values are checked when an object is made: a whole number becomes a float where a float is expected, a list becomes
    a tuple, and a single value becomes a tuple of one. Text is never read as a number.

    Raises:
        UsageError: A value has the wrong type or is out of range; the message names the option and its range.
    """

    option_owner: ClassVar[str] = "options"
    """What the options belong to, for messages: "image set 'digits'"."""
    option_noun: ClassVar[str] = "option"
    """What one of them is called in messages."""

    def __post_init__(self) -> None:
        names = [f.name for f in dataclasses.fields(self)]
        model = option_model(type(self))
        values = {name: getattr(self, name) for name in names}
        try:
            checked = model.model_validate(values)
        except ValidationError as error:
            raise UsageError(_explain(type(self), values, error)) from None
        for name in names:
            object.__setattr__(self, name, getattr(checked, name))

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Make an object from names and values, as read from a file or the command line; former names are accepted.

        Raises:
            UsageError: A name is unknown or given twice, or a value does not fit.
        """
        return cls(**cls.current_names(values))

    @classmethod
    def current_names(cls, values: Mapping[str, object]) -> dict[str, Any]:
        """The values with former names replaced by present ones.

        Raises:
            UsageError: A name is unknown or given twice.
        """
        names = cls._all_names()
        present: dict[str, Any] = {}
        for name, value in values.items():
            if name not in names:
                own = [f.name for f in dataclasses.fields(cls)]
                raise UsageError(f"{cls.option_owner}: {unknown(cls.option_noun, name, own)}")
            if names[name] in present:
                raise UsageError(f"{cls.option_owner}: {name!r} is the former name of {names[name]!r}: give only one.")
            present[names[name]] = value
        return present

    @classmethod
    def current_assignment(cls, text: str) -> str:
        """A `name=value` text with a former name or value replaced by the present one; any other text unchanged."""
        name, equals, value = (part.strip() for part in text.partition("="))
        name = cls._all_names().get(name, name)
        renamed = option_specs(cls)[name].renamed_values if name in option_specs(cls) else {}
        return f"{name}{equals}{renamed.get(value, value)}"

    @classmethod
    def _all_names(cls) -> dict[str, str]:
        """Present and former names -> present name."""
        names = {f.name: f.name for f in dataclasses.fields(cls)}
        return names | {alias: name for name, spec in option_specs(cls).items() for alias in spec.aliases}

    @classmethod
    def options(cls) -> list[OptionDoc]:
        """Description of all options, in the order of the class."""
        hints, specs = option_types(cls), option_specs(cls)
        return [
            OptionDoc(
                f.name,
                type_words(hints[f.name]),
                None if f.default is dataclasses.MISSING else f.default,
                describe_range(specs[f.name], hints[f.name]),
                specs[f.name].help,
                specs[f.name].paper_default,
                specs[f.name].search,
                specs[f.name].aliases,
                mark.field if (mark := _scale(hints[f.name])) else "",
            )
            for f in dataclasses.fields(cls)
        ]

    def to_dict(self) -> dict[str, Any]:
        """All values, defaults included, as JSON can hold them."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain: dict[str, Any] = option_model(type(self)).model_validate(values).model_dump(mode="json")
        return plain


def option_specs(cls: type[Options]) -> dict[str, OptionSpec]:
    """Name -> declaration of every field; a plain dataclass field has an empty one."""
    return {f.name: f.metadata.get("option", OptionSpec()) for f in dataclasses.fields(cls)}


def option_types(cls: type[Options]) -> dict[str, Any]:
    """Name -> type of every option. Other annotations of the class may name what only type checkers import."""
    names = {f.name for f in dataclasses.fields(cls)}
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        annotations = {name: text for name, text in vars(base).get("__annotations__", {}).items() if name in names}
        module = sys.modules.get(base.__module__)
        holder = SimpleNamespace(__annotations__=annotations)
        hints |= typing.get_type_hints(holder, vars(module) if module else {}, include_extras=True)
    return hints


def option_model(cls: type[Options]) -> type[BaseModel]:
    """The pydantic model that checks a class of options, made once."""
    if cls in _MODELS:
        return _MODELS[cls]
    hints, specs = option_types(cls), option_specs(cls)
    fields: dict[str, Any] = {}
    for f in dataclasses.fields(cls):
        spec, hint = specs[f.name], hints[f.name]
        bounds: dict[str, Any] = dict(spec.constraints)
        conversion = _Conversion(hint, spec.renamed_values)
        if _scale(hint):  # bounds are those of the number, not of the text
            kinds = [Annotated[kind, Field(**bounds)] if kind in (int, float) else kind for kind in _parts(hint)]
            hint, bounds = typing.Union[tuple(kinds)], {}  # noqa: UP007 - the members are known at run time only
        if f.default_factory is not dataclasses.MISSING:
            declared = Field(default_factory=f.default_factory, description=spec.help, **bounds)
        else:
            default = ... if f.default is dataclasses.MISSING else f.default
            declared = Field(default=default, description=spec.help, **bounds)
        if spec.choices is not None:
            hint = Literal[spec.choices] | None if type(None) in _scalar_types(hint) else Literal[spec.choices]
        fields[f.name] = (Annotated[hint, BeforeValidator(conversion)], declared)
    config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
    _MODELS[cls] = create_model(cls.__name__, __config__=config, **fields)
    return _MODELS[cls]


_MODELS: WeakKeyDictionary[type, type[BaseModel]] = WeakKeyDictionary()  # weak: a notebook defines a class many times


class _Conversion:
    """Prepares a value for pydantic, whose own conversions also turn text and truth values into numbers."""

    def __init__(self, hint: Any, renamed: Mapping[str, Scalar]) -> None:
        self._is_tuple = typing.get_origin(_plain(hint)) is tuple
        self._scalars = _scalar_types(hint)
        self._scale = _scale(hint)
        self._renamed = renamed

    def __call__(self, value: Any) -> Any:
        if isinstance(value, str) and value in self._renamed:
            value = self._renamed[value]
        if self._is_tuple and isinstance(value, str | int | float):
            value = (value,)
        kind = type(value)
        if kind in (str, bool) and self._scalars and kind not in self._scalars:
            raise ValueError("wrong type")
        if kind in (int, float) and bool in self._scalars and not {int, float} & self._scalars:
            raise ValueError("wrong type")
        if self._scale and isinstance(value, str):
            try:
                return str(parse_scaled(value, self._scale.units))
            except UsageError as error:
                raise ValueError(str(error)) from None
        return value


def describe_range(spec: OptionSpec, hint: Any = Any) -> str:
    """The values that an option allows, such as `(0, 1]`, `>= 1`, `> 0 or Nx`, `batch | per-sample`, or `any`."""
    if mark := _scale(hint):
        return " or ".join(
            [
                f"{'>=' if spec.ge is not None else '>'} {spec.ge or spec.gt or 0:g}",
                *(f"N{unit}" for unit in mark.units),
            ]
        )
    choices = spec.choices or next((typing.get_args(part) for part in _parts(hint) if _is_literal(part)), None)
    if choices:
        return " | ".join(str(choice) for choice in choices)
    left = f"[{spec.ge:g}" if spec.ge is not None else f"({spec.gt:g}" if spec.gt is not None else None
    right = f"{spec.le:g}]" if spec.le is not None else f"{spec.lt:g})" if spec.lt is not None else None
    if left and right:
        return f"{left}, {right}"
    if left:
        return f"{'>=' if left[0] == '[' else '>'} {left[1:]}"
    return f"{'<=' if right[-1] == ']' else '<'} {right[:-1]}" if right else "any"


def type_words(hint: Any) -> str:
    """A type in words, such as `int`, `float or None`, `list of str or int`."""
    words = []
    for part in _parts(hint):
        origin, arguments = typing.get_origin(part), typing.get_args(part)
        if part is type(None):
            words.append("None")
        elif _is_literal(part):
            words += [type(value).__name__ for value in arguments]
        elif origin is tuple:
            words.append(f"list of {type_words(arguments[0])}")
        elif isinstance(origin, type):
            words.append("table" if issubclass(origin, Mapping) else origin.__name__)
        else:
            words.append(getattr(part, "__name__", str(part)).lower() if part is Any else part.__name__)
    return " or ".join(dict.fromkeys(words))


def _scale(hint: Any) -> ScalesWith | None:
    """The mark of a type that scales with the recipe of a task."""
    return next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, ScalesWith)), None)


def _plain(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    hint = _plain(hint)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(_plain(part) for part in typing.get_args(hint))
    return (hint,)


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is Literal


def _scalar_types(hint: Any) -> set[type]:
    """The scalar types that a type consists of; empty if it also allows something else."""
    found: set[type] = set()
    for part in _parts(hint):
        if _is_literal(part):
            found |= {type(value) for value in typing.get_args(part)}
        elif part in (bool, int, float, str, type(None)):
            found.add(part)
        else:
            return set()
    return found


def _explain(cls: type[Options], values: Mapping[str, Any], error: ValidationError) -> str:
    """One line for every option that is wrong."""
    documents = {document.name: document for document in cls.options()}
    lines: dict[str, str] = {}
    for problem in error.errors():
        name, *inner = (str(part) for part in problem["loc"])
        document = documents[name]
        allowed = _allowed_words(document)
        detail = f" ({problem['input']!r}: {problem['msg'].lower()})" if any(part.isdigit() for part in inner) else ""
        lines.setdefault(name, f"{cls.option_owner}: {name} must be {allowed}, not {values[name]!r}{detail}.")
    return "\n".join(lines.values())


def _allowed_words(document: OptionDoc) -> str:
    """Type and range in words, such as `a number > 0`, `a whole number >= 1 or None`, `one of batch | per-sample`."""
    kind, range_ = document.kind.removesuffix(" or None"), document.range
    if document.scales_with:
        noun = _NOUNS[kind.partition(" or ")[0]]
        return f"{noun} {range_}, such as 0.1x for a tenth of the recipe's {document.scales_with}"
    noun = _NOUNS.get(kind, kind)
    if range_ == "any":
        words = noun
    elif range_[0] in "<>":
        words = f"{noun} {range_}"
    else:
        words = f"{noun} in {range_}" if range_[0] in "([" else f"one of {range_}"
    return f"{words} or None" if kind != document.kind else words


_NOUNS = {"float": "a number", "int": "a whole number", "str": "text", "bool": "true or false"}
"""Type -> what a value of it is called in messages."""


def parse_value(text: str) -> Scalar:
    """Read a value from the command line: None, true, false, a number, or otherwise a word."""
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


def parse_assignments(texts: Iterable[str], owner: str) -> dict[str, Scalar]:
    """Read `name=value` texts, such as repeated command-line options; empty texts are skipped.

    Args:
        texts: The texts.
        owner: What the values belong to, for messages: "method 'ssd'".

    Raises:
        UsageError: A text has no equals sign or no name, or a name is given twice.
    """
    values: dict[str, Scalar] = {}
    for text in filter(None, (text.strip() for text in texts)):
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise UsageError(f"{owner}: {text!r} has no value; write NAME=VALUE.")
        if name in values:
            raise UsageError(f"{owner}: {name!r} is given twice.")
        values[name] = parse_value(value)
    return values
