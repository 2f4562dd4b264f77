"""The demo after an upgrade: its runs may be on the board already."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetbench import demo
from forgetbench.errors import ForgetBenchError
from forgetbench.leaderboard.client.http import InYourEntryError


def test_answers_of_an_earlier_demo_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter([InYourEntryError("in your entry abc"), ForgetBenchError("The board is closed.")])

    def refuse(*_: object, **__: object) -> None:
        raise next(refusals)

    monkeypatch.setattr(demo, "submit", refuse)
    run, server = Path("run"), demo.LocalServer("http://127.0.0.1:1", "fb_token")
    assert demo._post(run, server) == "is on the board since an earlier demo"
    with pytest.raises(ForgetBenchError, match="closed"):
        demo._post(run, server)
