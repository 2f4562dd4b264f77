import re
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, ValidationError

import forgetbench
from forgetbench.errors import described_pattern, validation_message

PACKAGE = Path(forgetbench.__file__).parent


class Model(BaseModel):
    described: str = Field(pattern=described_pattern(r"^[0-9]{3}$", "three digits"))
    bare: str = Field(pattern=r"^[a-z]+$")


def test_validation_message_has_words_instead_of_patterns():
    with pytest.raises(ValidationError) as raised:
        Model.model_validate({"described": "x", "bare": "1"})
    message = validation_message(raised.value)
    assert message == "described: Input should be three digits; bare: Input should be text of another form"


def test_every_pattern_of_a_field_is_described():
    """A message never shows a regular expression: every `pattern=` is declared with words."""
    bare = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for folder in (PACKAGE, *(PACKAGE / name for name in ("datasets", "leaderboard", "methods")))
        for path in folder.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"""\bpattern=r?["']""", line)
    ]
    assert not bare
