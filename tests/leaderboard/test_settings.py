from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from forgetbench.cli import main
from forgetbench.leaderboard import settings as module
from forgetbench.leaderboard.render.formatting import estimate, number, percent, rank_text, z_text
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web.routes.pages import field_docs


def test_every_setting_is_documented():
    documented = {name for kind, name in field_docs(module) if kind == "Settings"}
    assert set(Settings.model_fields) <= documented
    page = (Path(__file__).parents[2] / "docs" / "run-a-leaderboard.md").read_text()
    assert [name for name in Settings.model_fields if f"`FORGETBENCH_{name.upper()}`" not in page] == []


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FORGETBENCH_SERVER_FOLDER", str(tmp_path))
    monkeypatch.setenv("FORGETBENCH_PAGE_ROWS", "7")
    monkeypatch.setenv("FORGETBENCH_DATABASE_URL", "")
    found = Settings()
    assert (found.page_rows, found.database) == (7, f"sqlite:///{tmp_path / 'leaderboard.sqlite'}")
    monkeypatch.setenv("FORGETBENCH_PAGE_ROWS", "0")
    with pytest.raises(ValidationError):
        Settings()


def test_a_wrong_setting_is_named_and_explained(monkeypatch, capsys):
    monkeypatch.setenv("FORGETBENCH_TRUSTED_PROXIES", "10.0.0.7, 10.0.0.300")
    monkeypatch.setenv("FORGETBENCH_READS_PER_MINUTE", "0")
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    said = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert "FORGETBENCH_TRUSTED_PROXIES" in said
    assert "'10.0.0.300' is not an address or network" in said
    assert "FORGETBENCH_READS_PER_MINUTE: Input should be greater than or equal to 1" in said


def test_the_default_folder_is_beside_the_store(own_home: Path):
    assert Settings().server_folder == own_home / "leaderboard"


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.02314, 0.019, 0.0272, "0.0231 ± 0.0041"),
        (14.86, 14.26, 15.46, "14.86 ± 0.60"),
        (63.0, 50.0, 76.0, "63 ± 13"),
        (-0.5, -0.8, -0.2, "−0.50 ± 0.30"),
        (1.0, 1.0, 1.0, "1.00 ± 0.00"),
        (0.0, None, None, "0.00"),
        (None, None, None, "–"),
    ],
)
def test_numbers_are_rounded_by_their_interval(value, low, high, text):
    assert estimate(value, low, high) == text


def test_small_signs_and_infinities():
    assert number(-0.001, 1, signed=True) == "0.0"
    assert number(float("-inf")) == "−∞"
    assert (z_text(123.4), z_text(-5.25), z_text(None)) == ("+123", "−5.2", "")
    assert (rank_text(2, 4), rank_text(3, 3), rank_text(None, None)) == ("2–4", "3", "–")
    assert (percent(0.004), percent(0.11), percent(0.0), percent(None)) == ("0.4 %", "11 %", "0 %", "–")
