"""The grammar in which people name methods."""

from __future__ import annotations

import pytest

from forgetbench.errors import UsageError
from forgetbench.method_label import MethodFile, MethodLabel, is_method_file


@pytest.mark.parametrize(
    ("text", "name", "values", "parameters"),
    [
        ("ssd", "ssd", "", ()),
        ("ssd:alpha=3,dampening=0.5", "ssd", "alpha=3,dampening=0.5", ("alpha", "dampening")),
        (" gs-lora++ : rank = 4 ", "gs-lora++", "rank = 4", ("rank",)),
        ("No unlearning", "No unlearning", "", ()),
    ],
)
def test_label_parse_splits_name_and_values(text: str, name: str, values: str, parameters: tuple[str, ...]) -> None:
    label = MethodLabel.parse(text)
    assert (label.name, label.values, label.parameters) == (name, values, parameters)


def test_label_str_round_trips_without_white_space() -> None:
    assert str(MethodLabel.parse("ssd: alpha = 3, dampening=1")) == "ssd:alpha=3,dampening=1"
    assert str(MethodLabel.parse("ssd")) == "ssd"
    assert str(MethodLabel.parse("ssd:alpha=3").extended({"dampening": 0.5})) == "ssd:alpha=3,dampening=0.5"
    assert str(MethodLabel.parse("ssd").extended({})) == "ssd"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my_method.py", ("my_method.py", "", "")),
        ("my_method.py:Mine", ("my_method.py", "Mine", "")),
        ("a/b.py:Mine:lr=0.1,epochs=2", ("a/b.py", "Mine", "lr=0.1,epochs=2")),
        ("my_method.py::lr=0.1", ("my_method.py", "", "lr=0.1")),
        ("C:\\methods\\m.py:Mine", ("C:\\methods\\m.py", "Mine", "")),
        (".pyenv/methods/m.py:Mine", (".pyenv/methods/m.py", "Mine", "")),
        ("versions.py.d/m.py:Mine", ("versions.py.d/m.py", "Mine", "")),
        ("old.py/m.py:Mine", ("old.py/m.py", "Mine", "")),
        ("old.py:2/m.py:Mine", ("old.py:2/m.py", "Mine", "")),
        ("D:\\my.py.files\\m.py:Mine:lr=1", ("D:\\my.py.files\\m.py", "Mine", "lr=1")),
        ("m.py:Mine:script=other.py", ("m.py", "Mine", "script=other.py")),
        ("m.py::script=a/b.py,url=http://x", ("m.py", "", "script=a/b.py,url=http://x")),
    ],
)
def test_file_parse_splits_path_class_and_values(text: str, expected: tuple[str, str, str]) -> None:
    assert is_method_file(text)
    assert tuple(MethodFile.parse(text)) == expected


@pytest.mark.parametrize("text", ["ssd", "ssd:alpha=3", "my_method", "runs/digits/cnn/class/ssd", ""])
def test_file_parse_other_text_is_refused(text: str) -> None:
    assert not is_method_file(text)
    with pytest.raises(UsageError, match=r"does not name a Python file\. Write FILE\.py:CLASS"):
        MethodFile.parse(text)
