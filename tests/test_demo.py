"""The demo after an upgrade: its runs may be on the board already."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetbench import demo
from forgetbench.errors import ForgetBenchError
from forgetbench.leaderboard.submissions.receive import IN_YOUR_ENTRY


def test_answers_of_an_earlier_demo_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = iter([f"refused the request:\n  d0-s0.npz: {IN_YOUR_ENTRY} abc (listed).", "The board is closed."])

    def refuse(*_: object, **__: object) -> None:
        raise ForgetBenchError(next(reasons))

    monkeypatch.setattr(demo, "submit", refuse)
    run, server = Path("run"), demo.LocalServer("http://127.0.0.1:1", "fb_token")
    assert demo._post(run, server) == "is on the board since an earlier demo"
    with pytest.raises(ForgetBenchError, match="closed"):
        demo._post(run, server)
