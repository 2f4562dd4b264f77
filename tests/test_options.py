"""The option system: declaration, checks, former names, documentation, and values from the command line."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from forgetbench.errors import UsageError
from forgetbench.options import Duration, OptionDoc, Options, Rate, option, parse_assignments, parse_scaled, parse_value


@dataclass(frozen=True, kw_only=True)
class Sample(Options):
    option_owner: ClassVar[str] = "method 'sample'"

    rate: float = option(1.0, "Learning rate.", gt=0, search=(0.1, 10.0), paper_default=0.5)
    count: int | None = option(None, "How many.", ge=1, aliases=("number",))
    space: str = option("wrong", "Label space.", choices=("wrong", "all"), renamed_values={"other": "wrong"})
    size: Literal[32, 64] = option(32, "Side.")
    fraction: float = option(0.5, "Fraction.", gt=0, le=1)
    flag: bool = option(False, "Switch.")
    widths: tuple[Annotated[int, Field(ge=1)], ...] = option((256, 128), "Widths.")
    names: tuple[str | int, ...] = option((), "Names or numbers.")
    arguments: Mapping[str, Any] | None = option(None, "Passed on.")
    plain: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Scaled(Options):
    option_owner: ClassVar[str] = "method 'scaled'"

    lr: Rate = option("0.1x", "Learning rate.", gt=0, search=("0.01x", "1x"))
    epochs: Duration = option(5, "Epochs.", ge=1)


def test_values_convert_without_loss():
    sample = Sample(rate=3, count=4.0, widths=[5, 6], names="a", arguments={"z": 1})
    assert (sample.rate, sample.count, sample.widths, sample.names) == (3.0, 4, (5, 6), ("a",))
    assert [type(value) for value in (sample.rate, sample.count)] == [float, int]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0}, "method 'sample': rate must be a number > 0, not 0."),
        ({"rate": "big"}, "rate must be a number > 0, not 'big'"),
        ({"rate": "1"}, "rate must be a number > 0, not '1'"),
        ({"rate": True}, "rate must be a number > 0, not True"),
        ({"rate": None}, "rate must be a number > 0, not None"),
        ({"rate": math.nan}, "not nan"),
        ({"rate": math.inf}, "not inf"),
        ({"count": 1.5}, "count must be a whole number >= 1 or None, not 1.5"),
        ({"count": True}, "count must be a whole number >= 1 or None, not True"),
        ({"space": "both"}, "space must be one of wrong | all, not 'both'"),
        ({"size": 33}, "size must be one of 32 | 64, not 33"),
        ({"fraction": 2.0}, "fraction must be a number in (0, 1], not 2.0"),
        ({"flag": 1}, "flag must be true or false, not 1"),
        ({"widths": [1, 0]}, "widths must be list of int, not [1, 0] (0: input should be greater than or equal to 1)"),
        ({"arguments": 3}, "arguments must be table or None, not 3"),
        ({"plain": "1"}, "plain must be a number, not '1'"),
        ({"rat": 1}, "Unknown option 'rat'. Did you mean 'rate'"),
        ({"count": 1, "number": 2}, "'number' is the former name of 'count'"),
    ],
)
def test_wrong_values_are_explained(values, message):
    with pytest.raises(UsageError) as caught:
        Sample.from_dict(values)
    assert message in str(caught.value)


def test_every_wrong_value_is_reported():
    with pytest.raises(UsageError) as caught:
        Sample(rate=0, count=0)
    assert [line.split()[2] for line in str(caught.value).splitlines()] == ["rate", "count"]


def test_former_names_and_values_are_accepted():
    assert Sample.from_dict({"number": 3, "space": "other"}) == Sample(count=3, space="wrong")
    texts = ("number = 3", "space=other", "rate=0.10", "unknown=1", "rate")
    assert [Sample.current_assignment(text) for text in texts] == [
        "count=3",
        "space=wrong",
        "rate=0.10",
        "unknown=1",
        "rate",
    ]


def test_options_survive_a_round_trip_through_json():
    sample = Sample(count=2, widths=(3,), arguments={"depth": 2})
    assert sample.to_dict()["widths"] == [3]
    assert Sample.from_dict(sample.to_dict()) == sample


def test_options_are_documented():
    documents = {document.name: document for document in Sample.options()}
    assert documents["rate"] == OptionDoc("rate", "float", 1.0, "> 0", "Learning rate.", 0.5, (0.1, 10.0))
    assert documents["count"].aliases == ("number",)
    kinds = {name: document.kind for name, document in documents.items()}
    assert kinds["names"] == "list of str or int"
    assert kinds["count"] == "int or None"
    assert (kinds["size"], documents["size"].range) == ("int", "32 | 64")


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("lr", 0.05, 0.05),
        ("lr", 1, 1.0),
        ("lr", "0.05x", "0.05x"),
        ("lr", " 0.050X ", "0.05x"),
        ("lr", "1e-3x", "0.001x"),
        ("lr", "2.0x", "2x"),
        ("lr", ".5x", "0.5x"),
        ("epochs", 3, 3),
        ("epochs", "0.2x", "0.2x"),
        ("epochs", "40steps", "40steps"),
        ("epochs", "4e1steps", "40steps"),
    ],
)
def test_scaled_option_keeps_the_shortest_text(name, value, kept):
    found = getattr(Scaled(**{name: value}), name)
    assert (found, type(found)) == (kept, type(kept))
    assert Scaled.from_dict(Scaled(**{name: value}).to_dict()) == Scaled(**{name: kept})


LR_WORDS = "lr must be a number > 0 or Nx, such as 0.1x for a tenth of the recipe's lr, not "
EPOCHS_WORDS = (
    "epochs must be a whole number >= 1 or Nx or Nsteps, such as 0.1x for a tenth of the recipe's epochs, not "
)


@pytest.mark.parametrize("value", [0, -0.1, math.nan, True, None, "x", "0x", "-1x", "nanx", "infx", "1e999x", "0.1"])
def test_scaled_rate_out_of_range_is_explained(value):
    with pytest.raises(UsageError) as caught:
        Scaled(lr=value)
    assert f"method 'scaled': {LR_WORDS}{value!r}." in str(caught.value)


@pytest.mark.parametrize("value", [0, 1.5, True, "0x", "0steps", "1.5steps", "steps", "-3steps", "40", "all"])
def test_scaled_duration_out_of_range_is_explained(value):
    with pytest.raises(UsageError) as caught:
        Scaled(epochs=value)
    assert f"method 'scaled': {EPOCHS_WORDS}{value!r}." in str(caught.value)


def test_scaled_rate_has_no_steps():
    with pytest.raises(UsageError, match="lr must be"):
        Scaled(lr="40steps")
    with pytest.raises(UsageError, match=r"'40steps' is not a multiple such as 0\.1x"):
        parse_scaled("40steps", ("x",))


def test_scaled_options_are_documented():
    lr, epochs = Scaled.options()
    assert (lr.range, lr.scales_with, lr.is_ordered, lr.search) == ("> 0 or Nx", "lr", True, ("0.01x", "1x"))
    assert (epochs.range, epochs.scales_with, epochs.default) == (">= 1 or Nx or Nsteps", "epochs", 5)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1e-3", 1e-3), (" TRUE ", True), ("none", None), ("batch", "batch"), ("1.0", 1.0)],
)
def test_parse_value_reads_a_scalar(text, value):
    assert (parse_value(text), type(parse_value(text))) == (value, type(value))


def test_parse_assignments_reads_pairs_and_refuses_others():
    assert parse_assignments(["a=1", "", " b = x "], "task") == {"a": 1, "b": "x"}
    for texts, message in ((["a"], "'a' has no value; write NAME=VALUE"), (["a=1", "a=2"], "'a' is given twice")):
        with pytest.raises(UsageError, match=message):
            parse_assignments(texts, "task")


def test_import_loads_neither_torch_nor_numpy():
    code = "import sys, forgetbench.options; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
