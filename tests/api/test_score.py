"""`score` gives what the command gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import forgetbench as fb
from forgetbench.cli import main
from forgetbench.evidence.arrays import Array


@pytest.fixture
def arrays() -> dict[str, dict[str, Array]]:
    generator = np.random.default_rng(0)
    rows = {"forget": 40, "retain": 80, "test": 100}
    labels = {name: np.arange(count) % 4 for name, count in rows.items()}

    def models(count: int, memory: float) -> dict[str, Array]:
        logits = {name: generator.normal(size=(count, n, 4)) for name, n in rows.items()}
        for name, truth in labels.items():
            logits[name][:, np.arange(len(truth)), truth] += 2.0 + (memory if name == "forget" else 0.0)
        return logits

    return {"unlearned": models(6, 1.0), "oracle": models(12, 0.0), "labels": labels, "original": models(6, 3.0)}


def test_score_equals_the_command(
    arrays: dict[str, dict[str, Array]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", "--json"]
    for name, content in arrays.items():
        np.savez(tmp_path / f"{name}.npz", **content)
        arguments += [f"--{name}", str(tmp_path / f"{name}.npz")]
    card = fb.score(arrays["unlearned"], arrays["oracle"], arrays["labels"], original=arrays["original"])
    with pytest.raises(SystemExit):
        main(arguments)
    assert json.loads(capsys.readouterr().out) == card.model_dump(mode="json")


def test_score_gives_values_intervals_and_z_by_name(arrays: dict[str, dict[str, Array]]) -> None:
    card = fb.score(arrays["unlearned"], arrays["oracle"], arrays["labels"], name="mine")
    value = card["lira.forget"]
    assert value.value is not None
    assert value.low is not None
    assert value.high is not None
    assert value.low <= value.value <= value.high
    line = card.to_frame().loc["lira.forget"]
    assert line["value"] == value.value
    assert (line["low"], line["high"], line["z"]) == (value.low, value.high, value.z)
    assert "lira.forget" in card._repr_html_()
    with pytest.raises(fb.UsageError, match=r"Did you mean .lira\.forget."):
        card["lira.forgot"]
